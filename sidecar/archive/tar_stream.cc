#include "sidecar/archive/tar_stream.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "sidecar/archive/folder_walk.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

constexpr size_t kReadSize = 256 << 10;
// 1980: the first time that every format of archives can hold.
constexpr time_t kTime = 315532800;

// The tar being written, and what its sink said.
class TarStream {
 public:
  TarStream(fs::path parent, const ByteSink& sink)
      : parent_(std::move(parent)), sink_(sink), buffer_(kReadSize) {}
  ~TarStream() {
    // Of an archive that failed, libarchive frees all only when it is closed; that would fill it up
    // with zeros.
    if (status_.ok()) status_ = absl::CancelledError("not wanted any more");
    archive_write_close(archive_.get());
  }

  absl::Status Open() {
    archive_write_set_format_gnutar(archive_.get());
    archive_write_set_bytes_per_block(archive_.get(), 0);  // to the sink as it comes
    return Check(archive_write_open(archive_.get(), this, nullptr, OnWrite, nullptr), "");
  }

  absl::Status Add(const FolderEntry& entry) {
    archive_entry_clear(entry_.get());
    archive_entry_set_pathname(entry_.get(), entry.name.c_str());
    archive_entry_set_mtime(entry_.get(), kTime, 0);
    switch (entry.kind) {
      case FolderEntry::Kind::kDirectory:
        archive_entry_set_mode(entry_.get(), S_IFDIR | 0755);
        break;
      case FolderEntry::Kind::kLink:
        archive_entry_set_mode(entry_.get(), S_IFLNK | 0777);
        archive_entry_set_symlink(entry_.get(), entry.target.c_str());
        break;
      case FolderEntry::Kind::kFile:
        archive_entry_set_mode(entry_.get(),
                               S_IFREG | ((entry.status.st_mode & 0100) != 0 ? 0755 : 0644));
        archive_entry_set_size(entry_.get(), entry.status.st_size);
        break;
    }
    RETURN_IF_ERROR(Check(archive_write_header(archive_.get(), entry_.get()), entry.name));
    return entry.kind == FolderEntry::Kind::kFile ? Content(entry) : absl::OkStatus();
  }

  absl::Status Close() { return Check(archive_write_close(archive_.get()), ""); }

 private:
  static la_ssize_t OnWrite(struct archive* archive, void* self, const void* data, size_t size) {
    auto& stream = *static_cast<TarStream*>(self);
    if (stream.status_.ok()) stream.status_ = stream.sink_({static_cast<const char*>(data), size});
    if (stream.status_.ok()) return static_cast<la_ssize_t>(size);
    archive_set_error(archive, EIO, "the output failed");
    return -1;
  }

  absl::Status Check(int code, const std::string& name) {
    if (!status_.ok()) return status_;
    if (code >= ARCHIVE_WARN) return absl::OkStatus();
    const char* text = archive_error_string(archive_.get());
    return absl::InternalError(
        absl::StrCat("cannot archive ", (parent_ / name).string(), ": ", text ? text : "?"));
  }

  // Exactly as many bytes as its header says.
  absl::Status Content(const FolderEntry& entry) {
    const fs::path path = parent_ / entry.name;
    ::posix_fadvise(entry.fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    uint64_t left = static_cast<uint64_t>(entry.status.st_size);
    while (left > 0) {
      const ssize_t n = ::read(entry.fd, buffer_.data(), std::min<uint64_t>(left, buffer_.size()));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError("cannot read", path);
      if (n == 0) break;
      const la_ssize_t written = archive_write_data(archive_.get(), buffer_.data(), n);
      RETURN_IF_ERROR(Check(written < 0 ? ARCHIVE_FATAL : ARCHIVE_OK, entry.name));
      left -= static_cast<uint64_t>(n);
    }
    struct stat now;
    if (::fstat(entry.fd, &now) != 0) return ErrnoError("cannot stat", path);
    if (left > 0 || now.st_size != entry.status.st_size ||
        now.st_mtim.tv_sec != entry.status.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != entry.status.st_mtim.tv_nsec) {
      return absl::FailedPreconditionError(
          absl::StrCat(path.string(), ": changed while it was archived: ", entry.status.st_size,
                       " bytes before, ", now.st_size, " after"));
    }
    return absl::OkStatus();
  }

  const fs::path parent_;
  const ByteSink& sink_;
  absl::Status status_;  // the sink's
  std::vector<char> buffer_;
  std::unique_ptr<struct archive_entry, void (*)(struct archive_entry*)> entry_{archive_entry_new(),
                                                                                archive_entry_free};
  std::unique_ptr<struct archive, int (*)(struct archive*)> archive_{archive_write_new(),
                                                                     archive_write_free};
};

}  // namespace

absl::Status WriteTar(const fs::path& folder, const ByteSink& sink,
                      std::vector<std::string>& skipped) {
  TarStream stream(folder.parent_path(), sink);
  RETURN_IF_ERROR(stream.Open());
  RETURN_IF_ERROR(WalkFolder(
      folder, [&](const FolderEntry& entry) { return stream.Add(entry); }, skipped));
  return stream.Close();
}

}  // namespace flowmesh::sidecar
