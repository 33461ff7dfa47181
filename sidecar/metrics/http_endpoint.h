// /metrics, /healthz and /readyz over HTTP (METRICS_LISTEN).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/endpoint.h"
#include "common/status.h"

namespace flowmesh::sidecar {

struct HttpEndpointSources {
  std::function<std::string()> metrics;  // Prometheus' text form
  // Not OK: `/readyz` answers 503 with this text. `/healthz` answers 200 while the process can.
  std::function<absl::Status()> ready;
};

// Serves from its own threads until destroyed. The sources are called from them.
class HttpEndpoint {
 public:
  // Unavailable: the address cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Start(const Endpoint& endpoint,
                                                             HttpEndpointSources sources);
  virtual ~HttpEndpoint() = default;
  virtual int port() const = 0;
};

}  // namespace flowmesh::sidecar
