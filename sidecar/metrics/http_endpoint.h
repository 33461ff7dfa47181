// /metrics, /healthz and /readyz over HTTP (METRICS_LISTEN).
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "common/endpoint.h"
#include "common/status.h"
#include "sidecar/metrics/health.h"

namespace flowmesh::sidecar {

struct HttpEndpointSources {
  std::function<std::string()> metrics;  // Prometheus' text form
  // `/readyz` answers with the tree, 503 unless it is ready. `/healthz` answers 200 as long as the
  // process can: that it lives is no question of what others do.
  std::function<HealthPart()> health;
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
