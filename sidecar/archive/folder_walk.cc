#include "sidecar/archive/folder_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>

#include "absl/strings/str_cat.h"
#include "common/fetch/inner_path.h"
#include "common/files.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

constexpr int kMaxDepth = 100;  // each level holds a descriptor

absl::StatusOr<std::vector<std::string>> SortedNames(const UniqueFd& dir, const fs::path& path) {
  // fdopendir() takes the descriptor over.
  const int copy = ::openat(dir.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const std::unique_ptr<DIR, int (*)(DIR*)> stream(copy < 0 ? nullptr : ::fdopendir(copy),
                                                   ::closedir);
  if (stream == nullptr) return ErrnoError("cannot read folder", path);
  std::vector<std::string> names;
  errno = 0;
  while (const dirent* entry = ::readdir(stream.get())) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
    errno = 0;
  }
  if (errno != 0) return ErrnoError("cannot read folder", path);
  std::sort(names.begin(), names.end());
  return names;
}

class Walk {
 public:
  Walk(fs::path parent, const std::function<absl::Status(const FolderEntry&)>& visit,
       std::vector<std::string>& skipped)
      : parent_(std::move(parent)), visit_(visit), skipped_(skipped) {}

  // Visits `dir`, named `name` in the archive, and what it holds.
  absl::Status Directory(const UniqueFd& dir, const std::string& name, int depth) {
    const fs::path path = parent_ / name;
    if (depth > kMaxDepth) {
      return absl::FailedPreconditionError(
          absl::StrCat(path.string(), ": more than ", kMaxDepth, " folders deep"));
    }
    FolderEntry entry{.kind = FolderEntry::Kind::kDirectory, .name = name};
    if (::fstat(dir.get(), &entry.status) != 0) return ErrnoError("cannot stat", path);
    RETURN_IF_ERROR(visit_(entry));
    ASSIGN_OR_RETURN(const std::vector<std::string> children, SortedNames(dir, path));
    for (const std::string& child : children) {
      RETURN_IF_ERROR(Child(dir, child, absl::StrCat(name, "/", child), depth + 1));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status Child(const UniqueFd& dir, const std::string& child, const std::string& name,
                     int depth) {
    const fs::path path = parent_ / name;
    FolderEntry entry{.name = name};
    if (::fstatat(dir.get(), child.c_str(), &entry.status, AT_SYMLINK_NOFOLLOW) != 0) {
      return ErrnoError("cannot stat", path);
    }
    if (S_ISLNK(entry.status.st_mode)) return Link(dir, child, std::move(entry), depth);
    const bool is_dir = S_ISDIR(entry.status.st_mode);
    if (!is_dir && !S_ISREG(entry.status.st_mode)) {
      skipped_.push_back(name);
      return absl::OkStatus();
    }
    // Not blocking: had it become a pipe meanwhile, opening would wait for a writer.
    const UniqueFd fd(
        ::openat(dir.get(), child.c_str(),
                 O_RDONLY | O_NOFOLLOW | O_CLOEXEC | (is_dir ? O_DIRECTORY : O_NONBLOCK)));
    if (!fd.valid()) return ErrnoError("cannot open", path);
    if (is_dir) return Directory(fd, name, depth);
    entry.kind = FolderEntry::Kind::kFile;
    entry.fd = fd.get();
    if (::fstat(fd.get(), &entry.status) != 0) return ErrnoError("cannot stat", path);
    if (!S_ISREG(entry.status.st_mode)) {
      return absl::FailedPreconditionError(
          absl::StrCat(path.string(), ": changed while it was archived"));
    }
    return visit_(entry);
  }

  absl::Status Link(const UniqueFd& dir, const std::string& child, FolderEntry entry, int depth) {
    std::array<char, PATH_MAX> target;
    const ssize_t size = ::readlinkat(dir.get(), child.c_str(), target.data(), target.size());
    if (size < 0) return ErrnoError("cannot read link", parent_ / entry.name);
    entry.kind = FolderEntry::Kind::kLink;
    entry.target.assign(target.data(), static_cast<size_t>(size));
    // Its folder is `depth` - 1 below the one that is archived.
    if (!IsInnerLink(entry.target, depth - 1)) {
      skipped_.push_back(entry.name);
      return absl::OkStatus();
    }
    return visit_(entry);
  }

  const fs::path parent_;
  const std::function<absl::Status(const FolderEntry&)>& visit_;
  std::vector<std::string>& skipped_;
};

}  // namespace

absl::Status WalkFolder(const fs::path& folder,
                        const std::function<absl::Status(const FolderEntry&)>& visit,
                        std::vector<std::string>& skipped) {
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd.valid()) {
    if (errno == ENOTDIR || errno == ELOOP) {
      return absl::FailedPreconditionError(
          absl::StrCat(folder.string(), ": expected a folder to archive"));
    }
    return ErrnoError("cannot open", folder);
  }
  return Walk(folder.parent_path(), visit, skipped).Directory(fd, folder.filename(), 0);
}

}  // namespace flowmesh::sidecar
