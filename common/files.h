// Files: whole-file reads, atomic writes, temporary names and folders. Errors name the path and the
// system's reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status.h"

namespace flowmesh {

// NotFound when it does not exist, ResourceExhausted when it is larger than `max_bytes`.
absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path,
                                     uint64_t max_bytes = uint64_t{1} << 32);

// Owns a file descriptor.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(other.Release()) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept;
  ~UniqueFd() { Reset(); }

  int get() const { return fd_; }
  bool valid() const { return fd_ >= 0; }
  int Release();
  void Reset();

 private:
  int fd_ = -1;
};

// Both ends are closed in programs that are started; see SetNonBlocking.
struct Pipe {
  UniqueFd read, write;
};
absl::StatusOr<Pipe> MakePipe();

// Reading and writing return at once, whether or not there is something or room.
absl::Status SetNonBlocking(const UniqueFd& fd);

// `.<name>.<8 hex digits>` beside `path`: the name of what is on its way to its own.
std::filesystem::path DotName(const std::filesystem::path& path);

// Removes files and folders of such names that a killed process left.
void RemoveDotNames(const std::filesystem::path& path);

// A file under a dot-name until it gets its own; the destructor removes it when it did not. Not
// thread-safe.
class DotFile {
 public:
  static absl::StatusOr<DotFile> Create(const std::filesystem::path& path);
  DotFile(DotFile&&) = default;
  ~DotFile();

  const std::filesystem::path& path() const { return path_; }
  int fd() const { return fd_.get(); }

  absl::Status Write(std::string_view bytes);
  absl::Status Empty();     // what was written is gone
  absl::Status Sync();      // its content is on disk
  absl::Status TakeName();  // in place of an older file; nothing is written after that
  absl::Status Commit();    // Sync and TakeName, and the name is on disk too

 private:
  DotFile(std::filesystem::path path, std::filesystem::path temporary, UniqueFd fd)
      : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

  std::filesystem::path path_, temporary_;
  UniqueFd fd_;  // invalid once it has its name
};

// Writes a dot-named file beside `path`, syncs it to disk and renames it, so that a reader sees the
// old content or the new, whole. Both content and name outlive a power loss. Leaves nothing behind
// on failure.
absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

// The same for several files: all of them are on disk before the first gets its name; they get
// their names in order. Each folder is synced once.
struct FileToWrite {
  std::filesystem::path path;
  std::string_view content;
};
absl::Status WriteFilesAtomically(const std::vector<FileToWrite>& files);

absl::Status AppendFile(const std::filesystem::path& path, std::string_view content);

absl::Status MakeDirectories(const std::filesystem::path& path);

// Lower-case hex SHA-256 of a file's content, read in pieces.
absl::StatusOr<std::string> Sha256OfFile(const std::filesystem::path& path);

// A fresh folder below the system's temporary folder, removed with everything in it by the
// destructor.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

// `<what> <path>: <strerror(errno)>` with a matching code (NotFound, PermissionDenied, ...).
absl::Status ErrnoError(std::string_view what, const std::filesystem::path& path);

}  // namespace flowmesh
