// An orchestrator's REST API (PROTOCOL.md 12.1) as plain calls.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/http.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::client {

// Not thread-safe: one per thread. Errors: Unavailable (nobody answers), Unauthenticated (401),
// PermissionDenied (403), NotFound, InvalidArgument (other 4xx; the text is the server's),
// Internal.
class OrchestratorClient {
 public:
  // `url` such as `http://127.0.0.1:8000`; `token` may be empty.
  OrchestratorClient(std::string url, std::string token);

  // Hands in a YAML document; the answer's `tasks`, one entry per stage or node.
  absl::StatusOr<Json> Submit(const std::string& yaml);
  absl::StatusOr<Json> Tasks();
  absl::StatusOr<Json> Task(const std::string& id);
  // The stored document `{task_id, worker_id, metadata, received_at, result}`.
  absl::StatusOr<Json> Result(const std::string& id);
  absl::StatusOr<Json> Workers();

  // Polls until every task is DONE or FAILED; `on_change` gets each record that changed its status
  // or worker, the first time included. Returns the last records in the order of `ids`. Cancelled
  // when `cancelled` says so. An orchestrator that answered and is away for less than 30 s is
  // waited for.
  absl::StatusOr<std::vector<Json>> Wait(const std::vector<std::string>& ids,
                                         const std::function<void(const Json& record)>& on_change,
                                         const std::function<bool()>& cancelled);

  const std::string& url() const { return url_; }

 private:
  absl::StatusOr<Json> Request(const std::string& method, const std::string& path,
                               const std::string& body = "");

  const std::string url_;
  const std::string token_;
  HttpClient http_;
};

// Whether a record's status is a last one.
bool IsOver(const Json& record);

}  // namespace flowmesh::client
