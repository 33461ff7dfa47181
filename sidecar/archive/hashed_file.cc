#include "sidecar/archive/hashed_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/fetch/dot_name.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

// The disk writes while the next bytes are made, so that the sync at the end is short.
constexpr uint64_t kWriteBack = 8 << 20;

}  // namespace

absl::StatusOr<std::unique_ptr<HashedFile>> HashedFile::Create(const fs::path& path) {
  RemoveDotNames(path);
  fs::path temporary = DotName(path);
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoError("cannot create", temporary);
  return std::unique_ptr<HashedFile>(new HashedFile(path, std::move(temporary), std::move(fd)));
}

HashedFile::HashedFile(fs::path path, fs::path temporary, UniqueFd fd)
    : path_(std::move(path)), temporary_(std::move(temporary)), fd_(std::move(fd)) {}

HashedFile::~HashedFile() {
  if (fd_.valid()) ::unlink(temporary_.c_str());
}

absl::Status HashedFile::Write(std::string_view bytes) {
  sha256_.Update(bytes);
  bytes_ += bytes.size();
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd_.get(), bytes.data(), bytes.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot write", temporary_);
    bytes.remove_prefix(static_cast<size_t>(n));
  }
  if (bytes_ - written_back_ >= kWriteBack) {
    // A hint: the sync at the end is what counts.
    (void)::sync_file_range(fd_.get(), static_cast<off64_t>(written_back_),
                            static_cast<off64_t>(bytes_ - written_back_), SYNC_FILE_RANGE_WRITE);
    written_back_ = bytes_;
  }
  return absl::OkStatus();
}

absl::Status HashedFile::Commit() {
  if (::fdatasync(fd_.get()) != 0) return ErrnoError("cannot sync", temporary_);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    return ErrnoError("cannot rename to", path_);
  }
  fd_.Reset();
  digest_ = sha256_.Hex();
  return absl::OkStatus();
}

}  // namespace flowmesh::sidecar
