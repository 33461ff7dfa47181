#include "executors/agent/tools/folder.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/strings.h"

namespace flowmesh::agent {
namespace {

constexpr int kFolderFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
constexpr int kDeepest = 32;  // of a listing

absl::Status Failure(const std::string& path) {
  if (errno == ELOOP || errno == ENOTDIR) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, ": a part of it is a symbolic link or no folder"));
  }
  return ErrnoError("cannot open", path);
}

absl::StatusOr<std::string> ReadAll(int fd, const std::string& path, uint64_t max_bytes) {
  struct stat info;
  if (::fstat(fd, &info) != 0) return ErrnoError("cannot read", path);
  if (!S_ISREG(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, S_ISDIR(info.st_mode) ? ": is a folder" : ": is no regular file"));
  }
  std::string content;
  char buffer[64 << 10];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ErrnoError("cannot read", path);
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > max_bytes) {
      return absl::ResourceExhaustedError(
          absl::StrCat(path, ": larger than ", max_bytes, " bytes"));
    }
  }
}

absl::Status WriteAll(int fd, std::string_view content, const std::string& path) {
  while (!content.empty()) {
    const ssize_t n = ::write(fd, content.data(), content.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return ErrnoError("cannot write", path);
    content.remove_prefix(static_cast<size_t>(n));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Folder> Folder::Open(std::filesystem::path root) {
  UniqueFd fd(::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid()) return ErrnoError("cannot open", root);
  return Folder(std::move(root), std::move(fd));
}

absl::StatusOr<std::vector<std::string>> Folder::Parts(const std::string& path) const {
  std::string inner = path;
  if (path.starts_with('/')) {
    const std::string root = root_.string();
    if (path != root && !path.starts_with(root + "/")) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": expected a path inside the folder, got one that leads outside"));
    }
    inner = path.substr(root.size());
  }
  std::vector<std::string> parts;
  for (const auto part : absl::StrSplit(inner, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == ".." || part.find('\0') != absl::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": expected a path inside the folder, got one that leads outside"));
    }
    parts.emplace_back(part);
  }
  return parts;
}

absl::StatusOr<UniqueFd> Folder::OpenFolder(const std::vector<std::string>& parts, size_t leave,
                                            bool make) const {
  UniqueFd at(::openat(fd_.get(), ".", kFolderFlags));
  if (!at.valid()) return Failure(root_.string());
  for (size_t i = 0; i + leave < parts.size(); ++i) {
    if (make && ::mkdirat(at.get(), parts[i].c_str(), 0777) != 0 && errno != EEXIST) {
      return ErrnoError("cannot make folder", parts[i]);
    }
    UniqueFd next(::openat(at.get(), parts[i].c_str(), kFolderFlags));
    if (!next.valid()) return Failure(absl::StrJoin(parts, "/"));
    at = std::move(next);
  }
  return at;
}

absl::StatusOr<std::string> Folder::Read(const std::string& path, uint64_t max_bytes) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> parts, Parts(path));
  if (parts.empty()) return absl::FailedPreconditionError(absl::StrCat(path, ": is the folder"));
  ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder(parts, 1, /*make=*/false));
  // Without waiting for the other end of a pipe that somebody named.
  const UniqueFd file(
      ::openat(folder.get(), parts.back().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
  if (!file.valid()) return Failure(path);
  return ReadAll(file.get(), path, max_bytes);
}

absl::StatusOr<std::string> Folder::ReadText(const std::string& path, uint64_t max_bytes) const {
  ASSIGN_OR_RETURN(std::string content, Read(path, max_bytes));
  if (IsValidUtf8(content)) return content;
  return absl::FailedPreconditionError(absl::StrCat(path, ": is no text in UTF-8"));
}

absl::Status Folder::Write(const std::string& path, std::string_view content) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> parts, Parts(path));
  if (parts.empty()) return absl::FailedPreconditionError(absl::StrCat(path, ": is the folder"));
  ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder(parts, 1, /*make=*/true));
  const std::string& name = parts.back();
  const std::string temporary = absl::StrCat(".", name.substr(0, 200), ".", RandomHex(4));
  UniqueFd file(::openat(folder.get(), temporary.c_str(),
                         O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!file.valid()) return ErrnoError("cannot write", path);
  absl::Status written = WriteAll(file.get(), content, path);
  file.Reset();
  // In place of whatever had the name, a link included.
  if (written.ok() &&
      ::renameat(folder.get(), temporary.c_str(), folder.get(), name.c_str()) != 0) {
    written = ErrnoError("cannot write", path);
  }
  if (!written.ok()) (void)::unlinkat(folder.get(), temporary.c_str(), 0);
  return written;
}

absl::Status Folder::ListInto(int fd, const std::string& prefix, int depth, size_t max_entries,
                              std::vector<Entry>& entries) const {
  const int own = ::openat(fd, ".", kFolderFlags);
  const std::unique_ptr<DIR, int (*)(DIR*)> dir(own < 0 ? nullptr : ::fdopendir(own), ::closedir);
  if (dir == nullptr) return ErrnoError("cannot list", prefix);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir.get())) {
    if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) {
    struct stat info;
    if (entries.size() >= max_entries) break;
    if (!IsValidUtf8(name) || ::fstatat(fd, name.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      continue;
    }
    const std::string path = prefix.empty() ? name : absl::StrCat(prefix, "/", name);
    entries.push_back({path, S_ISDIR(info.st_mode), static_cast<uint64_t>(info.st_size)});
    if (!S_ISDIR(info.st_mode) || depth >= kDeepest) continue;
    const UniqueFd inner(::openat(fd, name.c_str(), kFolderFlags));
    if (inner.valid()) {
      RETURN_IF_ERROR(ListInto(inner.get(), path, depth + 1, max_entries, entries));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<Folder::Entry>> Folder::List(const std::string& path,
                                                        size_t max_entries) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> parts, Parts(path));
  ASSIGN_OR_RETURN(const UniqueFd folder, OpenFolder(parts, 0, /*make=*/false));
  std::vector<Entry> entries;
  RETURN_IF_ERROR(ListInto(folder.get(), absl::StrJoin(parts, "/"), 0, max_entries, entries));
  return entries;
}

}  // namespace flowmesh::agent
