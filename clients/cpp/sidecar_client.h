// A worker pod's local API as plain calls (proto/flowmesh/v1/sidecar.proto), over gRPC:
//
//   SidecarClient sidecar("unix:/run/flowmesh/sidecar.sock");
//   ASSIGN_OR_RETURN(auto accepted, sidecar.Submit(document));
//   ASSIGN_OR_RETURN(auto record, sidecar.Watch(accepted.task_id(), [](const v1::TaskUpdate& u)
//   {...}));
#pragma once

#include <functional>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/json.h"
#include "common/status.h"
#include "flowmesh/v1/sidecar.grpc.pb.h"

namespace flowmesh::client {

// Thread-safe. Errors carry the codes that sidecar.proto names for each RPC; Unavailable means that
// no sidecar answers at the target, and names it.
class SidecarClient {
 public:
  explicit SidecarClient(std::string target);

  // Waits for a sidecar that is yet to come, at most `limit`; whether there is a connection. Calls
  // by themselves fail at once without one.
  bool WaitUntilConnected(absl::Duration limit);

  using OnUpdate = std::function<void(const v1::TaskUpdate& update)>;

  // `task_id` and `executor` may be empty: the sidecar then chooses.
  absl::StatusOr<v1::SubmitTaskResponse> Submit(const Json& document,
                                                const std::string& task_id = "",
                                                const std::string& executor = "");
  // Follows a task to its end and returns its last record, with the result document; `on_update`
  // runs on this thread. A stream that breaks is taken up again where it stopped, for 10 s at most;
  // one that never began is not.
  // Cancelled: StopWatching was called.
  absl::StatusOr<v1::TaskRecord> Watch(const std::string& task_id,
                                       const OnUpdate& on_update = nullptr);
  // Ends every Watch in progress and to come; the tasks go on. Any thread.
  void StopWatching();

  absl::StatusOr<v1::TaskRecord> Get(const std::string& task_id);
  // `state` unspecified: all; newest first.
  absl::StatusOr<v1::ListTasksResponse> List(uint32_t limit = 0,
                                             v1::TaskState state = v1::TASK_STATE_UNSPECIFIED);
  absl::StatusOr<v1::CancelTaskResponse> Cancel(const std::string& task_id);
  absl::StatusOr<v1::GetWorkerResponse> Worker(absl::Duration deadline = absl::Seconds(5));
  absl::StatusOr<v1::DrainResponse> Drain();
  // Returns when the sidecar that answers now has ended, and so has unregistered: nothing answers
  // at the target any more, or another life of it does. DeadlineExceeded: it was still there after
  // `limit`. Cancelled: `cancelled` said so.
  absl::Status WaitUntilGone(absl::Duration limit, const std::function<bool()>& cancelled);

  const std::string& target() const { return target_; }

 private:
  // One stream; `next_sequence` moves on with the events seen.
  absl::StatusOr<v1::TaskRecord> WatchOnce(const std::string& task_id, const OnUpdate& on_update,
                                           uint64_t& next_sequence);
  template <typename Response, typename Request, typename Method>
  absl::StatusOr<Response> Call(Method method, const Request& request, absl::Duration deadline);
  absl::Status FromGrpc(const grpc::Status& status) const;

  const std::string target_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Sidecar::Stub> stub_;
  absl::Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<grpc::ClientContext*> watches_ ABSL_GUARDED_BY(mutex_);
};

// Whether a task of this state is over.
inline bool IsTerminal(v1::TaskState state) {
  return state == v1::SUCCEEDED || state == v1::FAILED;
}

// The messages as JSON for machines: field names of the .proto, times as in PROTOCOL.md 2.2, states
// by name, and `result` as a document in place of `result_json`.
Json ToJson(const v1::TaskRecord& record);
Json ToJson(const v1::TaskUpdate& update);
Json ToJson(const v1::GetWorkerResponse& response);

}  // namespace flowmesh::client
