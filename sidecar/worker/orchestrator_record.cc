#include "sidecar/worker/orchestrator_record.h"

#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/http.h"
#include "common/log.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace {

constexpr char kResultsPath[] = "/api/v1/results", kTasksPath[] = "/api/v1/tasks";
constexpr absl::Duration kTimeout = absl::Seconds(5);

}  // namespace

std::string TasksUrl(const Json& document, const std::string& orchestrator_base_url) {
  if (!orchestrator_base_url.empty()) return absl::StrCat(orchestrator_base_url, kTasksPath);
  const Field root(&document, "");
  std::string url = root["spec"]["output"]["destination"]["url"].StringOr("").value_or("");
  while (!url.empty() && url.back() == '/') url.pop_back();
  if (!absl::EndsWith(url, kResultsPath) || UrlOrigin(url).empty()) return "";
  url.resize(url.size() - sizeof(kResultsPath) + 1);
  return absl::StrCat(url, kTasksPath);
}

absl::StatusOr<std::string> WhyNotWanted(const std::string& tasks_url, const std::string& task_id,
                                         const std::string& worker_id,
                                         const std::string& orchestrator_base_url,
                                         const std::string& orchestrator_token,
                                         std::function<bool()> is_cancelled) {
  if (tasks_url.empty()) return "";
  HttpRequest request{.url = absl::StrCat(tasks_url, "/", task_id)};
  request.timeout = request.total_timeout = kTimeout;
  request.cancelled = std::move(is_cancelled);
  if (!orchestrator_token.empty() && UrlOrigin(tasks_url) == UrlOrigin(orchestrator_base_url)) {
    request.headers.emplace_back("Authorization", "Bearer " + orchestrator_token);
  }
  ASSIGN_OR_RETURN(const HttpResponse response, HttpClient().Send(request));
  if (response.status != 200) {
    LogWarning(
        "task {}: the orchestrator does not say whether it is still wanted (status {}): it runs",
        task_id, response.status);
    return "";
  }
  const absl::StatusOr<Json> record = ParseJson(response.body);
  if (!record.ok() || !record->is_object()) return "";
  const Field root(&*record, "");
  const std::string status = root["status"].StringOr("").value_or("");
  if (status == "DONE" || status == "FAILED") {
    return absl::StrCat("the orchestrator's record says ", status);
  }
  const std::string assigned = root["assigned_worker"].StringOr("").value_or("");
  if (!assigned.empty() && assigned != worker_id) {
    return absl::StrCat("the orchestrator has given it to worker ", assigned);
  }
  return "";
}

}  // namespace flowmesh::sidecar
