// For tests: a sidecar's gRPC API whose tasks go where the test says.
#pragma once

#include <grpcpp/grpcpp.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/files.h"
#include "flowmesh/v1/sidecar.grpc.pb.h"

namespace flowmesh::client {

// Serves on a unix socket in a folder of its own. Every submitted task runs at once through a
// progress event, or through those of its spec (`progress: [<TaskProgress>, ...]`, made two seconds
// one after the other), to an end that its spec chooses: `fail: text` fails, `hang: true` runs
// until it is cancelled, all else succeeds with {"ok": true, "echo": <spec>}, or with `result`
// where given.
class FakeSidecar : public v1::Sidecar::Service {
 public:
  // Listens there; empty: at a socket of its own.
  explicit FakeSidecar(std::string target = "");
  ~FakeSidecar() override;

  const std::string& target() const { return target_; }
  // Breaks the next watch after its first message, as a dying connection does.
  void BreakNextWatch();
  // Sequence numbers that watches began at.
  std::vector<uint64_t> WatchStarts();
  std::vector<std::string> Documents();
  void SetUptime(double seconds);

  grpc::Status SubmitTask(grpc::ServerContext*, const v1::SubmitTaskRequest*,
                          v1::SubmitTaskResponse*) override;
  grpc::Status WatchTask(grpc::ServerContext*, const v1::WatchTaskRequest*,
                         grpc::ServerWriter<v1::TaskUpdate>*) override;
  grpc::Status GetTask(grpc::ServerContext*, const v1::GetTaskRequest*, v1::TaskRecord*) override;
  grpc::Status ListTasks(grpc::ServerContext*, const v1::ListTasksRequest*,
                         v1::ListTasksResponse*) override;
  grpc::Status CancelTask(grpc::ServerContext*, const v1::CancelTaskRequest*,
                          v1::CancelTaskResponse*) override;
  grpc::Status GetWorker(grpc::ServerContext*, const v1::GetWorkerRequest*,
                         v1::GetWorkerResponse*) override;
  grpc::Status Drain(grpc::ServerContext*, const v1::DrainRequest*, v1::DrainResponse*) override;

 private:
  TempDir dir_;
  std::string target_;
  absl::Mutex mutex_;
  bool break_next_ ABSL_GUARDED_BY(mutex_) = false;
  double uptime_ ABSL_GUARDED_BY(mutex_) = 3;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<uint64_t> watch_starts_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> documents_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, v1::TaskRecord> tasks_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::vector<v1::TaskEvent>> events_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::string> order_ ABSL_GUARDED_BY(mutex_);
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace flowmesh::client
