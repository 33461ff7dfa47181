// A client for the search of a Qdrant server over REST (TASKS.md 3.8).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::retrieval {

struct QdrantOptions {
  std::string url;         // http(s), with or without a path
  std::string collection;  // any text
  std::string api_key;     // secret; empty: none is sent
  std::string ca_cert;     // HttpRequest::ca_file of https; empty: the system's authorities alone
  std::string using_name;  // named vector of the collection; empty: its only one
  int64_t limit = 5;       // points at most
  absl::Duration timeout = absl::Seconds(30);      // of one request
  absl::Duration retry_limit = absl::Seconds(20);  // of a request's tries, pauses included
  std::function<bool()> is_cancelled;              // may be null
};

// What is searched for: a vector, or a text that the server embeds with its model of that name.
struct QdrantQuery {
  std::vector<float> vector;
  std::string text, model;  // when `vector` is empty
};

// One connection, kept between queries. Not thread-safe.
class QdrantClient {
 public:
  explicit QdrantClient(QdrantOptions options, const Clock& clock = Clock::Real());

  // The nearest points, best first: a list of {id, score, payload}; payload is null when the point
  // has none. A server that has no `points/query` is asked by `points/search`. What may pass (no
  // connection, 408, 429, 5xx) is tried again.
  //
  // Errors say URL, scheme, host, collection, whether a key was set, and the server's answer, but
  // never the key. InvalidArgument: a vector of another size than the collection's (both are
  // named), or what else the server finds wrong with the request. PermissionDenied: the key, or an
  // address that IsLinkLocal. NotFound: the collection. Unavailable, DeadlineExceeded: the last
  // try's reason. Cancelled.
  absl::StatusOr<Json> Search(const QdrantQuery& query);

 private:
  HttpRequest MakeRequest(const std::string& method, const std::string& path, Json body) const;
  absl::StatusOr<HttpResponse> Send(const HttpRequest& request);
  // Why the server refused: with both sizes where that is it.
  absl::Status Refused(const QdrantQuery& query, const HttpRequest& request,
                       const HttpResponse& response);
  int64_t CollectionSize();  // of its vectors; 0: unknown
  std::string Where() const;

  const QdrantOptions options_;
  const Clock& clock_;
  const std::string base_;  // of the collection's paths
  HttpClient http_;
  bool is_old_ = false;  // there is no points/query
};

}  // namespace flowmesh::retrieval
