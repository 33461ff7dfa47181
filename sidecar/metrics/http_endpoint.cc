#include "sidecar/metrics/http_endpoint.h"

#include <httplib.h>

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/json.h"

namespace flowmesh::sidecar {
namespace {

constexpr size_t kThreads = 2;
constexpr time_t kSocketSeconds = 5;

class HttplibEndpoint final : public HttpEndpoint {
 public:
  explicit HttplibEndpoint(HttpEndpointSources sources) : sources_(std::move(sources)) {
    server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
    server_.set_socket_options([](socket_t socket) {
      // Its own would share the port with another process that listens there.
      const int on = 1;
      ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    });
    server_.set_keep_alive_timeout(1);  // an idle connection holds a thread
    server_.set_read_timeout(kSocketSeconds);
    server_.set_write_timeout(kSocketSeconds);
    server_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(sources_.metrics(), "text/plain; version=0.0.4; charset=utf-8");
    });
    server_.Get("/healthz", [](const httplib::Request&, httplib::Response& response) {
      response.set_content("{\"ok\":true}\n", "application/json");
    });
    server_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
      const HealthPart health = sources_.health();
      if (!health.ready()) response.status = 503;
      response.set_content(DumpJson(health.ToJson()) + "\n", "application/json");
    });
  }

  ~HttplibEndpoint() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
  }

  absl::Status Listen(const Endpoint& endpoint) {
    if (endpoint.port == 0) {
      port_ = server_.bind_to_any_port(endpoint.host);
    } else if (server_.bind_to_port(endpoint.host, endpoint.port)) {
      port_ = endpoint.port;
    }
    if (port_ < 0) {
      return absl::UnavailableError(
          absl::StrCat("METRICS_LISTEN: cannot listen on ", endpoint.Target()));
    }
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    // stop() has no effect on a server that does not run yet.
    while (!server_.is_running()) std::this_thread::yield();
    return absl::OkStatus();
  }

  int port() const override { return port_; }

 private:
  const HttpEndpointSources sources_;
  httplib::Server server_;
  std::thread thread_;
  int port_ = -1;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Start(const Endpoint& endpoint,
                                                                  HttpEndpointSources sources) {
  auto server = std::make_unique<HttplibEndpoint>(std::move(sources));
  RETURN_IF_ERROR(server->Listen(endpoint));
  return server;
}

}  // namespace flowmesh::sidecar
