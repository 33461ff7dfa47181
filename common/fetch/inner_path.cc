#include "common/fetch/inner_path.h"

#include <algorithm>

#include "absl/strings/str_split.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

std::vector<std::string> Components(std::string_view path) {
  std::vector<std::string> parts = absl::StrSplit(ToAbsl(path), '/');
  std::erase_if(parts, [](const std::string& part) { return part.empty() || part == "."; });
  return parts;
}

bool IsRelative(std::string_view path) {
  return !path.empty() && path.front() != '/' && path.find('\0') == std::string_view::npos;
}

}  // namespace

std::optional<std::vector<std::string>> InnerPath(std::string_view name) {
  if (!IsRelative(name)) return std::nullopt;
  std::vector<std::string> parts = Components(name);
  if (std::find(parts.begin(), parts.end(), "..") != parts.end()) return std::nullopt;
  return parts;
}

bool IsInnerLink(std::string_view target, int depth) {
  if (!IsRelative(target)) return false;
  const std::vector<std::string> parts = Components(target);
  const auto down = std::find_if(parts.begin(), parts.end(),
                                 [](const std::string& part) { return part != ".."; });
  return down - parts.begin() <= depth && std::find(down, parts.end(), "..") == parts.end();
}

}  // namespace flowmesh
