// Archives from anywhere (promise P18): whatever the bytes are, nothing appears outside the folder,
// and what appears in it is files, folders and links that stay inside. The first byte chooses
// between tar and zip.
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <string_view>

#include "common/fetch/extract.h"
#include "common/files.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;

constexpr ExtractLimits kLimits{.max_entries = 200, .max_bytes = 1 << 20, .min_free_bytes = 0};

void Check(bool holds) {
  if (!holds) std::abort();
}

// A link may lead nowhere, but not out.
bool StaysInside(const fs::path& link, const fs::path& root) {
  std::error_code error;
  const fs::path target = fs::weakly_canonical(link, error);
  if (error)
    return error == std::errc::too_many_symbolic_link_levels ||
           error == std::errc::filename_too_long || error == std::errc::not_a_directory;
  const fs::path below = target.lexically_relative(root);
  return !below.empty() && *below.begin() != "..";
}

void CheckTree(const fs::path& root) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(root)) {
    const fs::file_status status = entry.symlink_status();
    if (fs::is_symlink(status)) {
      Check(StaysInside(entry.path(), root));
      continue;
    }
    Check(fs::is_regular_file(status) || fs::is_directory(status));
    Check((status.permissions() &
           (fs::perms::set_uid | fs::perms::set_gid | fs::perms::sticky_bit)) == fs::perms::none);
  }
}

}  // namespace
}  // namespace flowmesh

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace flowmesh;
  if (size == 0) return 0;
  static const TempDir* const temp = new TempDir();
  const fs::path archive = *temp / "archive", inner = *temp / "inner", into = inner / "into";
  fs::remove_all(inner);
  fs::create_directory(inner);
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  Check(WriteFileAtomically(archive, bytes).ok());
  const ArchiveFormat format = data[0] % 2 == 0 ? ArchiveFormat::kTar : ArchiveFormat::kZip;
  const bool unpacked = Extract(archive, format, into, kLimits, nullptr).ok();
  Check(fs::exists(into) == unpacked);
  Check(std::distance(fs::directory_iterator(inner), fs::directory_iterator()) ==
        (unpacked ? 1 : 0));
  Check(std::distance(fs::directory_iterator(temp->path()), fs::directory_iterator()) == 2);
  if (unpacked) CheckTree(fs::canonical(into));
  return 0;
}
