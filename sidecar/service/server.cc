#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/grpcpp.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>

#include <chrono>

#include "absl/strings/str_cat.h"
#include "sidecar/service/sidecar_service.h"

namespace flowmesh::sidecar {
namespace {

constexpr int kMaxThreads = 64;  // one per call in progress; more calls are refused
constexpr int kMaxMessageBytes = 256 << 20;
// Idle clients may not read the goodbye: longer than this nobody waits for them.
constexpr auto kShutdownTimeout = std::chrono::milliseconds(500);

class GrpcServer final : public SidecarServer {
 public:
  explicit GrpcServer(SidecarService& service) : service_(service) {}

  ~GrpcServer() override {
    service_.Stop();
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() + kShutdownTimeout);
    server_->Wait();
  }

  absl::Status Listen(const Endpoint& endpoint) {
    absl::StatusOr<UniqueFd> lock = LockEndpoint(endpoint);
    if (!lock.ok()) return Annotate(lock.status(), "SIDECAR_LISTEN");
    lock_ = *std::move(lock);
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    grpc::ResourceQuota quota("sidecar");
    quota.SetMaxThreads(kMaxThreads);
    grpc::ServerBuilder builder;
    int port = 0;
    builder.SetResourceQuota(quota)
        .AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0)
        .SetMaxReceiveMessageSize(kMaxMessageBytes)
        .SetMaxSendMessageSize(-1)
        .SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1)
        .AddListeningPort(endpoint.Target(), grpc::InsecureServerCredentials(), &port)
        .RegisterService(&service_);
    server_ = builder.BuildAndStart();
    if (server_ == nullptr || port == 0) {
      return absl::UnavailableError(
          absl::StrCat("SIDECAR_LISTEN: cannot listen on ", endpoint.Target()));
    }
    Endpoint bound = endpoint;
    if (!bound.is_unix()) bound.port = port;
    target_ = bound.Target();
    return absl::OkStatus();
  }

  std::string target() const override { return target_; }

 private:
  SidecarService& service_;
  UniqueFd lock_;
  std::unique_ptr<grpc::Server> server_;
  std::string target_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<SidecarServer>> SidecarServer::Start(const Endpoint& endpoint,
                                                                    SidecarService& service) {
  auto server = std::make_unique<GrpcServer>(service);
  RETURN_IF_ERROR(server->Listen(endpoint));
  return server;
}

}  // namespace flowmesh::sidecar
