// The REST API of PROTOCOL.md 12.1 over cpp-httplib, in front of an Orchestrator.
#pragma once

#include <httplib.h>

#include <string>
#include <thread>

#include "clients/orchestrator/orchestrator.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

// Serves from its own threads between Start and Stop; the orchestrator must outlive it.
class HttpApi {
 public:
  explicit HttpApi(Orchestrator& orchestrator);
  ~HttpApi();

  // Binds the configured address and serves. Unavailable when it is taken.
  absl::Status Start();
  void Stop();

  // `http://127.0.0.1:8000`, with the port that was chosen. After Start.
  const std::string& url() const { return url_; }

 private:
  using Request = httplib::Request;
  using Response = httplib::Response;

  void AddRoutes();
  // Handles what has to be settled before a route runs: redirects, size, token. True when answered.
  bool BeforeRouting(const Request& request, Response& response);
  // Whether the token is right; answers 401 or 403 otherwise.
  bool Authorised(const Request& request, Response& response) const;

  void PostTask(const Request& request, Response& response, const httplib::ContentReader& reader);
  void PostResult(const Request& request, Response& response);
  void PostFile(const Request& request, Response& response, const httplib::ContentReader& reader);
  void GetFile(const Request& request, Response& response);
  void PostElastic(const Request& request, Response& response);

  Orchestrator& orchestrator_;
  httplib::Server server_;
  std::string url_;
  std::thread thread_;
};

}  // namespace flowmesh::orchestrator
