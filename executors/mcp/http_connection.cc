#include <algorithm>
#include <atomic>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/sse.h"
#include "common/strings.h"
#include "executors/mcp/connection.h"
#include "executors/mcp/jsonrpc.h"

namespace flowmesh::mcp {
namespace {

constexpr absl::Duration kCancelTime = absl::Seconds(2);  // to tell it that nobody waits
constexpr absl::Duration kSilence = absl::Minutes(5);     // of a server that works
constexpr size_t kMaxStreamBytes = 64u << 20;             // of one answer's stream
constexpr int kMaxServerRequests = 100;                   // in one answer's stream

class HttpConnection : public Connection {
 public:
  explicit HttpConnection(const ServerSettings& settings) : settings_(settings) {}

  ~HttpConnection() override {
    if (SessionId().empty()) return;
    HttpRequest request = MakeRequest({Clock::Real().Monotonic() + kCancelTime, nullptr});
    request.method = "DELETE";
    (void)HttpClient().Send(request);
  }

  absl::StatusOr<Json> Request(const std::string& method, const Json& params,
                               const CallLimits& limits) override {
    const int64_t id = next_id_++;
    absl::StatusOr<Json> answer = Post(RequestMessage(id, method, params), id, limits);
    if (answer.ok()) answer = ResultOf(*answer);
    if (answer.ok()) return answer;
    const bool is_late =
        absl::IsCancelled(answer.status()) || absl::IsDeadlineExceeded(answer.status());
    if (is_late && method != kInitialize) {
      (void)Post(CancelledMessage(id), 0, {Clock::Real().Monotonic() + kCancelTime, nullptr});
    }
    return Hidden(answer.status());
  }

  absl::Status Notify(const std::string& method, const Json& params,
                      const CallLimits& limits) override {
    return Hidden(Post(NotificationMessage(method, params), 0, limits).status());
  }

  void SetProtocolVersion(const std::string& version) override {
    absl::MutexLock lock(&mutex_);
    protocol_version_ = version;
  }

  bool is_closed() override { return is_forgotten_; }

 private:
  // What one POST is answered, as far as it was read.
  struct Answer {
    int64_t id;  // of our request; 0: none is awaited
    Json message;
    std::string body;  // unless it is a stream
    size_t stream_bytes = 0;
    int server_requests = 0;
  };

  absl::Status Hidden(const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::Status(status.code(), WithoutSecrets(Message(status), {}, settings_.Secrets()));
  }

  std::string SessionId() {
    absl::MutexLock lock(&mutex_);
    return session_id_;
  }

  HttpRequest MakeRequest(const CallLimits& limits) {
    HttpRequest request;
    request.method = "POST";
    request.url = settings_.url;
    request.headers = settings_.headers;
    request.headers.emplace_back("Content-Type", "application/json");
    request.headers.emplace_back("Accept", "application/json, text/event-stream");
    request.timeout = kSilence;
    request.stays_at_origin = true;  // what is asked is not for others either
    request.total_timeout = limits.deadline - Clock::Real().Monotonic();
    request.cancelled = limits.is_stopped;
    absl::MutexLock lock(&mutex_);
    if (!session_id_.empty()) request.headers.emplace_back("Mcp-Session-Id", session_id_);
    if (!protocol_version_.empty()) {
      request.headers.emplace_back("MCP-Protocol-Version", protocol_version_);
    }
    return request;
  }

  // The answer to the request `id`, or null when there is none to wait for.
  absl::StatusOr<Json> Post(const Json& message, int64_t id, const CallLimits& limits) {
    HttpRequest request = MakeRequest(limits);
    if (request.total_timeout <= absl::ZeroDuration()) {
      return absl::DeadlineExceededError("no answer in time");
    }
    const bool had_session = request.HasHeader("mcp-session-id");
    request.body = DumpJson(message);
    Answer answer{.id = id, .message = nullptr, .body = ""};
    SseParser stream(
        [&](const SseEvent& event) {
          const absl::StatusOr<Json> json = ParseJson(event.data);
          if (!json.ok()) return absl::DataLossError("the server streams what is no JSON");
          return OnMessage(*json, answer, limits);
        },
        kMaxMessageBytes);
    request.on_body = [&](const HttpResponse& head, std::string_view piece) {
      return OnPiece(head, piece, stream, answer);
    };
    const absl::StatusOr<HttpResponse> response = HttpClient().Send(request);
    if (!answer.message.is_null()) return answer.message;  // and the stream was left
    if (!response.ok()) return response.status();
    return Finish(*response, answer, had_session, limits);
  }

  // Servers should say 404; some say 400 and what they miss.
  static bool IsForgotten(const HttpResponse& response) {
    return response.status == 404 ||
           (response.status == 400 && ToLower(response.body).find("session") != std::string::npos);
  }

  // What an error of JSON-RPC in a refusal says; empty when it is none.
  static std::string ErrorIn(const std::string& body) {
    const absl::StatusOr<Json> json = ParseJson(body);
    if (!json.ok() || !json->is_object() || !json->contains("error")) return "";
    return Message(ResultOf(*json).status());
  }

  absl::Status OnPiece(const HttpResponse& head, std::string_view piece, SseParser& stream,
                       Answer& answer) {
    KeepSession(head);
    answer.stream_bytes += piece.size();
    if (head.Header("content-type").starts_with("text/event-stream")) {
      RETURN_IF_ERROR(stream.Feed(piece));
      if (answer.stream_bytes > kMaxStreamBytes) {
        return absl::DataLossError("the server streams too much");
      }
      return answer.message.is_null() ? absl::OkStatus() : absl::AbortedError("answered");
    }
    answer.body += piece;
    if (answer.body.size() <= kMaxMessageBytes) return absl::OkStatus();
    return absl::DataLossError(
        absl::StrCat("the server answers with more than ", kMaxMessageBytes, " bytes"));
  }

  absl::StatusOr<Json> Finish(const HttpResponse& response, Answer& answer, bool had_session,
                              const CallLimits& limits) {
    if (had_session && IsForgotten(response)) {
      is_forgotten_ = true;
      return absl::NotFoundError("the server has forgotten the session");
    }
    if (response.status / 100 != 2) {
      return absl::UnavailableError(
          absl::StrCat("the server answers with status ", response.status,
                       ShownBody(ErrorIn(response.body), {}, settings_.Secrets())));
    }
    KeepSession(response);
    if (answer.id == 0) return Json();
    if (answer.body.empty())
      return absl::DataLossError("the server's stream ends without an answer");
    const absl::StatusOr<Json> json = ParseJson(answer.body);
    if (!json.ok()) return absl::DataLossError("the server answers with what is no JSON");
    for (const Json& message : json->is_array() ? *json : Json::array({*json})) {
      RETURN_IF_ERROR(OnMessage(message, answer, limits));
    }
    if (answer.message.is_null()) return absl::DataLossError("the server answers something else");
    return answer.message;
  }

  void KeepSession(const HttpResponse& head) {
    const std::string id = head.Header("mcp-session-id");
    if (id.empty()) return;
    absl::MutexLock lock(&mutex_);
    session_id_ = id;
  }

  // An error ends the call.
  absl::Status OnMessage(const Json& message, Answer& answer, const CallLimits& limits) {
    switch (KindOf(message)) {
      case MessageKind::kAnswer:
        if (answer.id != 0 && AnswerId(message) == answer.id) answer.message = message;
        break;
      case MessageKind::kRequest:  // the server may wait for it before it goes on
        return AnswerServer(message, answer, limits);
      case MessageKind::kNotification:
      case MessageKind::kNone:
        break;
    }
    return absl::OkStatus();
  }

  absl::Status AnswerServer(const Json& message, Answer& answer, const CallLimits& limits) {
    // It may stream requests at a call only: answers to answers would have no end.
    if (answer.id == 0) return absl::OkStatus();
    if (++answer.server_requests > kMaxServerRequests) {
      return absl::DataLossError(absl::StrCat("the server asks more than ", kMaxServerRequests,
                                              " times before it answers"));
    }
    RETURN_IF_ERROR(CheckLimits(limits));
    (void)Post(
        AnswerTo(message), 0,
        {std::min(limits.deadline, Clock::Real().Monotonic() + kCancelTime), limits.is_stopped});
    return absl::OkStatus();
  }

  const ServerSettings settings_;
  std::atomic<int64_t> next_id_ = 1;
  std::atomic<bool> is_forgotten_ = false;

  absl::Mutex mutex_;
  std::string session_id_ ABSL_GUARDED_BY(mutex_);
  std::string protocol_version_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<Connection> MakeHttp(const ServerSettings& settings) {
  return std::make_unique<HttpConnection>(settings);
}

}  // namespace flowmesh::mcp
