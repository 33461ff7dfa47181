// For tests: an OpenAI-compatible endpoint that says what a test wants, over real HTTP.
#pragma once

#include <atomic>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/env.h"
#include "common/json.h"
#include "common/test_http_server.h"

namespace flowmesh::agent {

using Reply = TestHttpServer::Handler;

// A stream of these data fields.
inline Reply Stream(const std::vector<std::string>& events) {
  std::string body;
  for (const std::string& event : events) absl::StrAppend(&body, "data: ", event, "\n\n");
  return [body](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(body, "text/event-stream");
  };
}

// One chunk of `chat.completions`.
inline std::string Chunk(const Json& delta, const Json& finish_reason = nullptr) {
  return DumpJson(
      {{"choices", {{{"index", 0}, {"delta", delta}, {"finish_reason", finish_reason}}}}});
}

inline std::string UsageChunk(int prompt, int completion) {
  return DumpJson({{"choices", Json::array()},
                   {"usage", {{"prompt_tokens", prompt}, {"completion_tokens", completion}}}});
}

// A text of 12 tokens.
inline Reply Says(const std::string& text) {
  const size_t half = text.size() / 2;
  return Stream({Chunk({{"role", "assistant"}, {"content", ""}}),
                 Chunk({{"content", text.substr(0, half)}}),
                 Chunk({{"content", text.substr(half)}}), Chunk(Json::object(), "stop"),
                 UsageChunk(30, 12), "[DONE]"});
}

// A call of a tool, its arguments in two pieces.
inline Reply Calls(const std::string& tool, const std::string& arguments,
                   const std::string& id = "call_a") {
  const size_t half = arguments.size() / 2;
  const auto piece = [](const std::string& text) {
    return Json{{"tool_calls", {{{"index", 0}, {"function", {{"arguments", text}}}}}}};
  };
  Json first = piece(arguments.substr(0, half));
  first["tool_calls"][0]["id"] = id;
  first["tool_calls"][0]["function"]["name"] = tool;
  return Stream({Chunk(first), Chunk(piece(arguments.substr(half))),
                 Chunk(Json::object(), "tool_calls"), UsageChunk(40, 7), "[DONE]"});
}

inline Reply Status(int status, const std::string& body = "", const std::string& retry_after = "") {
  return [=](const httplib::Request&, httplib::Response& reply) {
    reply.status = status;
    if (!retry_after.empty()) reply.set_header("Retry-After", retry_after);
    reply.set_content(body, "application/json");
  };
}

class ScriptedEndpoint {
 public:
  // Gives the replies one after the other; the last one to every further request.
  explicit ScriptedEndpoint(std::vector<Reply> replies)
      : replies_(std::move(replies)),
        server_([this](const httplib::Request& request, httplib::Response& reply) {
          replies_[std::min(next_++, replies_.size() - 1)](request, reply);
        }) {}
  // Chooses by the request's body.
  explicit ScriptedEndpoint(std::function<Reply(const Json& body)> choose)
      : server_([choose](const httplib::Request& request, httplib::Response& reply) {
          choose(ParseJson(request.body).value())(request, reply);
        }) {}

  std::string base_url() const { return server_.url("/v1"); }
  size_t count() const { return server_.requests().size(); }
  httplib::Request request(size_t i) const { return server_.requests().at(i); }
  Json body(size_t i) const { return ParseJson(request(i).body).value(); }

  // The environment that names it, and what else a test wants.
  EnvLookup Env(std::map<std::string, std::string> more = {}) const {
    more.insert({{"UTU_LLM_MODEL", "m"}, {"UTU_LLM_BASE_URL", base_url()}});
    return [more](std::string_view name) -> std::optional<std::string> {
      const auto it = more.find(std::string(name));
      return it == more.end() ? std::nullopt : std::optional(it->second);
    };
  }

 private:
  std::vector<Reply> replies_;
  std::atomic<size_t> next_ = 0;
  TestHttpServer server_;
};

}  // namespace flowmesh::agent
