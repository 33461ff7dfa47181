#include "common/fetch/dot_name.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh {
namespace fs = std::filesystem;
namespace {

constexpr int kSuffixBytes = 4;

std::string Prefix(const fs::path& path) {
  return absl::StrCat(".", path.filename().string(), ".");
}

}  // namespace

fs::path DotName(const fs::path& path) {
  return path.parent_path() / absl::StrCat(Prefix(path), RandomHex(kSuffixBytes));
}

void RemoveDotNames(const fs::path& path) {
  const std::string prefix = Prefix(path);
  std::error_code ignored;
  std::vector<fs::path> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(path.parent_path(), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.rfind(prefix, 0) == 0 && name.size() == prefix.size() + 2 * kSuffixBytes &&
        name.find_first_not_of("0123456789abcdef", prefix.size()) == std::string::npos) {
      found.push_back(entry.path());
    }
  }
  for (const fs::path& old : found) fs::remove_all(old, ignored);
}

}  // namespace flowmesh
