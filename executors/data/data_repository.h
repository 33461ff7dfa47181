// Where the files of a data set lie that is more than one file: a folder, or a repository of the
// hub with its cache.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/data/data_files.h"
#include "executors/data/data_set.h"

namespace flowmesh::data {

// Not thread-safe.
class DataRepository {
 public:
  virtual ~DataRepository() = default;

  // At least one, with their files. NotFound: there is no data file. Others: the README's front
  // matter is damaged, the hub does not answer.
  virtual absl::StatusOr<std::vector<Configuration>> Configurations() = 0;
  // A local path of one of the files that Configurations() named.
  virtual absl::StatusOr<std::filesystem::path> Fetch(const std::string& name) = 0;
};

class FolderRepository : public DataRepository {
 public:
  explicit FolderRepository(std::filesystem::path folder) : folder_(std::move(folder)) {}

  absl::StatusOr<std::vector<Configuration>> Configurations() override;
  absl::StatusOr<std::filesystem::path> Fetch(const std::string& name) override;

 private:
  const std::filesystem::path folder_;
};

// `data_set.name` as a hub id; `local` is the path that was looked for before, for errors.
// InvalidArgument when it is no hub id. The context must outlive the repository.
absl::StatusOr<std::unique_ptr<DataRepository>> OpenHubRepository(
    const DataSet& data_set, const std::filesystem::path& local, const DataContext& context);

// Paths of the files below a folder, relative to it, in name order; links are followed.
std::vector<std::string> FilesBelow(const std::filesystem::path& folder);

// The path that a name means, `~` resolved.
std::filesystem::path LocalPath(const std::string& name, const DataContext& context);

}  // namespace flowmesh::data
