// Which files of a folder or hub repository make up which split (TASKS.md 2.6). Pure functions of
// file names and the README.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/status.h"

namespace flowmesh::data {

struct SplitFiles {
  std::string name;
  std::vector<std::string> files;  // in name order
};

struct Configuration {
  std::string name;
  bool is_default = false;
  std::vector<SplitFiles> splits;
};

// The configurations that the front matter of `readme` lists; else the one, called `default`, that
// names of folders and files make; else none. `names`: paths relative to the root.
// InvalidArgument: the front matter is damaged.
absl::StatusOr<std::vector<Configuration>> FindConfigurations(const std::vector<std::string>& names,
                                                              std::string_view readme);

// The branch that the hub converts data sets into: `<config>/<split>/*.parquet`.
std::vector<Configuration> ConvertedConfigurations(const std::vector<std::string>& names);

// All data files as the split `train` of the configuration `default`; none when there are none.
std::vector<Configuration> AllFilesAsTrain(const std::vector<std::string>& names);

// Whether `name` matches a pattern of `data_files`: `*` and `?` within a part, `**` across parts.
bool MatchesPattern(std::string_view pattern, std::string_view name);

}  // namespace flowmesh::data
