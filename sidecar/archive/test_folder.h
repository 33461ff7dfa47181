// For tests of archives: a folder to fill and tools that look at what became of it.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/subprocess.h"

namespace flowmesh::sidecar {

// Runs a program to its end; its standard output, or nothing when it failed.
inline std::optional<std::string> RunTool(const std::vector<std::string>& argv) {
  const TempDir temp;
  const UniqueFd out(::open((temp / "out").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  absl::StatusOr<Subprocess> process = Subprocess::Start({.argv = argv, .stdout_fd = out.get()});
  if (!process.ok()) return std::nullopt;
  const std::optional<ExitStatus> status = process->Wait(absl::Minutes(1));
  if (!status || !status->ok()) return std::nullopt;
  return ReadFile(temp / "out").value();
}

inline std::string Noise(size_t size) {
  std::mt19937_64 random(size);
  std::string bytes((size + 7) / 8 * 8, '\0');
  for (size_t i = 0; i < bytes.size(); i += 8) {
    const uint64_t value = random();
    bytes.replace(i, 8, reinterpret_cast<const char*>(&value), 8);
  }
  bytes.resize(size);
  return bytes;
}

// `final_model` in a folder of its own.
class TestFolder {
 public:
  TestFolder() { std::filesystem::create_directory(path()); }

  std::filesystem::path path() const { return temp_ / "final_model"; }
  std::filesystem::path parent() const { return temp_.path(); }
  std::filesystem::path archive() const { return temp_ / "final_model.tar.gz"; }

  void Write(const std::string& name, std::string_view content) const {
    std::filesystem::create_directories((path() / name).parent_path());
    ASSERT_TRUE(WriteFileAtomically(path() / name, content).ok());
  }

  // The names beside the folder, sorted.
  std::vector<std::string> Beside() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(parent())) {
      names.push_back(entry.path().filename().string());
    }
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  TempDir temp_;
};

}  // namespace flowmesh::sidecar
