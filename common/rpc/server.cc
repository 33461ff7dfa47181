#include "common/rpc/server.h"

#include <grpc/grpc.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <chrono>
#include <optional>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace flowmesh {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr int kMaxMessageBytes = 256 << 20;
// Idle clients may not read the goodbye: longer than this nobody waits for them.
constexpr auto kShutdownTimeout = std::chrono::milliseconds(500);
// How soon a watching call notices that its caller has gone.
constexpr absl::Duration kLookAround = absl::Milliseconds(500);

// Our own, because gRPC's runs on the callback interface: its threads then poll the connections of
// this synchronous server too, and every call is handed over from one kind of thread to the other.
class HealthService final : public grpc::health::v1::Health::Service {
 public:
  explicit HealthService(std::string service_name) : service_name_(std::move(service_name)) {}

  grpc::Status Check(grpc::ServerContext*, const HealthCheckRequest* request,
                     HealthCheckResponse* response) override {
    if (!Knows(request->service())) {
      return {grpc::StatusCode::NOT_FOUND,
              absl::StrCat("service: expected \"\" or \"", service_name_, "\", got \"",
                           request->service(), "\"")};
    }
    absl::MutexLock lock(&mutex_);
    response->set_status(StatusLocked());
    return grpc::Status::OK;
  }

  grpc::Status Watch(grpc::ServerContext* context, const HealthCheckRequest* request,
                     grpc::ServerWriter<HealthCheckResponse>* writer) override {
    const bool known = Knows(request->service());
    std::optional<bool> told;
    while (!context->IsCancelled()) {
      HealthCheckResponse response;
      response.set_status(HealthCheckResponse::SERVICE_UNKNOWN);
      bool changed = false;
      {
        absl::MutexLock lock(&mutex_);
        if (ended_) break;
        changed = told != serving_;
        told = serving_;
        if (known) response.set_status(StatusLocked());
      }
      if (changed && !writer->Write(response)) break;
      absl::MutexLock lock(&mutex_);
      const auto news = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return ended_ || told != serving_;
      };
      Clock::Real().Await(mutex_, absl::Condition(&news), kLookAround);
    }
    return {grpc::StatusCode::CANCELLED, "the watch is over"};
  }

  void SetServing(bool serving) {
    absl::MutexLock lock(&mutex_);
    serving_ = serving;
  }
  void End() {
    absl::MutexLock lock(&mutex_);
    ended_ = true;
  }

 private:
  bool Knows(const std::string& service) const {
    return service.empty() || service == service_name_;
  }
  HealthCheckResponse::ServingStatus StatusLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return serving_ ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
  }

  const std::string service_name_;
  absl::Mutex mutex_;
  bool serving_ ABSL_GUARDED_BY(mutex_) = true;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
};

class RpcServerImpl final : public RpcServer {
 public:
  explicit RpcServerImpl(RpcServerOptions options)
      : options_(std::move(options)), health_(options_.service_name) {}
  ~RpcServerImpl() override { Shutdown(); }

  absl::Status Listen(grpc::Service& service) {
    absl::StatusOr<UniqueFd> lock = LockEndpoint(options_.listen);
    if (!lock.ok()) return Annotate(lock.status(), options_.variable);
    lock_ = *std::move(lock);
    // Never undone: the last grpc_shutdown may wait 10 s for what large messages left of
    // connections that are gone.
    grpc_init();
    grpc::EnableDefaultHealthCheckService(false);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ResourceQuota quota(options_.service_name);
    quota.SetMaxThreads(options_.max_threads);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.SetResourceQuota(quota)
        .AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0)
        .AddChannelArgument(GRPC_ARG_ENABLE_CHANNELZ, 0)
        .SetMaxReceiveMessageSize(kMaxMessageBytes)
        .SetMaxSendMessageSize(-1)
        .SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1)
        // Beyond two, gRPC would end and start a thread with almost every call.
        .SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 4)
        .AddListeningPort(options_.listen.Target(), grpc::InsecureServerCredentials(), &port)
        .RegisterService(&service)
        .RegisterService(&health_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(
          absl::StrCat(options_.variable, ": cannot listen on ", options_.listen.Target()));
    }
    Endpoint bound = options_.listen;
    if (!bound.is_unix()) bound.port = port;
    target_ = bound.Target();
    return absl::OkStatus();
  }

  const std::string& target() const override { return target_; }

  void SetServing(bool serving) override { health_.SetServing(serving); }

  void Shutdown() override {
    if (server_ == nullptr) return;
    health_.End();
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownTimeout);
    server_->Wait();
    server_.reset();
  }

 private:
  const RpcServerOptions options_;
  HealthService health_;
  UniqueFd lock_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<RpcServer>> RpcServer::Start(RpcServerOptions options,
                                                            grpc::Service& service) {
  auto server = std::make_unique<RpcServerImpl>(std::move(options));
  RETURN_IF_ERROR(server->Listen(service));
  return server;
}

}  // namespace flowmesh
