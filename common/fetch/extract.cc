#include "common/fetch/extract.h"

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <locale.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/fetch/gzip_source.h"
#include "common/fetch/inner_path.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh {
namespace fs = std::filesystem;
namespace {

constexpr size_t kReadSize = 256 << 10;
constexpr size_t kMaxDepth = 100;
constexpr uint64_t kLookAtDisk = 64 << 20;  // bytes between two looks at the free space

// libarchive turns names into the locale's encoding, and gives up on those it cannot. This thread
// alone speaks UTF-8.
class Utf8Locale {
 public:
  Utf8Locale() : locale_(::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr)) {
    if (locale_ != nullptr) previous_ = ::uselocale(locale_);
  }
  ~Utf8Locale() {
    if (locale_ == nullptr) return;
    ::uselocale(previous_);
    ::freelocale(locale_);
  }
  Utf8Locale(const Utf8Locale&) = delete;

 private:
  locale_t locale_, previous_ = nullptr;
};

using Reader = std::unique_ptr<struct archive, int (*)(struct archive*)>;

// Only what this process decodes by itself: libarchive would start programs for other filters. gzip
// comes by way of GzipSource.
Reader NewReader(ArchiveFormat format) {
  Reader reader(archive_read_new(), archive_read_free);
  if (format == ArchiveFormat::kZip) {
    archive_read_support_format_zip(reader.get());
    return reader;
  }
  archive_read_support_format_tar(reader.get());
  archive_read_support_filter_bzip2(reader.get());
  archive_read_support_filter_xz(reader.get());
  archive_read_support_filter_lzma(reader.get());
  archive_read_support_filter_zstd(reader.get());
  archive_read_support_filter_lz4(reader.get());
  archive_read_support_filter_compress(reader.get());
  return reader;
}

// The archive's file, which `source` decodes where it is gzip.
class Input {
 public:
  // Nothing was read yet. ARCHIVE_OK, or libarchive's code with the text in `reader`.
  absl::StatusOr<int> Open(const fs::path& path, ArchiveFormat format, const Reader& reader) {
    // By hand for the system's reason: libarchive's text has none.
    if (::access(path.c_str(), R_OK) != 0) return ErrnoError("cannot open", path);
    if (format == ArchiveFormat::kZip || !GzipSource::IsGzip(path)) {
      return archive_read_open_filename(reader.get(), path.c_str(), kReadSize);
    }
    ASSIGN_OR_RETURN(source_, GzipSource::Open(path));
    return archive_read_open(reader.get(), this, nullptr, OnRead, nullptr);
  }

  // What made a read fail, where that is not in the reader.
  const absl::Status& status() const { return status_; }

  // What follows the archive's end, in pieces: its checksum comes after it.
  absl::StatusOr<size_t> ReadRest() {
    if (source_ == nullptr) return 0;
    ASSIGN_OR_RETURN(const std::string_view bytes, source_->Read());
    return bytes.size();
  }

 private:
  static la_ssize_t OnRead(struct archive* archive, void* self, const void** buffer) {
    auto& input = *static_cast<Input*>(self);
    const absl::StatusOr<std::string_view> bytes = input.source_->Read();
    if (!bytes.ok()) {
      input.status_ = bytes.status();
      archive_set_error(archive, EIO, "the input failed");
      return -1;
    }
    *buffer = bytes->data();
    return static_cast<la_ssize_t>(bytes->size());
  }

  std::unique_ptr<GzipSource> source_;
  absl::Status status_;
};

// One archive on its way into a folder.
class Extraction {
 public:
  Extraction(const fs::path& archive, ArchiveFormat format, const fs::path& root,
             const ExtractLimits& limits, const std::function<bool()>& is_cancelled)
      : archive_(archive),
        format_(format),
        root_(root),
        limits_(limits),
        is_cancelled_(is_cancelled),
        reader_(NewReader(format)),
        buffer_(kReadSize) {}

  absl::Status Run() {
    ASSIGN_OR_RETURN(const int opened, input_.Open(archive_, format_, reader_));
    if (opened != ARCHIVE_OK) return Damaged();
    root_fd_ = UniqueFd(::open(root_.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!root_fd_.valid()) return ErrnoError("cannot open", root_);
    RETURN_IF_ERROR(CheckDisk());
    while (true) {
      struct archive_entry* entry = nullptr;
      const int code = archive_read_next_header(reader_.get(), &entry);
      if (code == ARCHIVE_EOF) return CheckRest();
      if (code < ARCHIVE_WARN) return Damaged();
      if (is_cancelled_ && is_cancelled_()) return absl::CancelledError("cancelled");
      RETURN_IF_ERROR(Add(entry));
    }
  }

 private:
  absl::Status CheckRest() {
    while (true) {
      if (is_cancelled_ && is_cancelled_()) return absl::CancelledError("cancelled");
      ASSIGN_OR_RETURN(const size_t size, input_.ReadRest());
      if (size == 0) return absl::OkStatus();
      RETURN_IF_ERROR(CountBytes(size));
    }
  }

  absl::Status Damaged() const {
    if (!input_.status().ok()) return input_.status();
    const char* text = archive_error_string(reader_.get());
    return absl::InvalidArgumentError(absl::StrCat(
        archive_.string(), ": expected a ", format_ == ArchiveFormat::kZip ? "zip" : "tar",
        " archive that is whole, got: ", text ? text : "?"));
  }

  // `name` comes from whoever made the archive.
  absl::Status Refused(std::string_view name, std::string_view what) const {
    const std::string shown(name.substr(0, 200));
    return absl::InvalidArgumentError(
        absl::StrCat(archive_.string(), ": entry \"",
                     IsValidUtf8(shown) ? shown : std::string("(no text)"), "\": ", ToAbsl(what)));
  }

  absl::Status CountEntry() {
    if (++entries_ > limits_.max_entries) {
      return absl::ResourceExhaustedError(
          absl::StrCat(archive_.string(), ": more than ", limits_.max_entries, " entries"));
    }
    return absl::OkStatus();
  }

  absl::Status CountBytes(uint64_t bytes) {
    if (bytes > limits_.max_bytes - bytes_) {
      return absl::ResourceExhaustedError(
          absl::StrCat(archive_.string(), ": more than ", limits_.max_bytes, " bytes unpacked"));
    }
    bytes_ += bytes;
    return bytes_ - bytes_at_look_ < kLookAtDisk ? absl::OkStatus() : CheckDisk();
  }

  absl::Status CheckDisk() {
    bytes_at_look_ = bytes_;
    struct statvfs disk;
    if (::fstatvfs(root_fd_.get(), &disk) != 0) return ErrnoError("cannot look at disk of", root_);
    if (static_cast<uint64_t>(disk.f_bavail) * disk.f_frsize >= limits_.min_free_bytes) {
      return absl::OkStatus();
    }
    return absl::ResourceExhaustedError(absl::StrCat("cannot unpack ", archive_.string(),
                                                     ": less than ", limits_.min_free_bytes,
                                                     " bytes are free on the disk"));
  }

  absl::Status Add(struct archive_entry* entry) {
    RETURN_IF_ERROR(CountEntry());
    const char* raw_name = archive_entry_pathname(entry);
    if (raw_name == nullptr) return Refused("", "expected a name, got none that can be read");
    const std::string name = raw_name;
    const auto parts = InnerPath(name);
    if (!parts) return Refused(name, "expected a relative name without \"..\"");
    if (parts->size() > kMaxDepth) return Refused(name, "expected at most 100 folders");
    const auto type = archive_entry_filetype(entry);
    const char* hard_link = archive_entry_hardlink(entry);
    if (parts->empty()) {
      if (type == AE_IFDIR && hard_link == nullptr) return absl::OkStatus();
      return Refused(name, "expected a name");
    }
    ASSIGN_OR_RETURN(const UniqueFd parent, OpenParent(name, *parts, /*make=*/true));
    if (hard_link != nullptr) return AddHardLink(name, parent, parts->back(), hard_link);
    switch (type) {
      case AE_IFREG:
        return AddFile(name, parent, parts->back(), entry);
      case AE_IFDIR:
        return AddDirectory(name, parent, parts->back());
      case AE_IFLNK:
        return AddLink(name, parent, *parts, entry);
      default:
        return Refused(name, "expected a file, a folder or a link, got a device, pipe or socket");
    }
  }

  // The folder that the last of `parts` lies in, never by way of a link.
  absl::StatusOr<UniqueFd> OpenParent(const std::string& name,
                                      const std::vector<std::string>& parts, bool make) {
    UniqueFd dir(::openat(root_fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    for (size_t i = 0; i + 1 < parts.size() && dir.valid(); ++i) {
      const char* part = parts[i].c_str();
      constexpr int kFlags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
      UniqueFd next(::openat(dir.get(), part, kFlags));
      if (!next.valid() && errno == ENOENT && make) {
        RETURN_IF_ERROR(CountEntry());
        if (::mkdirat(dir.get(), part, 0755) != 0) return ErrnoError("cannot create", root_ / name);
        next = UniqueFd(::openat(dir.get(), part, kFlags));
      }
      if (!next.valid() && (errno == ENOTDIR || errno == ELOOP)) {
        return Refused(name, "expected folders above it, got a file or link");
      }
      dir = std::move(next);
    }
    if (!dir.valid()) return ErrnoError("cannot open", (root_ / name).parent_path());
    return dir;
  }

  absl::Status CannotCreate(const std::string& name) const {
    if (errno == EEXIST) return Refused(name, "expected each name once");
    return ErrnoError("cannot create", root_ / name);
  }

  absl::Status AddDirectory(const std::string& name, const UniqueFd& parent,
                            const std::string& last) {
    if (::mkdirat(parent.get(), last.c_str(), 0755) == 0) return absl::OkStatus();
    const int error = errno;
    struct stat found;
    if (error == EEXIST &&
        ::fstatat(parent.get(), last.c_str(), &found, AT_SYMLINK_NOFOLLOW) == 0 &&
        S_ISDIR(found.st_mode)) {
      return absl::OkStatus();  // its content came first
    }
    errno = error;
    return CannotCreate(name);
  }

  absl::Status AddLink(const std::string& name, const UniqueFd& parent,
                       const std::vector<std::string>& parts, struct archive_entry* entry) {
    const char* raw_target = archive_entry_symlink(entry);
    const std::string target = raw_target == nullptr ? "" : raw_target;
    if (!IsInnerLink(target, static_cast<int>(parts.size()) - 1)) {
      return Refused(name, "expected a link that stays inside the archive");
    }
    if (::symlinkat(target.c_str(), parent.get(), parts.back().c_str()) == 0) {
      return absl::OkStatus();
    }
    return CannotCreate(name);
  }

  absl::Status AddHardLink(const std::string& name, const UniqueFd& parent, const std::string& last,
                           const std::string& target) {
    constexpr char kExpected[] = "expected a link to a file that came before it in the archive";
    const auto parts = InnerPath(target);
    if (!parts || parts->empty() || parts->size() > kMaxDepth) return Refused(name, kExpected);
    const absl::StatusOr<UniqueFd> dir = OpenParent(name, *parts, /*make=*/false);
    struct stat found;
    if (!dir.ok() ||
        ::fstatat(dir->get(), parts->back().c_str(), &found, AT_SYMLINK_NOFOLLOW) != 0 ||
        !S_ISREG(found.st_mode)) {
      return Refused(name, kExpected);
    }
    if (::linkat(dir->get(), parts->back().c_str(), parent.get(), last.c_str(), 0) != 0) {
      return CannotCreate(name);
    }
    return absl::OkStatus();
  }

  absl::Status AddFile(const std::string& name, const UniqueFd& parent, const std::string& last,
                       struct archive_entry* entry) {
    // What its header claims is refused before a byte is written.
    const auto claimed = static_cast<uint64_t>(
        archive_entry_size_is_set(entry) ? std::max<int64_t>(0, archive_entry_size(entry)) : 0);
    if (claimed > limits_.max_bytes - bytes_) return CountBytes(claimed);
    const mode_t mode = (archive_entry_perm(entry) & 0100) != 0 ? 0755 : 0644;
    const UniqueFd file(::openat(parent.get(), last.c_str(),
                                 O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode));
    if (!file.valid()) return CannotCreate(name);
    while (true) {
      if (is_cancelled_ && is_cancelled_()) return absl::CancelledError("cancelled");
      const la_ssize_t size = archive_read_data(reader_.get(), buffer_.data(), buffer_.size());
      if (size < 0) return Damaged();
      if (size == 0) return absl::OkStatus();
      RETURN_IF_ERROR(CountBytes(static_cast<uint64_t>(size)));
      RETURN_IF_ERROR(WriteAll(file.get(), {buffer_.data(), static_cast<size_t>(size)}, name));
    }
  }

  absl::Status WriteAll(int fd, std::string_view bytes, const std::string& name) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoError("cannot write", root_ / name);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  const Utf8Locale locale_;
  const fs::path& archive_;
  const ArchiveFormat format_;
  const fs::path& root_;
  const ExtractLimits& limits_;
  const std::function<bool()>& is_cancelled_;
  Input input_;  // outlives the reader
  const Reader reader_;
  std::vector<char> buffer_;
  UniqueFd root_fd_;
  uint64_t entries_ = 0, bytes_ = 0, bytes_at_look_ = 0;
};

bool HoldsTar(const fs::path& file) {
  const Utf8Locale locale;
  Input input;
  const Reader reader = NewReader(ArchiveFormat::kTar);
  const absl::StatusOr<int> opened = input.Open(file, ArchiveFormat::kTar, reader);
  struct archive_entry* entry = nullptr;
  return opened.ok() && *opened == ARCHIVE_OK &&
         archive_read_next_header(reader.get(), &entry) >= ARCHIVE_WARN && entry != nullptr;
}

}  // namespace

absl::StatusOr<std::optional<ArchiveFormat>> ChooseArchiveFormat(std::string_view archive_format,
                                                                 const fs::path& file,
                                                                 std::string_view name) {
  const std::string wanted = ToLower(Trim(archive_format));
  if (wanted == "none") return std::nullopt;
  if (wanted == "zip") return ArchiveFormat::kZip;
  for (const char* tar : {"tar", "tar.gz", "tgz", "tar.bz2", "tar.xz"}) {
    if (wanted == tar) return ArchiveFormat::kTar;
  }
  if (wanted != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("expected auto, none, tar, tar.gz, tgz, tar.bz2, tar.xz or zip, got \"",
                     ToAbsl(archive_format), "\""));
  }
  if (HoldsTar(file)) return ArchiveFormat::kTar;
  constexpr std::string_view kZipName = ".zip";
  const std::string lower = ToLower(name);
  const bool is_zip = lower.size() > kZipName.size() &&
                      lower.compare(lower.size() - kZipName.size(), kZipName.size(), kZipName) == 0;
  return is_zip ? std::optional(ArchiveFormat::kZip) : std::nullopt;
}

absl::Status Extract(const fs::path& archive, ArchiveFormat format, const fs::path& into,
                     const ExtractLimits& limits, const std::function<bool()>& is_cancelled) {
  RemoveDotNames(into);
  const fs::path temporary = DotName(into);
  if (::mkdir(temporary.c_str(), 0755) != 0) return ErrnoError("cannot create folder", temporary);
  absl::Status status = Extraction(archive, format, temporary, limits, is_cancelled).Run();
  std::error_code error;
  if (status.ok()) {
    fs::remove_all(into, error);
    if (::rename(temporary.c_str(), into.c_str()) == 0) return absl::OkStatus();
    status = ErrnoError("cannot rename to", into);
  }
  fs::remove_all(temporary, error);
  return status;
}

absl::StatusOr<fs::path> UnpackedRoot(const fs::path& into, std::string_view subdir) {
  std::error_code error;
  if (!subdir.empty()) {
    const auto parts = InnerPath(subdir);
    if (!parts) {
      return absl::InvalidArgumentError(
          absl::StrCat("expected a folder inside the archive, got \"", ToAbsl(subdir), "\""));
    }
    fs::path root = into;
    for (const std::string& part : *parts) root /= part;
    if (fs::exists(root, error)) return root;
    return absl::NotFoundError(absl::StrCat("the archive has no \"", ToAbsl(subdir), "\""));
  }
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(into, error)) {
    if (entry.path().filename().string().front() != '.') found.push_back(entry.path());
  }
  if (error) {
    errno = error.value();
    return ErrnoError("cannot read folder", into);
  }
  const bool single =
      found.size() == 1 && !fs::is_symlink(found[0], error) && fs::is_directory(found[0], error);
  return single ? found[0] : into;
}

}  // namespace flowmesh
