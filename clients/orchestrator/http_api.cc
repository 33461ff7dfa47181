#include "clients/orchestrator/http_api.h"

#include <openssl/crypto.h>
#include <sys/socket.h>

#include <regex>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "clients/orchestrator/file_answer.h"
#include "common/log.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

constexpr char kJson[] = "application/json";
constexpr size_t kThreads = 32;
constexpr uint64_t kMaxJsonBody = uint64_t{1} << 30;

// Every path of the API with the methods it has, to tell 405 from 404.
struct Route {
  std::regex path;
  std::string methods;
};

const std::vector<Route>& Routes() {
  static const std::vector<Route>* const routes = new std::vector<Route>{
      {std::regex("/healthz"), "GET"},
      {std::regex("/metrics"), "GET"},
      {std::regex("/workers"), "GET"},
      {std::regex("/workers/[^/]+"), "GET"},
      {std::regex("/workers/[^/]+/elastic"), "POST"},
      {std::regex("/api/v1/tasks"), "GET, POST"},
      {std::regex("/api/v1/tasks/[^/]+"), "GET"},
      {std::regex("/api/v1/results"), "POST"},
      {std::regex("/api/v1/results/[^/]+"), "GET"},
      {std::regex("/api/v1/results/[^/]+/files"), "POST"},
      {std::regex("/api/v1/results/[^/]+/files/[^/]+"), "GET"},
  };
  return *routes;
}

const Route* FindRoute(const std::string& path) {
  for (const Route& route : Routes()) {
    if (std::regex_match(path, route.path)) return &route;
  }
  return nullptr;
}

void AnswerJson(httplib::Response& response, const Json& body, int status = 200) {
  response.status = status;
  response.set_content(DumpJson(body), kJson);
}

void AnswerError(httplib::Response& response, int status, std::string_view detail) {
  AnswerJson(response, {{"detail", detail}}, status);
}

int HttpStatus(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kFailedPrecondition:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kUnavailable:
    case absl::StatusCode::kDeadlineExceeded:
      return 503;
    default:
      return 500;
  }
}

void Answer(httplib::Response& response, const absl::StatusOr<Json>& body) {
  if (body.ok()) {
    AnswerJson(response, *body);
  } else {
    AnswerError(response, HttpStatus(body.status()), Message(body.status()));
  }
}

bool IsJsonType(const httplib::Request& request) {
  const std::string header = request.get_header_value("Content-Type");
  const std::string type = ToLower(Trim(std::string_view(header).substr(0, header.find(';'))));
  return type == kJson || (absl::StartsWith(type, "application/") && absl::EndsWith(type, "+json"));
}

// The whole body, of a form with one part that part. The library itself would take a form of 8 KiB
// at most, and a form is what clients call YAML that they were told nothing of.
absl::StatusOr<std::string> ReadBody(const httplib::Request& request,
                                     const httplib::ContentReader& reader) {
  std::string body;
  const auto append = [&](const char* data, size_t size) {
    body.append(data, size);
    return true;
  };
  int parts = 1;
  bool complete = false;
  if (request.is_multipart_form_data()) {
    parts = 0;
    complete = reader([&](const httplib::MultipartFormData&) { return ++parts, true; }, append);
  } else {
    complete = reader(append);
  }
  if (!complete) return absl::InvalidArgumentError("body: it ended early or is no form");
  if (parts != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("body: expected a form with one part, got ", parts, " parts"));
  }
  return body;
}

// The YAML text of a submission (PROTOCOL.md 12.1).
absl::StatusOr<std::string> SubmittedYaml(const httplib::Request& request,
                                          const httplib::ContentReader& reader) {
  ASSIGN_OR_RETURN(std::string yaml, ReadBody(request, reader));
  if (IsJsonType(request)) {
    ASSIGN_OR_RETURN(const Json body, ParseJson(yaml));
    const bool wrapped = body.is_object() && body.contains("yaml");
    const Json& text = wrapped ? body["yaml"] : body;
    if (!text.is_string()) {
      return absl::InvalidArgumentError(
          "body: expected YAML text, a JSON string or {\"yaml\": \"...\"}");
    }
    yaml = text.get<std::string>();
  }
  if (Trim(yaml).empty())
    return absl::InvalidArgumentError("body: expected YAML text, got nothing");
  if (!IsValidUtf8(yaml)) return absl::InvalidArgumentError("body: expected UTF-8");
  return yaml;
}

// The wrapped document that is stored for a delivered result; InvalidArgument names the bad field.
absl::StatusOr<Json> ResultDocument(const Json& body, absl::Time now) {
  const auto wrong = [&](const char* field, const char* expected) {
    return absl::InvalidArgumentError(
        absl::StrCat(field, ": expected ", expected, ", got ",
                     DescribeJson(body.contains(field) ? body[field] : Json())));
  };
  const auto field = [&](const char* name) { return body.contains(name) ? body[name] : Json(); };
  if (!field("task_id").is_string()) return wrong("task_id", "a text");
  if (!field("result").is_object()) return wrong("result", "a map");
  if (!field("worker_id").is_string() && !field("worker_id").is_null()) {
    return wrong("worker_id", "a text");
  }
  if (!field("metadata").is_object() && !field("metadata").is_null()) {
    return wrong("metadata", "a map");
  }
  if (body.contains("received_at") && !body["received_at"].is_string()) {
    return wrong("received_at", "a text");
  }
  return Json{{"task_id", body["task_id"]},
              {"worker_id", field("worker_id")},
              {"metadata", field("metadata").is_null() ? Json::object() : body["metadata"]},
              {"received_at",
               body.contains("received_at") ? body["received_at"] : Json(FormatTimestamp(now))},
              {"result", body["result"]}};
}

// Length of the comparison does not tell how much of a guess was right.
bool SameSecret(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace

HttpApi::HttpApi(Orchestrator& orchestrator) : orchestrator_(orchestrator) { AddRoutes(); }

HttpApi::~HttpApi() { Stop(); }

absl::Status HttpApi::Start() {
  const Endpoint& listen = orchestrator_.config().listen;
  server_.new_task_queue = [] { return new httplib::ThreadPool(kThreads); };
  server_.set_tcp_nodelay(true);
  // The library's own options include SO_REUSEPORT, with which a second server would silently take
  // half of the connections.
  server_.set_socket_options([](int socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
  });
  int port = listen.port;
  if (port == 0) {
    port = server_.bind_to_any_port(listen.host);
  } else if (!server_.bind_to_port(listen.host, port)) {
    port = -1;
  }
  if (port <= 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", listen.Target(), ": is the address in use?"));
  }
  Endpoint bound = listen;
  bound.port = port;
  url_ = absl::StrCat("http://", bound.Target());
  thread_ = std::thread([this] { server_.listen_after_bind(); });
  return absl::OkStatus();
}

void HttpApi::Stop() {
  if (!thread_.joinable()) return;
  // stop() does nothing until the accept loop runs.
  while (!server_.is_running()) std::this_thread::yield();
  server_.stop();
  thread_.join();
}

bool HttpApi::Authorised(const Request& request, Response& response) const {
  const std::string& token = orchestrator_.config().token;
  if (token.empty() || request.path == "/healthz") return true;
  const std::string header = request.get_header_value("Authorization");
  if (!absl::StartsWith(header, "Bearer ")) {
    AnswerError(response, 401, "Missing bearer token");
    response.set_header("WWW-Authenticate", "Bearer");
    return false;
  }
  if (!SameSecret(std::string_view(header).substr(7), token)) {
    AnswerError(response, 403, "Invalid token");
    return false;
  }
  return true;
}

bool HttpApi::BeforeRouting(const Request& request, Response& response) {
  const Route* route = FindRoute(request.path);
  if (route == nullptr) {
    if (request.path.size() > 1 && request.path.back() == '/' &&
        FindRoute(request.path.substr(0, request.path.size() - 1)) != nullptr) {
      const std::string bare = request.path.substr(0, request.path.size() - 1);
      const std::string host = request.get_header_value("Host");
      response.set_header("Location", host.empty() ? bare : absl::StrCat("http://", host, bare));
      response.status = 307;
    } else {
      AnswerError(response, 404, "Not Found");
    }
    return true;
  }
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  if (!absl::StrContains(route->methods, method)) {
    AnswerError(response, 405, "Method Not Allowed");
    response.set_header("Allow", route->methods);
    return true;
  }
  uint64_t length = 0;
  if (!absl::EndsWith(request.path, "/files") &&
      absl::SimpleAtoi(request.get_header_value("Content-Length"), &length) &&
      length > kMaxJsonBody) {
    AnswerError(response, 413, "Body too large");
    return true;
  }
  return false;
}

void HttpApi::AddRoutes() {
  using Result = httplib::Server::HandlerResponse;
  server_.set_pre_routing_handler([this](const Request& request, Response& response) {
    const bool answered = BeforeRouting(request, response);
    // Ranges are applied by GetFile, which checks them; the library would not.
    const_cast<Request&>(request).ranges.clear();
    return answered ? Result::Handled : Result::Unhandled;
  });
  server_.set_error_handler([](const Request&, Response& response) {
    if (response.body.empty()) AnswerError(response, response.status, "Request not understood");
  });
  server_.set_exception_handler([](const Request& request, Response& response, std::exception_ptr) {
    LogError("{} {}: unexpected exception", request.method, request.path);
    AnswerError(response, 500, "Internal error");
  });
  server_.set_logger([](const Request& request, const Response& response) {
    LogDebug("{} {} -> {}", request.method, request.path, response.status);
  });

  const auto guarded = [this](auto handler) {
    return [this, handler](const Request& request, Response& response) {
      if (Authorised(request, response)) handler(request, response);
    };
  };
  server_.Get("/healthz", [](const Request&, Response& r) { AnswerJson(r, {{"ok", true}}); });
  server_.Get("/metrics", guarded([this](const Request&, Response& r) {
                AnswerJson(r, orchestrator_.Metrics());
              }));
  server_.Get("/workers", guarded([this](const Request&, Response& r) {
                Answer(r, orchestrator_.WorkerList());
              }));
  server_.Get("/workers/([^/]+)", guarded([this](const Request& q, Response& r) {
                Answer(r, orchestrator_.WorkerById(q.matches[1]));
              }));
  server_.Post("/workers/([^/]+)/elastic",
               [this](const Request& q, Response& r) { PostElastic(q, r); });
  server_.Get("/api/v1/tasks", guarded([this](const Request&, Response& r) {
                AnswerJson(r, orchestrator_.Tasks());
              }));
  server_.Post("/api/v1/tasks",
               [this](const Request& q, Response& r, const httplib::ContentReader& reader) {
                 PostTask(q, r, reader);
               });
  server_.Get("/api/v1/tasks/([^/]+)", guarded([this](const Request& q, Response& r) {
                Answer(r, orchestrator_.Task(q.matches[1]));
              }));
  server_.Post("/api/v1/results", [this](const Request& q, Response& r) { PostResult(q, r); });
  server_.Get("/api/v1/results/([^/]+)", guarded([this](const Request& q, Response& r) {
                absl::StatusOr<std::string> text =
                    orchestrator_.store().LoadResultText(q.matches[1].str());
                if (!text.ok()) return AnswerError(r, 404, "Result not found");
                r.status = 200;
                r.set_content(*text, kJson);
              }));
  server_.Post("/api/v1/results/([^/]+)/files",
               [this](const Request& q, Response& r, const httplib::ContentReader& reader) {
                 PostFile(q, r, reader);
               });
  server_.Get("/api/v1/results/([^/]+)/files/([^/]+)",
              guarded([this](const Request& q, Response& r) { GetFile(q, r); }));
}

void HttpApi::PostTask(const Request& request, Response& response,
                       const httplib::ContentReader& reader) {
  // Read also when it is refused, or it would be taken for the next request.
  const absl::StatusOr<std::string> yaml = SubmittedYaml(request, reader);
  if (!Authorised(request, response)) return;
  if (!yaml.ok()) return AnswerError(response, 400, Message(yaml.status()));
  Answer(response, orchestrator_.Submit(*yaml));
}

void HttpApi::PostResult(const Request& request, Response& response) {
  // Malformed JSON is answered before the token is looked at, a wrong shape after.
  const absl::StatusOr<Json> body = IsJsonType(request)
                                        ? ParseJson(request.body)
                                        : absl::InvalidArgumentError("expected application/json");
  if (!body.ok()) return AnswerError(response, 422, Message(body.status()));
  if (!Authorised(request, response)) return;
  if (!body->is_object()) return AnswerError(response, 422, "body: expected a map");
  const absl::StatusOr<Json> document = ResultDocument(*body, orchestrator_.clock().Now());
  if (!document.ok()) return AnswerError(response, 422, Message(document.status()));
  const std::string task_id = (*document)["task_id"];
  if (task_id.empty()) return AnswerError(response, 400, "task_id: expected a text, got \"\"");
  const absl::StatusOr<std::string> path = orchestrator_.StoreResult(task_id, *document);
  if (!path.ok()) {
    LogError("result of task {} not stored: {}", task_id, Message(path.status()));
    return AnswerError(response, 500, Message(path.status()));
  }
  AnswerJson(response, {{"ok", true}, {"path", *path}});
}

void HttpApi::PostFile(const Request& request, Response& response,
                       const httplib::ContentReader& reader) {
  // The body is read to its end also when it is refused, or it would be taken for the next request.
  const auto drop = [](const char*, size_t) { return true; };
  if (!request.is_multipart_form_data()) {
    reader(drop);
    if (!Authorised(request, response)) return;
    return AnswerError(response, 422, "expected multipart/form-data with a part named `file`");
  }
  if (!Authorised(request, response)) {
    reader([](const httplib::MultipartFormData&) { return true; }, drop);
    return;
  }
  const std::string task_id = request.matches[1];
  std::optional<DotFile> upload;
  absl::Status status;
  bool seen = false;
  bool bad_name = false;
  bool wanted = false;  // the part being read is the file
  const bool complete = reader(
      [&](const httplib::MultipartFormData& part) {
        wanted = part.name == "file" && !seen;
        if (!wanted) return true;
        seen = true;
        bad_name = !IsBareFileName(part.filename);
        if (bad_name) return true;
        absl::StatusOr<DotFile> begun = orchestrator_.store().BeginUpload(task_id, part.filename);
        status = begun.status();
        if (begun.ok()) upload.emplace(*std::move(begun));
        return true;
      },
      [&](const char* data, size_t size) {
        if (wanted && upload && status.ok()) status = upload->Write({data, size});
        return true;
      });
  if (!seen) return AnswerError(response, 422, "expected a part named `file`");
  if (bad_name) return AnswerError(response, 400, "Invalid file name");
  if (!complete) return AnswerError(response, 400, "the upload ended early");
  if (status.ok()) status = upload->Commit();
  if (!status.ok()) {
    LogError("upload for task {} not stored: {}", task_id, Message(status));
    return AnswerError(response, 500, Message(status));
  }
  AnswerJson(response, {{"ok", true}, {"path", upload->path().string()}});
}

void HttpApi::GetFile(const Request& request, Response& response) {
  const std::string name = request.matches[2];
  if (!IsBareFileName(name)) return AnswerError(response, 400, "Invalid file name");
  const absl::StatusOr<std::filesystem::path> path =
      orchestrator_.store().FindFile(request.matches[1].str(), name);
  if (!path.ok()) return AnswerError(response, 404, "File not found");
  if (const absl::Status status = AnswerWithFile(*path, request, response); !status.ok()) {
    AnswerError(response, HttpStatus(status), Message(status));
  }
}

void HttpApi::PostElastic(const Request& request, Response& response) {
  const absl::StatusOr<Json> body = ParseJson(request.body);
  if (!body.ok()) return AnswerError(response, 422, Message(body.status()));
  if (!Authorised(request, response)) return;
  if (!body->is_object() || !body->contains("enabled") || !(*body)["enabled"].is_boolean()) {
    return AnswerError(response, 422, "enabled: expected true or false");
  }
  Answer(response, orchestrator_.SetElastic(request.matches[1], (*body)["enabled"].get<bool>()));
}

}  // namespace flowmesh::orchestrator
