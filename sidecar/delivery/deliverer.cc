#include "sidecar/delivery/deliverer.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/strings.h"
#include "sidecar/delivery/manifest.h"
#include "sidecar/delivery/sender.h"
#include "sidecar/delivery/task_dir.h"
#include "sidecar/delivery/throttle.h"

namespace flowmesh::sidecar {
namespace fs = std::filesystem;
namespace {

constexpr absl::Duration kResultTimeout = absl::Seconds(15);
constexpr absl::Duration kUploadTimeout = absl::Seconds(30);

bool HasHeader(const HttpRequest& request, const std::string& name) {
  return std::any_of(request.headers.begin(), request.headers.end(),
                     [&](const auto& header) { return ToLower(header.first) == name; });
}

// `<url>/<task_id>/files`, to which a file's name is appended.
std::string FilesUrl(const DeliveryUnit& unit) {
  std::string base = unit.output.url;
  while (!base.empty() && base.back() == '/') base.pop_back();
  return absl::StrCat(base, "/", unit.task_id, "/files");
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
  absl::Status Upload(DeliveryJob& job, const v1::OutputFile& file, Sender& sender);
  absl::Status WriteFiles(const DeliveryUnit& unit, const Json& result);
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
  if (!options_.orchestrator_token.empty() && !HasHeader(request, "authorization") &&
      !options_.orchestrator_base_url.empty() &&
      UrlOrigin(url) == UrlOrigin(options_.orchestrator_base_url)) {
    request.headers.emplace_back("Authorization", "Bearer " + options_.orchestrator_token);
  }
  return request;
}

absl::Status Deliverer::Impl::Upload(DeliveryJob& job, const v1::OutputFile& file, Sender& sender) {
  if (file.kind() != v1::OutputFile::JSONL_EXPORT) {
    return absl::UnimplementedError(
        absl::StrCat("archives cannot be delivered by this version: ", file.path()));
  }
  const std::vector<const DeliveryUnit*> units = UnitsOf(job);
  const auto owner = std::find_if(units.begin(), units.end(), [&](const DeliveryUnit* unit) {
    return unit->task_id == file.task_id();
  });
  if (owner == units.end()) {
    return absl::InternalError(absl::StrCat("the executor left a file for task ", file.task_id(),
                                            ", which it did not run"));
  }
  const DeliveryUnit& unit = **owner;
  if (!unit.output.delivers()) return absl::OkStatus();
  Json* result = ResultOf(job, unit);
  if (result == nullptr || !result->contains("jsonl_export") ||
      !(*result)["jsonl_export"].is_object()) {
    return InUnit(absl::InternalError("the result has no jsonl_export for the file it names"),
                  unit);
  }
  std::error_code error;
  const uint64_t size = fs::file_size(file.path(), error);
  if (error) {
    return InUnit(
        absl::NotFoundError(absl::StrCat("cannot read ", file.path(), ": ", error.message())),
        unit);
  }
  const std::string name = fs::path(file.path()).filename().string();
  HttpRequest request = RequestTo(unit, FilesUrl(unit));
  request.method = "POST";
  // The part has a type of its own.
  std::erase_if(request.headers,
                [](const auto& header) { return ToLower(header.first) == "content-type"; });
  request.timeout = unit.output.timeout.value_or(kUploadTimeout);
  request.file_part = HttpRequest::FilePart{
      .path = file.path(), .file_name = name, .content_type = "application/json"};
  const absl::Duration timeout = request.timeout;
  RETURN_IF_ERROR(
      InUnit(sender.Send(DeliveryAttempt::Kind::kUpload, std::move(request), size), unit));

  // Results are read by many: a password stays out of them.
  const std::string link = absl::StrCat(WithoutUserInfo(FilesUrl(unit)), "/", name);
  Json& block = (*result)["jsonl_export"];
  block["path"] = link;
  block["worker_path"] = file.path();
  block["uploaded"] = true;
  block["artifact_name"] = name;
  block["host_path"] = absl::StrCat(kArtifactsDir, "/", name);
  block["download_url"] = link;
  block["url"] = link;
  block["download_timeoutSec"] = SecondsOf(timeout);
  return absl::OkStatus();
}

absl::Status Deliverer::Impl::WriteFiles(const DeliveryUnit& unit, const Json& result) {
  return WriteResultFiles(unit.dir, unit.task_id, unit.output.artifacts, clock_,
                          DumpJson(result, 2));
}

absl::Status Deliverer::Impl::Post(const DeliveryJob& job, const DeliveryUnit& unit,
                                   const Json& result, Sender& sender) {
  HttpRequest request = RequestTo(unit, unit.output.url);
  request.method = unit.output.method;
  request.timeout = unit.output.timeout.value_or(kResultTimeout);
  if (!HasHeader(request, "content-type")) {
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
  for (const DeliveryUnit& child : job.children) {
    if (ResultOf(job, child) == nullptr) {
      return InUnit(absl::InternalError("the executor returned no result for it"), child);
    }
  }
  // Uploads first: the result carries their links.
  absl::Status uploaded;
  for (const v1::OutputFile& file : job.outputs) {
    uploaded = Upload(job, file, sender);
    if (!uploaded.ok()) break;
  }
  // A failed delivery leaves the files in place.
  for (const DeliveryUnit* unit : UnitsOf(job)) {
    RETURN_IF_ERROR(InUnit(WriteFiles(*unit, *ResultOf(job, *unit)), *unit));
  }
  RETURN_IF_ERROR(uploaded);
  for (const DeliveryUnit* unit : UnitsOf(job)) {
    if (!unit->output.delivers()) continue;
    RETURN_IF_ERROR(Post(job, *unit, *ResultOf(job, *unit), sender));
  }
  return absl::OkStatus();
}

absl::Status Deliverer::Impl::WriteFailure(const DeliveryJob& job, const Json& record) {
  std::optional<std::string> responses;
  if (!record.is_null()) responses = DumpJson(record, 2);
  RETURN_IF_ERROR(WriteResultFiles(job.task.dir, job.task.task_id, job.task.output.artifacts,
                                   clock_, responses));
  for (const DeliveryUnit& child : job.children) {
    RETURN_IF_ERROR(WriteResultFiles(child.dir, child.task_id, child.output.artifacts, clock_));
  }
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

}  // namespace flowmesh::sidecar
