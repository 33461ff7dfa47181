// Data sets by name: a file, a folder, a URL or a repository of the hub (TASKS.md 2.6, 2.7).
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/env.h"
#include "common/field.h"
#include "common/status.h"
#include "executors/data/split.h"
#include "executors/data/table.h"

namespace flowmesh::data {

// What loading may use of its task and machine. The callbacks may be null; they are called from the
// loading thread.
struct DataContext {
  std::filesystem::path task_dir;     // downloads go to inputs/ below it
  std::string orchestrator_base_url;  // TASKS.md 2.9: who gets the token
  std::string orchestrator_token;     // secret
  std::string destination_url;        // of the task's output
  EnvLookup env = SystemEnv();        // HF_*
  std::function<void(const std::string&)> warn;
  // How much of a file has come; `total` 0: unknown.
  std::function<void(const std::string& file, uint64_t done, uint64_t total)> on_download;
  std::function<bool()> is_cancelled;
  absl::Duration retry_limit = absl::Seconds(300);  // of a download that brings nothing new
  // A file that is in inputs/ already was downloaded for this run, by the job's first rank: it is
  // taken as it is.
  bool may_reuse = false;
};

using Headers = std::vector<std::pair<std::string, std::string>>;

// A data set as a spec names it.
struct DataSet {
  std::string path;           // the field that names it, for errors
  std::string split_path;     // that of its split
  std::string config_path;    // that of its configuration
  std::string name;           // a path, URL or hub id
  std::string configuration;  // empty: none is named
  std::string revision = "main";
  std::vector<SplitPart> split;
  // A configuration that does not exist may have been meant as a split (TASKS.md 2.8, dpo).
  bool configuration_may_be_split = false;
  Headers headers;  // for a URL; values are secret
  absl::Duration timeout = absl::Seconds(60);
};

// Reads `name` (the field that names the set), `configuration`, and from `data` the rest.
absl::StatusOr<DataSet> ReadDataSet(const Field& data, const Field& name,
                                    const Field& configuration);

// A block of HTTP headers: a map of names to texts. Errors show no value.
absl::StatusOr<Headers> ReadHeaders(const Field& field);
// Seconds above 0, 60 when absent.
absl::StatusOr<absl::Duration> ReadTimeout(const Field& field);

// The rows that its split takes. InvalidArgument and NotFound name the field and what there is
// instead. Cancelled. Others: the network, the disk.
absl::StatusOr<Table> LoadDataSet(const DataSet& data_set, const DataContext& context);

// The last part of a URL's path, when it can be a file's name.
std::string FileNameOf(const std::string& url, const std::string& fallback);

// Downloads `url` into `<task dir>/inputs/` and returns the file, which FileNameOf names.
// `token_without_origin`: TASKS.md 2.9's rule for JSONL.
absl::StatusOr<std::filesystem::path> DownloadInput(const std::string& url, const Headers& headers,
                                                    absl::Duration timeout,
                                                    const std::string& fallback_name,
                                                    bool token_without_origin,
                                                    const DataContext& context);

}  // namespace flowmesh::data
