#include "clients/cpp/orchestrator_client.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/clock.h"
#include "common/url.h"

namespace flowmesh::client {
namespace {

constexpr absl::Duration kPollPause = absl::Milliseconds(100);
constexpr absl::Duration kAwayLimit = absl::Seconds(30);

absl::Status FromHttp(int status, const std::string& body) {
  std::string detail = body.substr(0, 500);
  if (const absl::StatusOr<Json> json = ParseJson(body);
      json.ok() && json->is_object() && json->contains("detail")) {
    detail = JsonToText((*json)["detail"]);
  }
  switch (status) {
    case 401:
      return absl::UnauthenticatedError(
          absl::StrCat(detail, " (set ORCHESTRATOR_TOKEN to the orchestrator's token)"));
    case 403:
      return absl::PermissionDeniedError(
          absl::StrCat(detail, " (ORCHESTRATOR_TOKEN is not the orchestrator's token)"));
    case 404:
      return absl::NotFoundError(detail);
    case 502:
    case 503:
    case 504:
      return absl::UnavailableError(detail);
    default:
      if (status >= 400 && status < 500) return absl::InvalidArgumentError(detail);
      return absl::InternalError(absl::StrCat("HTTP status ", status, ": ", detail));
  }
}

}  // namespace

bool IsOver(const Json& record) {
  const std::string status = record.value("status", "");
  return status == "DONE" || status == "FAILED";
}

OrchestratorClient::OrchestratorClient(std::string url, std::string token)
    : url_(absl::StripSuffix(url, "/")), token_(std::move(token)) {}

absl::StatusOr<Json> OrchestratorClient::Request(const std::string& method, const std::string& path,
                                                 const std::string& body) {
  HttpRequest request;
  request.method = method;
  request.url = absl::StrCat(url_, path);
  request.body = body;
  request.max_response_bytes = uint64_t{1} << 32;
  if (method == "POST") request.headers.emplace_back("Content-Type", "application/yaml");
  if (!token_.empty())
    request.headers.emplace_back("Authorization", absl::StrCat("Bearer ", token_));
  const absl::StatusOr<HttpResponse> response = http_.Send(request);
  if (absl::IsInvalidArgument(response.status())) return response.status();
  if (!response.ok()) {
    return absl::UnavailableError(absl::StrCat("no orchestrator answers at ", WithoutUserInfo(url_),
                                               " (", response.status().message(), ")"));
  }
  if (response->status >= 300) return FromHttp(response->status, response->body);
  return ParseJson(response->body);
}

absl::StatusOr<Json> OrchestratorClient::Submit(const std::string& yaml) {
  ASSIGN_OR_RETURN(Json answer, Request("POST", "/api/v1/tasks", yaml));
  if (!answer.is_object() || !answer["tasks"].is_array()) {
    return absl::InternalError(
        absl::StrCat(WithoutUserInfo(url_), " does not answer as an orchestrator"));
  }
  return std::move(answer["tasks"]);
}

absl::StatusOr<Json> OrchestratorClient::Tasks() { return Request("GET", "/api/v1/tasks"); }

absl::StatusOr<Json> OrchestratorClient::Task(const std::string& id) {
  absl::StatusOr<Json> task = Request("GET", absl::StrCat("/api/v1/tasks/", id));
  if (!absl::IsNotFound(task.status())) return task;
  return absl::NotFoundError(absl::StrCat("no task ", id, " is known at ", WithoutUserInfo(url_)));
}

absl::StatusOr<Json> OrchestratorClient::Result(const std::string& id) {
  return Request("GET", absl::StrCat("/api/v1/results/", id));
}

absl::StatusOr<Json> OrchestratorClient::Workers() { return Request("GET", "/workers"); }

absl::StatusOr<std::vector<Json>> OrchestratorClient::Wait(
    const std::vector<std::string>& ids, const std::function<void(const Json& record)>& on_change,
    const std::function<bool()>& cancelled) {
  const Clock& clock = Clock::Real();
  std::vector<Json> records(ids.size());
  std::optional<absl::Duration> heard;
  while (true) {
    size_t over = 0;
    for (size_t i = 0; i < ids.size(); ++i) {
      if (cancelled && cancelled()) return absl::CancelledError("no longer waiting");
      if (!records[i].is_null() && IsOver(records[i])) {
        ++over;
        continue;
      }
      absl::StatusOr<Json> record = Task(ids[i]);
      const bool may_come_back = heard && clock.Monotonic() - *heard < kAwayLimit;
      if (absl::IsUnavailable(record.status()) && may_come_back) break;
      if (!record.ok()) return record.status();
      heard = clock.Monotonic();
      const auto shown = [](const Json& r) -> Json {
        if (!r.is_object()) return Json();
        return Json{r.value("status", Json()), r.value("assigned_worker", Json()),
                    r.value("attempts", Json()), r.value("waiting_for", Json()).is_null()};
      };
      const bool changed = shown(records[i]) != shown(*record);
      records[i] = *std::move(record);
      if (changed && on_change) on_change(records[i]);
      over += IsOver(records[i]) ? 1 : 0;
    }
    if (over == ids.size()) return records;
    absl::SleepFor(kPollPause);
  }
}

}  // namespace flowmesh::client
