// For tests: a hub on loopback, as far as TASKS.md 5.6 describes one.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/json.h"
#include "common/strings.h"
#include "common/test_http_server.h"

namespace flowmesh::hub {

// Repositories are filled before the first request. Files in `large` are redirected to a second
// server, with their SHA-256 as X-Linked-Etag; others are answered with an ETag.
class FakeHub {
 public:
  using Files = std::map<std::string, std::string>;

  FakeHub()
      : store_([this](const httplib::Request& request, httplib::Response& reply) {
          if (request.method == "HEAD") reply.status = 403;  // its links are signed for GET
          reply.set_content(large.at(request.path.substr(1)), "application/octet-stream");
        }),
        server_([this](const httplib::Request& request, httplib::Response& reply) {
          Answer(request, reply);
        }) {}

  std::string url() const { return server_.url(); }
  std::vector<httplib::Request> requests() const { return server_.requests(); }
  std::vector<httplib::Request> store_requests() const { return store_.requests(); }
  // How many requests asked for a file's content.
  size_t downloads() const {
    size_t count = 0;
    for (const httplib::Request& request : requests()) {
      count += request.method == "GET" && request.path.find("/resolve/") != std::string::npos;
    }
    return count;
  }

  // `models/org/name@main` or `datasets/org/name@refs/convert/parquet` -> files; the commit is the
  // SHA-256 of that name, shortened.
  std::map<std::string, Files> repositories;
  std::map<std::string, std::string> large;  // by SHA-256
  std::string token;                         // wanted, when not empty
  int failures = 0;                          // so many next requests for content are answered 503

  static std::string CommitOf(const std::string& repository) {
    return Sha256Hex(repository).substr(0, 40);
  }
  std::string AddLarge(const std::string& content) {
    const std::string digest = Sha256Hex(content);
    large[digest] = content;
    return "large:" + digest;
  }

 private:
  void Answer(const httplib::Request& request, httplib::Response& reply) {
    if (!token.empty() && request.get_header_value("Authorization") != "Bearer " + token) {
      reply.status = 401;
      return;
    }
    for (const auto& [name, files] : repositories) {
      const std::string id = name.substr(0, name.find('@'));
      const std::string revision = name.substr(name.find('@') + 1), commit = CommitOf(name);
      for (const std::string& wanted : {revision, commit}) {
        // The path as it was sent: a revision's slashes are %2F.
        const std::string sent = absl::StrReplaceAll(wanted, {{"/", "%2F"}});
        const std::string target = request.target;
        if (target == absl::StrCat("/api/", id, "/revision/", sent)) {
          Json listing = {{"sha", commit}, {"siblings", Json::array()}};
          for (const auto& [file, content] : files) {
            listing["siblings"].push_back({{"rfilename", file}});
          }
          reply.set_content(listing.dump(), "application/json");
          return;
        }
        const std::string page = id.rfind("models/", 0) == 0 ? id.substr(7) : id;
        const std::string prefix = absl::StrCat("/", page, "/resolve/", sent, "/");
        if (target.rfind(prefix, 0) != 0) continue;
        const auto file = files.find(
            request.path.substr(absl::StrCat("/", page, "/resolve/", wanted, "/").size()));
        if (file != files.end()) return Send(file->second, request, reply);
      }
    }
    reply.status = 404;
  }

  void Send(const std::string& content, const httplib::Request& request, httplib::Response& reply) {
    if (request.method == "GET" && failures > 0) {
      --failures;
      reply.status = 503;
      return;
    }
    if (content.rfind("large:", 0) == 0) {
      const std::string digest = content.substr(6);
      reply.set_header("X-Linked-Etag", "\"" + digest + "\"");
      reply.set_redirect(store_.url("/" + digest));
      return;
    }
    reply.set_header("ETag", "\"" + Sha256Hex("blob " + content).substr(0, 40) + "\"");
    reply.set_content(content, "text/plain");
  }

  TestHttpServer store_;
  TestHttpServer server_;
};

}  // namespace flowmesh::hub
