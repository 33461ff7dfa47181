// Files below one folder, and never outside: each part of a path is opened by itself and no
// symbolic link is followed, so nothing that others put there meanwhile leads away.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/files.h"
#include "common/status.h"

namespace flowmesh::agent {

// Paths are relative to the folder, or absolute ones that begin with it. Any thread.
// InvalidArgument: a path that leads outside. NotFound; FailedPrecondition: no regular file, a
// symbolic link, a folder where a file should be.
class Folder {
 public:
  static absl::StatusOr<Folder> Open(std::filesystem::path root);

  // ResourceExhausted: larger than `max_bytes`.
  absl::StatusOr<std::string> Read(const std::string& path, uint64_t max_bytes) const;
  // The same of a text. FailedPrecondition: it is not in UTF-8.
  absl::StatusOr<std::string> ReadText(const std::string& path, uint64_t max_bytes) const;

  // Makes the folders that are missing; an older file is replaced.
  absl::Status Write(const std::string& path, std::string_view content) const;

  struct Entry {
    std::string path;  // relative to the folder
    bool is_folder = false;
    uint64_t bytes = 0;
  };
  // What is below `path`, sorted, at most `max_entries` and without what begins with a dot.
  absl::StatusOr<std::vector<Entry>> List(const std::string& path, size_t max_entries) const;

 private:
  Folder(std::filesystem::path root, UniqueFd fd) : root_(std::move(root)), fd_(std::move(fd)) {}

  absl::StatusOr<std::vector<std::string>> Parts(const std::string& path) const;
  // The folder of `parts` but the last `leave`; `make`: with those that are missing.
  absl::StatusOr<UniqueFd> OpenFolder(const std::vector<std::string>& parts, size_t leave,
                                      bool make) const;
  absl::Status ListInto(int fd, const std::string& prefix, int depth, size_t max_entries,
                        std::vector<Entry>& entries) const;

  std::filesystem::path root_;
  UniqueFd fd_;
};

}  // namespace flowmesh::agent
