// Which names and links of an archive stay inside the folder that it is made of or unpacked to.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace flowmesh {

// The components of an entry's name, without empty ones and `.`; none for the folder itself.
// Nothing when the name is absolute, has `..` among its components, or holds a zero byte.
std::optional<std::vector<std::string>> InnerPath(std::string_view name);

// Whether a symbolic link to `target` that lies `depth` real folders below the root stays inside:
// relative, with `..` only at its beginning and at most `depth` times. (A `..` further on would
// lead to the parent of whatever the link before it points to.) With this rule alone for all links
// under the root, none of them leaves it, also through others.
bool IsInnerLink(std::string_view target, int depth);

}  // namespace flowmesh
