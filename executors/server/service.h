// gRPC over ExecutorCore: translates and delegates, nothing else. Codes, deadlines and idempotency
// of each call stand in proto/flowmesh/v1/executor.proto.
#pragma once

#include <functional>
#include <string>

#include "executors/server/executor_core.h"
#include "flowmesh/v1/executor.grpc.pb.h"

namespace flowmesh::executor {

class ExecutorService final : public v1::Executor::Service {
 public:
  // `description` is what Describe answers, but for the running task. `telemetry` samples the
  // devices. `core` must outlive this.
  ExecutorService(ExecutorCore& core, v1::ExecutorDescription description,
                  std::function<v1::Telemetry()> telemetry);

  grpc::Status Describe(grpc::ServerContext* context, const v1::DescribeRequest* request,
                        v1::ExecutorDescription* response) override;
  grpc::Status Execute(grpc::ServerContext* context, const v1::ExecuteRequest* request,
                       grpc::ServerWriter<v1::TaskEvent>* writer) override;
  grpc::Status Attach(grpc::ServerContext* context, const v1::AttachRequest* request,
                      grpc::ServerWriter<v1::TaskEvent>* writer) override;
  grpc::Status Cancel(grpc::ServerContext* context, const v1::CancelRequest* request,
                      v1::CancelResponse* response) override;
  grpc::Status GetTelemetry(grpc::ServerContext* context, const v1::GetTelemetryRequest* request,
                            v1::Telemetry* response) override;

 private:
  // Writes the events from `from` on until the last one, or until the caller has gone.
  static grpc::Status Stream(grpc::ServerContext* context, const EventLog& log, uint64_t from,
                             grpc::ServerWriter<v1::TaskEvent>* writer);

  ExecutorCore& core_;
  const v1::ExecutorDescription description_;
  const std::function<v1::Telemetry()> telemetry_;
};

}  // namespace flowmesh::executor
