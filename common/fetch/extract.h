// Unpacking of archives that others made (PROTOCOL.md section 10, promise P18).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string_view>

#include "common/status.h"

namespace flowmesh {

enum class ArchiveFormat {
  kTar,  // bare, or under gzip, bzip2, xz, lzma, zstd, lz4 or compress
  kZip,
};

// How `file`, whose name is `name`, is to be unpacked as an `archive_format` of a spec says:
// `auto`, `none`, `tar`, `tar.gz`, `tgz`, `tar.bz2`, `tar.xz`, `zip`. Nothing: not at all. `auto`
// looks for a tar in the content, but for zip in the name only: PyTorch's files are zip containers.
// InvalidArgument for other words: `expected ..., got ...`.
absl::StatusOr<std::optional<ArchiveFormat>> ChooseArchiveFormat(std::string_view archive_format,
                                                                 const std::filesystem::path& file,
                                                                 std::string_view name);

struct ExtractLimits {
  uint64_t max_entries = 100'000;               // folders that no entry names count too
  uint64_t max_bytes = uint64_t{1} << 40;       // of all files, unpacked
  uint64_t min_free_bytes = uint64_t{1} << 30;  // that stay free on the disk
};

// Unpacks into the folder `into`, which appears whole or not at all, in place of an older one.
// Files get mode 0644 or 0755, folders 0755; owners, times and special bits are dropped.
//
// InvalidArgument, with the entry's name: no archive of that format, a damaged one, an absolute
// name or one with `..`, a name that occurs twice or lies below a file or link, a link that leads
// out, anything that is no file, folder or link. ResourceExhausted: a limit. Cancelled.
absl::Status Extract(const std::filesystem::path& archive, ArchiveFormat format,
                     const std::filesystem::path& into, const ExtractLimits& limits,
                     const std::function<bool()>& is_cancelled);

// What was meant by what was unpacked into `into`: `subdir` below it; else the single folder in it,
// dot names aside; else itself. InvalidArgument when `subdir` does not stay inside, NotFound when
// it is not there.
absl::StatusOr<std::filesystem::path> UnpackedRoot(const std::filesystem::path& into,
                                                   std::string_view subdir);

}  // namespace flowmesh
