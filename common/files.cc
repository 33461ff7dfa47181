#include "common/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
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

// The names in it are on disk, and where the file system writes a log its own name too.
absl::Status SyncFolder(const std::filesystem::path& folder) {
  const UniqueFd fd(
      ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  // Not every file system can.
  if (fd.valid() && (::fsync(fd.get()) == 0 || errno == EINVAL || errno == ENOTSUP)) {
    return absl::OkStatus();
  }
  return ErrnoError("cannot sync", folder);
}

constexpr int kDotSuffixBytes = 4;

// Of a long name only so much as file systems leave room for.
std::string DotPrefix(const std::filesystem::path& path) {
  return absl::StrCat(".", path.filename().string().substr(0, 240), ".");
}

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

std::filesystem::path DotName(const std::filesystem::path& path) {
  return path.parent_path() / absl::StrCat(DotPrefix(path), RandomHex(kDotSuffixBytes));
}

void RemoveDotNames(const std::filesystem::path& path) {
  const std::string prefix = DotPrefix(path);
  std::error_code ignored;
  std::vector<std::filesystem::path> found;
  for (const std::filesystem::directory_entry& entry :
       std::filesystem::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) == 0 && name.size() == prefix.size() + 2 * kDotSuffixBytes &&
        name.find_first_not_of("0123456789abcdef", prefix.size()) == std::string::npos) {
      found.push_back(entry.path());
    }
  }
  for (const std::filesystem::path& old : found) std::filesystem::remove_all(old, ignored);
}

absl::StatusOr<DotFile> DotFile::Create(const std::filesystem::path& path) {
  std::filesystem::path temporary = DotName(path);
  UniqueFd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!fd.valid()) return ErrnoError("cannot create", temporary);
  return DotFile(path, std::move(temporary), std::move(fd));
}

DotFile::~DotFile() {
  if (fd_.valid()) ::unlink(temporary_.c_str());
}

absl::Status DotFile::Write(std::string_view bytes) {
  return WriteAll(fd_.get(), bytes, temporary_);
}

absl::Status DotFile::Empty() {
  if (::ftruncate(fd_.get(), 0) == 0 && ::lseek(fd_.get(), 0, SEEK_SET) == 0) {
    return absl::OkStatus();
  }
  return ErrnoError("cannot empty", temporary_);
}

absl::Status DotFile::Sync() {
  return ::fdatasync(fd_.get()) == 0 ? absl::OkStatus() : ErrnoError("cannot sync", temporary_);
}

absl::Status DotFile::TakeName() {
  if (::rename(temporary_.c_str(), path_.c_str()) != 0)
    return ErrnoError("cannot rename to", path_);
  fd_.Reset();
  return absl::OkStatus();
}

absl::Status DotFile::Commit() {
  RETURN_IF_ERROR(Sync());
  RETURN_IF_ERROR(TakeName());
  return SyncFolder(path_.parent_path());
}

absl::Status WriteFileAtomically(const std::filesystem::path& path, std::string_view content) {
  return WriteFilesAtomically({{path, content}});
}

absl::Status WriteFilesAtomically(const std::vector<FileToWrite>& files) {
  std::vector<DotFile> written;
  // First all the writing, then the syncing: what the files share on disk, as their folder, is
  // written once.
  for (const FileToWrite& file : files) {
    ASSIGN_OR_RETURN(DotFile dot_file, DotFile::Create(file.path));
    RETURN_IF_ERROR(dot_file.Write(file.content));
    written.push_back(std::move(dot_file));
  }
  for (DotFile& file : written) RETURN_IF_ERROR(file.Sync());
  for (DotFile& file : written) RETURN_IF_ERROR(file.TakeName());
  std::set<std::filesystem::path> folders;
  for (const FileToWrite& file : files) folders.insert(file.path.parent_path());
  for (const std::filesystem::path& folder : folders) RETURN_IF_ERROR(SyncFolder(folder));
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

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return ErrnoError("cannot make", "a pipe");
  return Pipe{UniqueFd(ends[0]), UniqueFd(ends[1])};
}

absl::Status SetNonBlocking(const UniqueFd& fd) {
  if (::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK) == 0)
    return absl::OkStatus();
  return ErrnoError("cannot set up", "a pipe or socket");
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
