#include "executors/retrieval/qdrant.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/address_guard.h"
#include "common/field.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/retry.h"
#include "common/strings.h"

namespace flowmesh::retrieval {
namespace {

std::string CollectionUrl(const QdrantOptions& options) {
  std::string url = options.url;
  while (absl::EndsWith(url, "/")) url.pop_back();
  return absl::StrCat(url, "/collections/", PercentEncoded(options.collection));
}

Json QueryOf(const QdrantQuery& query) {
  if (!query.vector.empty()) return query.vector;
  return {{"text", query.text}, {"model", query.model}};
}

// The points of an answer, as they go into a result.
absl::StatusOr<Json> Items(const std::string& body) {
  ASSIGN_OR_RETURN(const Json answer, ParseJson(body));
  const Field result = Field(&answer, "")["result"];
  const Field points = result["points"].present() ? result["points"] : result;
  if (!points.json().is_array()) return points.Expected("a list of points");
  Json items = Json::array();
  for (size_t i = 0; i < points.size(); ++i) {
    const Field point = points[i], id = point["id"];
    if (!id.json().is_number_integer() && !id.json().is_string()) {
      return id.Expected("an integer or a string");
    }
    ASSIGN_OR_RETURN(const double score, point["score"].Number());
    items.push_back({{"id", id.json()}, {"score", score}, {"payload", point["payload"].json()}});
  }
  return items;
}

absl::StatusCode CodeOf(int status) {
  if (status == 401 || status == 403) return absl::StatusCode::kPermissionDenied;
  if (status == 404) return absl::StatusCode::kNotFound;
  if (status == 400 || status == 422) return absl::StatusCode::kInvalidArgument;
  return IsRetryable(status) ? absl::StatusCode::kUnavailable
                             : absl::StatusCode::kFailedPrecondition;
}

}  // namespace

QdrantClient::QdrantClient(QdrantOptions options, const Clock& clock)
    : options_(std::move(options)), clock_(clock), base_(CollectionUrl(options_)) {}

std::string QdrantClient::Where() const {
  const std::string origin = UrlOrigin(options_.url);
  const size_t scheme = origin.find("://");
  return absl::StrCat("Qdrant at ", ShownUrl(options_.url), " (scheme ", origin.substr(0, scheme),
                      ", host ", scheme == std::string::npos ? "" : origin.substr(scheme + 3),
                      ", collection '", options_.collection, "', API key ",
                      options_.api_key.empty() ? "not set" : "set", ")");
}

HttpRequest QdrantClient::MakeRequest(const std::string& method, const std::string& path,
                                      Json body) const {
  HttpRequest request{.method = method,
                      .url = base_ + path,
                      .timeout = options_.timeout,
                      .total_timeout = options_.timeout,
                      .max_redirects = 0,  // the key goes nowhere else
                      .cancelled = options_.is_cancelled,
                      .may_connect = [](const sockaddr& address) { return !IsLinkLocal(address); },
                      .may_use_proxy = true,
                      .ca_file = options_.ca_cert,
                      .may_reuse_connection = true};
  if (!body.is_null()) {
    request.headers.emplace_back("Content-Type", "application/json");
    request.body = DumpJson(body);
  }
  if (!options_.api_key.empty()) request.headers.emplace_back("api-key", options_.api_key);
  return request;
}

absl::StatusOr<HttpResponse> QdrantClient::Send(const HttpRequest& request) {
  return SendWithRetries(http_, request, options_.retry_limit, clock_);
}

int64_t QdrantClient::CollectionSize() {
  const auto response = http_.Send(MakeRequest("GET", "", nullptr));
  if (!response.ok() || response->status != 200) return 0;
  const absl::StatusOr<Json> answer = ParseJson(response->body);
  if (!answer.ok()) return 0;
  const Field vectors = Field(&*answer, "")["result"]["config"]["params"]["vectors"];
  const Field own = options_.using_name.empty() ? vectors : vectors[options_.using_name];
  return own["size"].IntOr(0).value_or(0);
}

absl::Status QdrantClient::Refused(const QdrantQuery& query, const HttpRequest& request,
                                   const HttpResponse& response) {
  std::string text = absl::StrCat(Where(), ": answered ", response.status,
                                  ShownBody(response.body, request, {options_.api_key}));
  const absl::StatusCode code = CodeOf(response.status);
  if (code == absl::StatusCode::kInvalidArgument && !query.vector.empty()) {
    const int64_t size = CollectionSize();
    if (size > 0 && size != static_cast<int64_t>(query.vector.size())) {
      absl::StrAppend(&text, "; the vectors of the embedding model have ", query.vector.size(),
                      " components, those of the collection ", size);
    }
  }
  return absl::Status(code, text);
}

absl::StatusOr<Json> QdrantClient::Search(const QdrantQuery& query) {
  HttpRequest request;
  absl::StatusOr<HttpResponse> response = absl::NotFoundError("");
  if (!is_old_) {
    Json body = {{"query", QueryOf(query)}, {"limit", options_.limit}, {"with_payload", true}};
    if (!options_.using_name.empty()) body["using"] = options_.using_name;
    request = MakeRequest("POST", "/points/query", std::move(body));
    response = Send(request);
  }
  const bool is_missing = is_old_ || (response.ok() && response->status == 404);
  if (is_missing && !query.vector.empty()) {
    Json vector = query.vector;
    if (!options_.using_name.empty()) {
      vector = {{"name", options_.using_name}, {"vector", query.vector}};
    }
    request = MakeRequest(
        "POST", "/points/search",
        {{"vector", std::move(vector)}, {"limit", options_.limit}, {"with_payload", true}});
    response = Send(request);
    is_old_ = response.ok() && response->status == 200;
  }
  if (absl::IsCancelled(response.status())) return response.status();
  if (!response.ok()) {
    return absl::Status(
        response.status().code(),
        absl::StrCat(Where(), ": ",
                     WithoutSecrets(Message(response.status()), request, {options_.api_key})));
  }
  if (response->status != 200) return Refused(query, request, *response);
  absl::StatusOr<Json> items = Items(response->body);
  if (!items.ok()) {
    return absl::UnavailableError(
        absl::StrCat(Where(), ": an answer of another form: ", items.status().message(),
                     ShownBody(response->body, request, {options_.api_key})));
  }
  return items;
}

}  // namespace flowmesh::retrieval
