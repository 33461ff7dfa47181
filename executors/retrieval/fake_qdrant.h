// For tests: what Qdrant's REST documentation says of a server, as far as searches need it. Qdrant
// itself is in no Debian package. Requests that the documentation does not allow are answered 400
// and fail the test.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/json.h"
#include "common/test_http_server.h"

namespace flowmesh::retrieval {

class FakeQdrant {
 public:
  struct Point {
    Json id;
    std::vector<float> vector;
    Json payload;
  };
  struct Collection {
    size_t size = 0;   // of vectors
    std::string name;  // of the vector; empty: the only one
    std::vector<Point> points;
  };

  // Filled before the first request.
  std::map<std::string, Collection> collections;
  std::string api_key;  // wanted, when not empty
  bool is_old = false;  // of a version without points/query
  int failures = 0;     // so many next requests are answered with `failure_status`
  int failure_status = 503;
  std::map<std::string, std::map<std::string, std::vector<float>>> models;  // of inference objects

  FakeQdrant()
      : server_([this](const httplib::Request& request, httplib::Response& reply) {
          Answer(request, reply);
        }) {}

  std::string url() const { return server_.url(); }
  std::vector<httplib::Request> requests() const { return server_.requests(); }

 private:
  static void Error(httplib::Response& reply, int status, const std::string& text) {
    reply.status = status;
    reply.set_content(DumpJson({{"status", {{"error", text}}}, {"time", 0.0}}), "application/json");
  }
  static void Ok(httplib::Response& reply, Json result) {
    reply.set_content(DumpJson({{"result", std::move(result)}, {"status", "ok"}, {"time", 0.0001}}),
                      "application/json");
  }
  static void Undocumented(httplib::Response& reply, const std::string& text) {
    ADD_FAILURE() << "a request that the documentation does not know: " << text;
    Error(reply, 400, text);
  }

  void Answer(const httplib::Request& request, httplib::Response& reply) {
    if (failures > 0) {
      --failures;
      reply.status = failure_status;
      return;
    }
    if (!api_key.empty() && request.get_header_value("api-key") != api_key) {
      reply.status = 401;
      reply.set_content("Must provide an API key or an Authorization bearer token", "text/plain");
      return;
    }
    absl::string_view rest = request.path;
    if (!absl::ConsumePrefix(&rest, "/collections/")) return Undocumented(reply, request.path);
    const size_t slash = rest.find('/');
    const std::string name(rest.substr(0, slash));
    const std::string action(slash == absl::string_view::npos ? "" : rest.substr(slash));
    if (action == "/points/query" && is_old) {
      reply.status = 404;
      return;
    }
    const auto found = collections.find(name);
    if (found == collections.end()) {
      return Error(reply, 404, absl::StrCat("Not found: Collection `", name, "` doesn't exist!"));
    }
    if (action.empty() && request.method == "GET") return Describe(found->second, reply);
    if (request.method != "POST") return Undocumented(reply, request.method);
    if (request.get_header_value("Content-Type") != "application/json") {
      return Undocumented(reply, "a body that is no JSON");
    }
    const Json body = Json::parse(request.body, nullptr, false);
    if (action == "/points/query") return Query(found->second, body, reply);
    if (action == "/points/search") return SearchOld(found->second, body, reply);
    Undocumented(reply, request.path);
  }

  static void Describe(const Collection& collection, httplib::Response& reply) {
    Json vectors = {{"size", collection.size}, {"distance", "Dot"}};
    if (!collection.name.empty()) vectors = Json{{collection.name, vectors}};
    Ok(reply, {{"status", "green"}, {"config", {{"params", {{"vectors", vectors}}}}}});
  }

  static bool HasOnly(const Json& body, const std::vector<std::string>& keys) {
    if (!body.is_object()) return false;
    for (const auto& [key, value] : body.items()) {
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) return false;
    }
    return true;
  }

  void Query(const Collection& collection, const Json& body, httplib::Response& reply) {
    if (!HasOnly(body, {"query", "limit", "with_payload", "using"})) {
      return Undocumented(reply, body.dump());
    }
    if (body.value("using", "") != collection.name) {
      return Error(reply, 400, "Wrong input: Not existing vector name error");
    }
    const Json& query = body["query"];
    std::vector<float> vector;
    if (query.is_object()) {
      if (!HasOnly(query, {"text", "model"})) return Undocumented(reply, body.dump());
      const auto model = models.find(query.value("model", ""));
      if (model == models.end()) return Error(reply, 400, "Wrong input: unknown model");
      vector = model->second.at(query.value("text", ""));
    } else {
      vector = query.get<std::vector<float>>();
    }
    Json points;
    if (!Nearest(collection, vector, body, &points, reply)) return;
    Ok(reply, {{"points", std::move(points)}});
  }

  static void SearchOld(const Collection& collection, const Json& body, httplib::Response& reply) {
    if (!HasOnly(body, {"vector", "limit", "with_payload"})) {
      return Undocumented(reply, body.dump());
    }
    Json vector = body["vector"];
    std::string name;
    if (vector.is_object()) {
      if (!HasOnly(vector, {"name", "vector"})) return Undocumented(reply, body.dump());
      name = vector.value("name", "");
      vector = Json(vector["vector"]);
    }
    if (name != collection.name) {
      return Error(reply, 400, "Wrong input: Not existing vector name error");
    }
    Json points;
    if (!Nearest(collection, vector.get<std::vector<float>>(), body, &points, reply)) return;
    Ok(reply, std::move(points));
  }

  static bool Nearest(const Collection& collection, const std::vector<float>& vector,
                      const Json& body, Json* points, httplib::Response& reply) {
    if (vector.size() != collection.size) {
      Error(reply, 400,
            absl::StrCat("Wrong input: Vector dimension error: expected dim: ", collection.size,
                         ", got ", vector.size()));
      return false;
    }
    std::vector<std::pair<float, const Point*>> scored;
    for (const Point& point : collection.points) {
      float score = 0;
      for (size_t i = 0; i < vector.size(); ++i) score += vector[i] * point.vector[i];
      scored.emplace_back(score, &point);
    }
    std::stable_sort(scored.begin(), scored.end(),
                     [](const auto& a, const auto& b) { return a.first > b.first; });
    scored.resize(std::min(scored.size(), body["limit"].get<size_t>()));
    *points = Json::array();
    for (const auto& [score, point] : scored) {
      Json item = {{"id", point->id}, {"version", 0}, {"score", score}};
      if (body.value("with_payload", false)) item["payload"] = point->payload;
      points->push_back(std::move(item));
    }
    return true;
  }

  TestHttpServer server_;  // the last: it ends first
};

}  // namespace flowmesh::retrieval
