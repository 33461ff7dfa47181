#include "sidecar/delivery/deliverer.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/http.h"
#include "common/log.h"
#include "common/redact.h"
#include "common/strings.h"
#include "common/task_folder.h"
#include "sidecar/delivery/model_archive.h"
#include "sidecar/delivery/sender.h"
#include "sidecar/delivery/throttle.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

constexpr absl::Duration kResultTimeout = absl::Seconds(15);
constexpr absl::Duration kUploadTimeout = absl::Seconds(30);

// `<url>/<task_id>/files`, to which a file's name is appended.
std::string FilesUrl(const DeliveryUnit& unit) {
  std::string base = unit.output.url;
  while (!base.empty() && base.back() == '/') base.pop_back();
  return absl::StrCat(base, "/", unit.task_id, "/files");
}

// Results are read by many: a password stays out of them.
std::string LinkTo(const DeliveryUnit& unit, const std::string& name) {
  return absl::StrCat(WithoutUserInfo(FilesUrl(unit)), "/", name);
}

// A time-out as people write it: whole seconds without a fraction.
Json SecondsOf(absl::Duration duration) {
  const int64_t whole = absl::ToInt64Seconds(duration);
  return absl::Seconds(whole) == duration ? Json(whole) : Json(absl::ToDoubleSeconds(duration));
}

absl::Status InUnit(const absl::Status& status, const DeliveryUnit& unit) {
  return unit.label.empty() ? status : Annotate(status, unit.label);
}

std::vector<const DeliveryUnit*> UnitsOf(const DeliveryJob& job) {
  std::vector<const DeliveryUnit*> units = {&job.task};
  for (const DeliveryUnit& child : job.children) units.push_back(&child);
  return units;
}

// The result of the task itself, or of a child; null when the executor returned none for it.
Json* ResultOf(DeliveryJob& job, const DeliveryUnit& unit) {
  if (&unit == &job.task) return &job.result;
  const auto children = job.result.find("children");
  if (children == job.result.end() || !children->is_object()) return nullptr;
  const auto child = children->find(unit.task_id);
  return child == children->end() || !child->is_object() ? nullptr : &*child;
}

}  // namespace

class Deliverer::Impl {
 public:
  Impl(DelivererOptions options, const Clock& clock)
      : options_(std::move(options)), clock_(clock), throttle_(options_.bandwidth) {}

  absl::Status Deliver(DeliveryJob& job, const std::function<bool()>& is_cancelled);
  absl::Status WriteFailure(const DeliveryJob& job, const Json& record);

 private:
  using Units = std::set<const DeliveryUnit*>;

  // Adds to `incomplete` the owner of an archive that could not be made or uploaded.
  absl::Status Upload(DeliveryJob& job, const v1::OutputFile& file, Sender& sender,
                      const std::function<bool()>& is_cancelled, Units& incomplete);
  absl::Status UploadExport(const DeliveryUnit& unit, const std::filesystem::path& path,
                            Json& result, Sender& sender);
  absl::Status UploadArchive(const DeliveryUnit& unit, const ModelArchive& model, Json& result,
                             Sender& sender, const std::function<bool()>& is_cancelled);
  // The link under which the file can be fetched.
  absl::StatusOr<std::string> SendFile(const DeliveryUnit& unit, const std::filesystem::path& path,
                                       const std::string& content_type, Sender& sender);
  // MODEL_CLEANUP_AFTER_UPLOAD; trouble with it is only logged.
  void CleanUp(DeliveryJob& job, const DeliveryUnit& unit);
  // `result` may be null: then only the manifest.
  absl::Status WriteFiles(const DeliveryUnit& unit, const Json* result);
  absl::Status Post(const DeliveryJob& job, const DeliveryUnit& unit, const Json& result,
                    Sender& sender);
  // The request to a unit's destination, without a body.
  HttpRequest RequestTo(const DeliveryUnit& unit, const std::string& url) const;

  const DelivererOptions options_;
  const Clock& clock_;
  Throttle throttle_;
};

HttpRequest Deliverer::Impl::RequestTo(const DeliveryUnit& unit, const std::string& url) const {
  HttpRequest request;
  request.url = url;
  request.headers = unit.output.headers;
  if (!options_.orchestrator_token.empty() && !request.HasHeader("authorization") &&
      !options_.orchestrator_base_url.empty() &&
      UrlOrigin(url) == UrlOrigin(options_.orchestrator_base_url)) {
    request.headers.emplace_back("Authorization", "Bearer " + options_.orchestrator_token);
  }
  return request;
}

absl::StatusOr<std::string> Deliverer::Impl::SendFile(const DeliveryUnit& unit,
                                                      const fs::path& path,
                                                      const std::string& content_type,
                                                      Sender& sender) {
  std::error_code error;
  const uint64_t size = fs::file_size(path, error);
  if (error) {
    return absl::NotFoundError(absl::StrCat("cannot read ", path.string(), ": ", error.message()));
  }
  HttpRequest request = RequestTo(unit, FilesUrl(unit));
  request.method = "POST";
  // The part has a type of its own.
  std::erase_if(request.headers,
                [](const auto& header) { return ToLower(header.first) == "content-type"; });
  request.timeout = unit.output.timeout.value_or(kUploadTimeout);
  request.file_part = HttpRequest::FilePart{
      .path = path, .file_name = path.filename().string(), .content_type = content_type};
  RETURN_IF_ERROR(sender.Send(DeliveryAttempt::Kind::kUpload, std::move(request), size));
  return LinkTo(unit, path.filename());
}

absl::Status Deliverer::Impl::UploadExport(const DeliveryUnit& unit, const fs::path& path,
                                           Json& result, Sender& sender) {
  if (!unit.output.delivers()) return absl::OkStatus();
  if (!result.contains("jsonl_export") || !result["jsonl_export"].is_object()) {
    return absl::InternalError("the result has no jsonl_export for the file it names");
  }
  ASSIGN_OR_RETURN(const std::string link, SendFile(unit, path, "application/json", sender));
  const std::string name = path.filename();
  Json& block = result["jsonl_export"];
  block["path"] = link;
  block["worker_path"] = path.string();
  block["uploaded"] = true;
  block["artifact_name"] = name;
  block["host_path"] = absl::StrCat(kArtifactsDir, "/", name);
  block["download_url"] = link;
  block["url"] = link;
  block["download_timeoutSec"] = SecondsOf(unit.output.timeout.value_or(kUploadTimeout));
  return absl::OkStatus();
}

absl::Status Deliverer::Impl::UploadArchive(const DeliveryUnit& unit, const ModelArchive& model,
                                            Json& result, Sender& sender,
                                            const std::function<bool()>& is_cancelled) {
  if (!model.is_wanted()) return absl::OkStatus();
  const bool delivers = unit.output.delivers();
  if (delivers && model.RestoreUploaded(result, LinkTo(unit, model.name()))) {
    return absl::OkStatus();
  }
  ASSIGN_OR_RETURN(const ArchiveFile archive, model.Make(options_.archive, is_cancelled));
  model.SetMade(result, archive);
  if (!delivers) return absl::OkStatus();
  // The label that the reference gives it; receivers ignore it.
  ASSIGN_OR_RETURN(const std::string link, SendFile(unit, archive.path, "application/zip", sender));
  model.SetUploaded(result, archive, link);
  return absl::OkStatus();
}

absl::Status Deliverer::Impl::Upload(DeliveryJob& job, const v1::OutputFile& file, Sender& sender,
                                     const std::function<bool()>& is_cancelled, Units& incomplete) {
  const std::vector<const DeliveryUnit*> units = UnitsOf(job);
  const auto owner = std::find_if(units.begin(), units.end(), [&](const DeliveryUnit* unit) {
    return unit->task_id == file.task_id();
  });
  if (owner == units.end()) {
    return absl::InternalError(absl::StrCat("the executor left a file for task ", file.task_id(),
                                            ", which it did not run"));
  }
  const DeliveryUnit& unit = **owner;
  Json& result = *ResultOf(job, unit);
  switch (file.kind()) {
    case v1::OutputFile::JSONL_EXPORT:
      return InUnit(UploadExport(unit, file.path(), result, sender), unit);
    case v1::OutputFile::FINAL_MODEL:
    case v1::OutputFile::FINAL_LORA: {
      const ModelArchive model(file, unit);
      const absl::Status status = UploadArchive(unit, model, result, sender, is_cancelled);
      if (absl::IsCancelled(status)) return status;
      if (options_.on_archive && model.is_wanted()) options_.on_archive(status.ok());
      if (status.ok()) return status;
      // The model is there, only its archive is not: the task does not fail for that.
      LogWarning("task {}: {}: {}", unit.task_id, model.name(), Message(status));
      model.SetFailed(result, status);
      incomplete.insert(&unit);
      return absl::OkStatus();
    }
    default:
      return absl::InternalError(
          absl::StrCat("the executor left a file of an unknown kind: ", file.path()));
  }
}

void Deliverer::Impl::CleanUp(DeliveryJob& job, const DeliveryUnit& unit) {
  absl::Status status;
  for (const v1::OutputFile& file : job.outputs) {
    const bool is_model =
        file.kind() == v1::OutputFile::FINAL_MODEL || file.kind() == v1::OutputFile::FINAL_LORA;
    if (file.task_id() != unit.task_id || !is_model) continue;
    status.Update(ModelArchive(file, unit).CleanUp(*ResultOf(job, unit)));
  }
  std::error_code error;
  fs::remove_all(unit.dir / kCheckpointsDir, error);
  if (error) {
    status.Update(absl::InternalError(
        absl::StrCat("cannot remove ", kCheckpointsDir, ": ", error.message())));
  }
  status.Update(WriteFiles(unit, nullptr));
  if (!status.ok()) LogWarning("task {}: clean-up: {}", unit.task_id, Message(status));
}

absl::Status Deliverer::Impl::WriteFiles(const DeliveryUnit& unit, const Json* result) {
  std::optional<std::string> responses;
  if (result != nullptr) responses = DumpJson(*result, 2);
  return WriteResultFiles(unit.dir, unit.task_id, unit.output.artifacts, clock_, responses);
}

absl::Status Deliverer::Impl::Post(const DeliveryJob& job, const DeliveryUnit& unit,
                                   const Json& result, Sender& sender) {
  HttpRequest request = RequestTo(unit, unit.output.url);
  request.method = unit.output.method;
  request.timeout = unit.output.timeout.value_or(kResultTimeout);
  if (!request.HasHeader("content-type")) {
    request.headers.emplace_back("Content-Type", "application/json");
  }
  // Put together as text: the result may be large, and is copied once.
  request.body = absl::StrCat(R"({"task_id":)", DumpJson(unit.task_id), R"(,"result":)",
                              DumpJson(result), R"(,"worker_id":)", DumpJson(job.worker_id), "}");
  const uint64_t size = request.body.size();
  return InUnit(sender.Send(DeliveryAttempt::Kind::kResult, std::move(request), size), unit);
}

absl::Status Deliverer::Impl::Deliver(DeliveryJob& job, const std::function<bool()>& is_cancelled) {
  Sender sender(options_, clock_, throttle_, is_cancelled);
  absl::Status status;
  for (const DeliveryUnit& child : job.children) {
    if (ResultOf(job, child) == nullptr) {
      status.Update(InUnit(absl::InternalError("the executor returned no result for it"), child));
    }
  }
  // Uploads first: the result carries their links.
  Units incomplete;
  for (const v1::OutputFile& file : job.outputs) {
    if (status.ok()) status = Upload(job, file, sender, is_cancelled, incomplete);
  }
  // A failed delivery leaves the files in place.
  for (const DeliveryUnit* unit : UnitsOf(job)) {
    RETURN_IF_ERROR(InUnit(WriteFiles(*unit, ResultOf(job, *unit)), *unit));
  }
  RETURN_IF_ERROR(status);
  for (const DeliveryUnit* unit : UnitsOf(job)) {
    if (!unit->output.delivers()) continue;
    RETURN_IF_ERROR(Post(job, *unit, *ResultOf(job, *unit), sender));
  }
  for (const DeliveryUnit* unit : UnitsOf(job)) {
    if (options_.cleanup_after_upload && unit->output.delivers() && incomplete.count(unit) == 0) {
      CleanUp(job, *unit);
    }
  }
  return absl::OkStatus();
}

absl::Status Deliverer::Impl::WriteFailure(const DeliveryJob& job, const Json& record) {
  RETURN_IF_ERROR(WriteFiles(job.task, record.is_null() ? nullptr : &record));
  for (const DeliveryUnit& child : job.children) RETURN_IF_ERROR(WriteFiles(child, nullptr));
  return absl::OkStatus();
}

Deliverer::Deliverer(DelivererOptions options, const Clock& clock)
    : impl_(std::make_unique<Impl>(std::move(options), clock)) {}

Deliverer::~Deliverer() = default;

absl::Status Deliverer::Deliver(DeliveryJob& job, const std::function<bool()>& is_cancelled) {
  return impl_->Deliver(job, is_cancelled);
}

absl::Status Deliverer::WriteFailure(const DeliveryJob& job, const Json& record) {
  return impl_->WriteFailure(job, record);
}

bool OutputsAreKept(const DeliveryJob& job, const v1::TaskFinished& finished) {
  return std::all_of(finished.outputs().begin(), finished.outputs().end(), [&](const auto& file) {
    std::error_code error;
    if (fs::exists(file.path(), error)) return true;
    if (file.kind() == v1::OutputFile::JSONL_EXPORT) return false;
    const std::vector<const DeliveryUnit*> units = UnitsOf(job);
    return std::any_of(units.begin(), units.end(), [&](const DeliveryUnit* unit) {
      return unit->task_id == file.task_id() && ModelArchive(file, *unit).IsCleanedUp();
    });
  });
}

}  // namespace flowmesh::sidecar
