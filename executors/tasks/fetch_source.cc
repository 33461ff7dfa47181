#include "executors/tasks/fetch_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/fetch/downloader.h"
#include "common/fetch/extract.h"
#include "common/fetch/file_lock.h"
#include "common/files.h"
#include "common/redact.h"
#include "executors/hub/hub.h"
#include "executors/model/adapter.h"
#include "executors/model/checkpoint.h"
#include "executors/tasks/data_context.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;

constexpr char kUnpacked[] = "unpacked";

bool HoldsAdapter(const fs::path& folder) { return model::FindAdapterFolder(folder).ok(); }

// A model's folder, also one that cannot be loaded, which its own error explains then.
bool HoldsModel(const fs::path& folder) {
  std::error_code ignored;
  return !absl::IsNotFound(model::FindWeights(folder).status()) ||
         fs::exists(folder / "adapter_config.json", ignored);
}

// What was meant by what has been unpacked.
absl::StatusOr<fs::path> RootOf(const fs::path& unpacked, const std::string& field,
                                const LoadSource& source) {
  auto root = UnpackedRoot(unpacked, source.subdir.value);
  if (root.ok()) return root;
  return Annotate(root.status(), source.subdir.value.empty() ? field : source.subdir.field);
}

absl::StatusOr<fs::path> FindInTask(const std::string& task_id, const FetchOptions& options,
                                    const fs::path& results_dir) {
  const fs::path folder = results_dir / task_id;
  std::error_code ignored;
  for (const std::string& name : options.names) {
    if (fs::exists(folder / name, ignored)) return folder / name;
  }
  if (options.is_meant(folder)) return folder;
  return absl::NotFoundError(absl::StrCat(folder.string(), " holds nothing to load; looked for ",
                                          absl::StrJoin(options.names, ", "),
                                          " and in the folder itself"));
}

// What `file`, which `field` named, is meant as: itself, or what it holds when it is an archive.
absl::StatusOr<fs::path> Unpack(const fs::path& file, const std::string& field,
                                const LoadSource& source, const FetchOptions& options,
                                const TaskContext& context) {
  const auto format =
      ChooseArchiveFormat(source.archive_format.value, file, file.filename().string());
  if (!format.ok()) return Annotate(format.status(), source.archive_format.field);
  if (!format->has_value()) return file;
  const fs::path into = options.folder / kUnpacked;
  context.on_progress({.stage = "unpacking"});
  RETURN_IF_ERROR(MakeDirectories(options.folder));
  RETURN_IF_ERROR(
      Annotate(Extract(file, **format, into, ExtractLimits(), context.is_stopped), field));
  return RootOf(into, field, source);
}

// A path that exists.
absl::StatusOr<Fetched> FetchLocal(const fs::path& path, const std::string& field,
                                   const LoadSource& source, const FetchOptions& options,
                                   const TaskContext& context) {
  std::error_code ignored;
  Fetched fetched{.path = path, .stamp = StampOf(path)};
  if (fs::is_directory(path, ignored)) return fetched;
  const fs::path unpacked = options.folder / kUnpacked;
  if (options.may_reuse && fs::is_directory(unpacked, ignored)) {
    ASSIGN_OR_RETURN(fetched.path, RootOf(unpacked, field, source));
  } else {
    ASSIGN_OR_RETURN(fetched.path, Unpack(path, field, source, options, context));
  }
  return fetched;
}

std::string UrlOf(const LoadSource& source, const TaskContext& context) {
  if (!source.url.value.empty()) return source.url.value;
  std::string base = source.base_url.empty() ? context.orchestrator_base_url : source.base_url;
  while (base.ends_with('/')) base.pop_back();
  if (base.empty() || source.task_id.value.empty() || source.filename.empty()) return "";
  return absl::StrCat(base, "/api/v1/results/", source.task_id.value, "/files/", source.filename);
}

absl::StatusOr<DownloadedFile> Download(const std::string& url, const fs::path& to,
                                        const LoadSource& source, const TaskContext& context,
                                        const EnvLookup& env) {
  context.on_log(LogLevel::kInfo, absl::StrCat("downloading ", ShownUrl(url)));
  const data::DataContext data = DataContextOf(context, env);
  Downloader downloader({.token = data.orchestrator_token,
                         .token_urls = {data.orchestrator_base_url, data.destination_url},
                         .retry_limit = data.retry_limit,
                         .on_retry = data.warn},
                        Clock::Real());
  const std::string name = to.filename();
  data.on_download(name, 0, 0);
  return downloader.Download(
      {.url = url,
       .headers = source.headers,
       .to = to,
       .timeout = source.timeout,
       .no_link_local = true,
       .on_progress = [&](uint64_t done, uint64_t total) { data.on_download(name, done, total); }},
      context.is_stopped);
}

absl::StatusOr<Fetched> FetchUrl(const std::string& url, const std::string& field,
                                 const LoadSource& source, const FetchOptions& options,
                                 const TaskContext& context, const EnvLookup& env) {
  const std::string name =
      source.filename.empty() ? data::FileNameOf(url, "download") : source.filename;
  const fs::path file = options.folder / name, unpacked = options.folder / kUnpacked;
  // The ranks of a job fetch the same.
  ASSIGN_OR_RETURN(const FileLock lock,
                   FileLock::Take(options.folder / ".lock", context.is_stopped));
  Fetched fetched;
  std::error_code ignored;
  if (options.may_reuse && fs::is_directory(unpacked, ignored)) {
    ASSIGN_OR_RETURN(fetched.path, RootOf(unpacked, field, source));
    return fetched;
  }
  if (options.may_reuse && fs::exists(file, ignored)) return Fetched{.path = file};
  fs::remove_all(unpacked, ignored);  // of an earlier try
  const auto downloaded = Download(url, file, source, context, env);
  if (!downloaded.ok()) return Annotate(downloaded.status(), field);
  fetched.stamp = downloaded->sha256;
  ASSIGN_OR_RETURN(fetched.path, Unpack(file, field, source, options, context));
  if (fetched.path != file) fs::remove(file, ignored);  // it has served
  return fetched;
}

}  // namespace

FetchOptions CheckpointOptions(const TaskContext& context, bool adapter_first) {
  FetchOptions options{.names = {"final_model", "checkpoints/final_model", "final_model.bin",
                                 "final_model.safetensors", "final_model.pt"},
                       .is_meant = HoldsModel,
                       .folder = context.task_dir / "imported_checkpoint"};
  if (adapter_first) options.names.insert(options.names.begin(), "final_lora");
  return options;
}

FetchOptions AdapterOptions(const TaskContext& context, const AdapterSource& adapter) {
  return {.names = {"final_lora", "final_model"},
          .is_meant = HoldsAdapter,
          .folder = context.task_dir / "_lora_cache" / adapter.folder};
}

absl::StatusOr<Fetched> Fetch(const LoadSource& source, const FetchOptions& options,
                              const TaskContext& context, const EnvLookup& env) {
  std::vector<std::string> causes;
  if (!source.path.value.empty()) {
    const fs::path path = hub::ExpandHome(source.path.value, env);
    std::error_code ignored;
    if (fs::exists(path, ignored)) {
      return FetchLocal(path, source.path.field, source, options, context);
    }
    causes.push_back(absl::StrCat(source.path.field, ": there is no ", path.string()));
  }
  if (!source.task_id.value.empty()) {
    const auto found = FindInTask(source.task_id.value, options, context.results_dir);
    if (found.ok()) return FetchLocal(*found, source.task_id.field, source, options, context);
    causes.push_back(absl::StrCat(source.task_id.field, ": ", found.status().message()));
  }
  const std::string url = UrlOf(source, context);
  if (url.empty()) return absl::NotFoundError(absl::StrJoin(causes, "; "));
  const std::string& field = source.url.value.empty() ? source.field : source.url.field;
  auto fetched = FetchUrl(url, field, source, options, context, env);
  if (fetched.ok() || causes.empty() || absl::IsCancelled(fetched.status())) return fetched;
  causes.push_back(Message(fetched.status()));
  return absl::Status(fetched.status().code(), absl::StrJoin(causes, "; "));
}

std::string StampOf(const fs::path& path) {
  std::vector<std::string> files;
  std::error_code error, ignored;
  const auto add = [&](const fs::path& file) {
    struct stat info {};
    (void)::stat(file.c_str(), &info);
    // The kernel's clock may stand still between a file and the one that takes its place: that is
    // another inode.
    files.push_back(absl::StrCat(file.lexically_relative(path).string(), " ", info.st_size, " ",
                                 info.st_mtim.tv_sec, ".", info.st_mtim.tv_nsec, " ", info.st_ino));
  };
  if (fs::is_regular_file(path, ignored)) add(path);
  for (fs::recursive_directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    if (it->is_regular_file(ignored)) add(it->path());
  }
  std::sort(files.begin(), files.end());
  return absl::StrCat(path.string(), "\n", absl::StrJoin(files, "\n"));
}

}  // namespace flowmesh::tasks
