#include "sidecar/archive/hashed_file.h"

#include <fcntl.h>

#include <utility>

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

// The disk writes while the next bytes are made, so that the sync at the end is short.
constexpr uint64_t kWriteBack = 8 << 20;

}  // namespace

absl::StatusOr<HashedFile> HashedFile::Create(const fs::path& path) {
  RemoveDotNames(path);
  ASSIGN_OR_RETURN(DotFile file, DotFile::Create(path));
  return HashedFile(std::move(file));
}

absl::Status HashedFile::Write(std::string_view bytes) {
  sha256_.Update(bytes);
  bytes_ += bytes.size();
  RETURN_IF_ERROR(file_.Write(bytes));
  if (bytes_ - written_back_ >= kWriteBack) {
    // A hint: the sync at the end is what counts.
    (void)::sync_file_range(file_.fd(), static_cast<off64_t>(written_back_),
                            static_cast<off64_t>(bytes_ - written_back_), SYNC_FILE_RANGE_WRITE);
    written_back_ = bytes_;
  }
  return absl::OkStatus();
}

absl::Status HashedFile::Commit() {
  RETURN_IF_ERROR(file_.Commit());
  digest_ = sha256_.Hex();
  return absl::OkStatus();
}

}  // namespace flowmesh::sidecar
