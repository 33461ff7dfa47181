// Names of what is on its way to its own name.
#pragma once

#include <filesystem>

namespace flowmesh {

// `.<name>.<8 hex digits>` beside `path`.
std::filesystem::path DotName(const std::filesystem::path& path);

// Removes files and folders of such names that a killed process left.
void RemoveDotNames(const std::filesystem::path& path);

}  // namespace flowmesh
