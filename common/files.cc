#include "common/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/sha256.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

absl::Status WriteAll(int fd, std::string_view content, const std::filesystem::path& path) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0) {
      if (errno == EINTR) continue;
      return ErrnoError("cannot write", path);
    }
    content.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

// A file on its way to its name; removed when it does not get there.
class DotFile {
 public:
  explicit DotFile(const std::filesystem::path& path)
      : path_(path),
        temporary_(path.parent_path() /
                   absl::StrCat(".", path.filename().string(), ".", RandomHex(4))) {}
  DotFile(DotFile&&) = default;
  ~DotFile() {
    if (fd_.valid()) ::unlink(temporary_.c_str());
  }

  absl::Status Write(std::string_view content) {
    fd_ = UniqueFd(::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    if (!fd_.valid()) return ErrnoError("cannot create", temporary_);
    return WriteAll(fd_.get(), content, temporary_);
  }

  absl::Status Sync() {
    return ::fdatasync(fd_.get()) == 0 ? absl::OkStatus() : ErrnoError("cannot sync", temporary_);
  }

  absl::Status TakeName() {
    if (::rename(temporary_.c_str(), path_.c_str()) != 0)
      return ErrnoError("cannot rename to", path_);
    fd_.Reset();
    return absl::OkStatus();
  }

 private:
  std::filesystem::path path_, temporary_;
  UniqueFd fd_;
};

}  // namespace

absl::Status ErrnoError(std::string_view what, const std::filesystem::path& path) {
  const int error = errno;
  const std::string text =
      absl::StrCat(ToAbsl(what), " ", path.string(), ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return absl::NotFoundError(text);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(text);
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
      return absl::ResourceExhaustedError(text);
    default:
      return absl::InternalError(text);
  }
}

absl::StatusOr<std::string> ReadFile(const std::filesystem::path& path, uint64_t max_bytes) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError("cannot open", path);
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return ErrnoError("cannot stat", path);
  if (S_ISDIR(info.st_mode)) {
    return absl::FailedPreconditionError(absl::StrCat("cannot read ", path.string(), ": a folder"));
  }
  std::string content;
  content.reserve(static_cast<size_t>(info.st_size));
  std::array<char, 1 << 16> buffer;
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot read", path);
    if (n == 0) return content;
    content.append(buffer.data(), static_cast<size_t>(n));
    if (content.size() > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path.string(), ": larger than ", max_bytes, " bytes"));
    }
  }
}

absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content) {
  return WriteFilesAtomically({{path, content}});
}

absl::Status WriteFilesAtomically(const std::vector<FileToWrite>& files) {
  std::vector<DotFile> written;
  // First all the writing, then the syncing: what the files share on disk, as their folder, is
  // written once.
  for (const FileToWrite& file : files) {
    written.emplace_back(file.path);
    RETURN_IF_ERROR(written.back().Write(file.content));
  }
  for (DotFile& file : written) RETURN_IF_ERROR(file.Sync());
  for (DotFile& file : written) RETURN_IF_ERROR(file.TakeName());
  return absl::OkStatus();
}

absl::Status AppendFile(const std::filesystem::path& path, std::string_view content) {
  UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoError("cannot open", path);
  return WriteAll(fd.get(), content, path);
}

absl::Status MakeDirectories(const std::filesystem::path& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (error) {
    errno = error.value();
    return ErrnoError("cannot create folder", path);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Sha256OfFile(const std::filesystem::path& path) {
  UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError("cannot open", path);
  Sha256 sha256;
  std::vector<char> buffer(1 << 20);
  while (true) {
    const ssize_t n = ::read(fd.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot read", path);
    if (n == 0) break;
    sha256.Update({buffer.data(), static_cast<size_t>(n)});
  }
  return sha256.Hex();
}

TempDir::TempDir() {
  std::string pattern = (std::filesystem::temp_directory_path() / "flowmesh-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    std::perror("mkdtemp");
    std::abort();
  }
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

UniqueFd& UniqueFd::operator=(UniqueFd&& other) noexcept {
  if (this != &other) {
    Reset();
    fd_ = other.Release();
  }
  return *this;
}

int UniqueFd::Release() {
  const int fd = fd_;
  fd_ = -1;
  return fd;
}

void UniqueFd::Reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

}  // namespace flowmesh
