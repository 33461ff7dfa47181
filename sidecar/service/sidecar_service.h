// The local gRPC API over the workers: translates and delegates. Codes, deadlines and idempotency
// of each call stand in proto/flowmesh/v1/sidecar.proto.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/clock.h"
#include "flowmesh/v1/sidecar.grpc.pb.h"
#include "sidecar/worker/task_table.h"
#include "sidecar/worker/worker.h"

namespace flowmesh::sidecar {

struct ServiceParts {
  std::vector<Worker*> workers;  // at least one; they outlive the service
  TaskTable* tasks = nullptr;
  const Clock* clock = nullptr;
  std::function<std::string()> redis_state;  // `connected`, `disconnected`, `none`
  std::function<absl::Duration()> uptime;
  std::function<void()> start_drain;
  std::function<void()> flush_journal;  // waits until what was accepted is on disk
};

class SidecarService final : public v1::Sidecar::Service {
 public:
  explicit SidecarService(ServiceParts parts) : parts_(std::move(parts)) {}

  // Ends the streams in progress.
  void Stop() { stopping_ = true; }

  grpc::Status SubmitTask(grpc::ServerContext* context, const v1::SubmitTaskRequest* request,
                          v1::SubmitTaskResponse* response) override;
  grpc::Status WatchTask(grpc::ServerContext* context, const v1::WatchTaskRequest* request,
                         grpc::ServerWriter<v1::TaskUpdate>* writer) override;
  grpc::Status GetTask(grpc::ServerContext* context, const v1::GetTaskRequest* request,
                       v1::TaskRecord* response) override;
  grpc::Status ListTasks(grpc::ServerContext* context, const v1::ListTasksRequest* request,
                         v1::ListTasksResponse* response) override;
  grpc::Status CancelTask(grpc::ServerContext* context, const v1::CancelTaskRequest* request,
                          v1::CancelTaskResponse* response) override;
  grpc::Status GetWorker(grpc::ServerContext* context, const v1::GetWorkerRequest* request,
                         v1::GetWorkerResponse* response) override;
  grpc::Status Drain(grpc::ServerContext* context, const v1::DrainRequest* request,
                     v1::DrainResponse* response) override;

 private:
  // The worker of the executor that was asked for, or the least busy one that can run the type.
  absl::StatusOr<Worker*> Choose(const std::string& executor, const std::string& task_type) const;
  void FillResult(v1::TaskRecord& record) const;

  const ServiceParts parts_;
  std::atomic<bool> stopping_{false};
};

}  // namespace flowmesh::sidecar
