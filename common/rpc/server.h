// A gRPC server as both the sidecar and the executor want it: one address that nobody else serves,
// health (grpc.health.v1) and reflection beside its service, a quick end.
#pragma once

#include <grpcpp/grpcpp.h>

#include <memory>
#include <string>

#include "common/endpoint.h"
#include "common/status.h"

namespace flowmesh {

struct RpcServerOptions {
  std::string variable;  // of the environment, for errors: `SIDECAR_LISTEN`
  Endpoint listen;
  std::string service_name;  // full, as health is asked about it: `flowmesh.v1.Sidecar`
  int max_threads = 64;      // one per call in progress; more calls are refused
};

// Thread-safe, but for Shutdown.
class RpcServer {
 public:
  // Serves `service`, which must outlive the server. Errors name the variable.
  static absl::StatusOr<std::unique_ptr<RpcServer>> Start(RpcServerOptions options,
                                                          grpc::Service& service);
  virtual ~RpcServer() = default;  // shuts down

  // `host:port` with the real port, or `unix:/path`.
  virtual const std::string& target() const = 0;

  // What health answers; SERVING from the start.
  virtual void SetServing(bool serving) = 0;

  // Ends the calls in progress: they have half a second. Blocks; idempotent.
  virtual void Shutdown() = 0;
};

}  // namespace flowmesh
