#include "executors/agent/endpoint.h"

#include <algorithm>
#include <atomic>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/http.h"
#include "common/redact.h"
#include "common/retry.h"
#include "common/strings.h"
#include "executors/agent/reply_reader.h"

namespace flowmesh::agent {
namespace {

constexpr size_t kMaxWhole = 32u << 20;  // bytes of an answer that is no stream

std::string Given(const EnvLookup& env, std::string_view name) {
  return std::string(Trim(env(name).value_or("")));
}

// The body of one answer, a stream or one JSON document, whichever it turns out to be: servers that
// cannot stream answer as if not asked to.
class Body {
 public:
  explicit Body(ReplyReader* reader)
      : reader_(reader), parser_([reader](const SseEvent& e) { return reader->OnEvent(e); }) {}

  absl::Status Feed(std::string_view piece) {
    if (kind_ == Kind::kUnknown) {
      const std::string_view text = Trim(piece);
      if (text.empty()) return absl::OkStatus();
      kind_ = text.front() == '{' ? Kind::kWhole : Kind::kStream;
    }
    if (kind_ == Kind::kStream) return parser_.Feed(piece);
    if (whole_.size() + piece.size() > kMaxWhole) {
      return absl::ResourceExhaustedError("the answer is too large");
    }
    whole_ += piece;
    return absl::OkStatus();
  }

  absl::StatusOr<ChatReply> Finish() {
    if (kind_ == Kind::kUnknown) return absl::UnavailableError("an empty answer");
    if (kind_ == Kind::kWhole) {
      const absl::StatusOr<Json> json = ParseJson(whole_);
      if (!json.ok()) return absl::UnavailableError("the answer is no whole JSON document");
      return reader_->ReadWhole(*json);
    }
    absl::StatusOr<ChatReply> reply = reader_->FinishStream();
    // A whole reply may be followed by an end mark without its empty line.
    if (!reply.ok() && parser_.is_inside_event()) {
      return absl::UnavailableError("the stream stopped in the middle of an event");
    }
    return reply;
  }

 private:
  enum class Kind { kUnknown, kStream, kWhole };
  ReplyReader* reader_;
  Kind kind_ = Kind::kUnknown;
  SseParser parser_;
  std::string whole_;
};

// How one try ended.
struct Try {
  absl::StatusOr<ChatReply> reply = absl::UnknownError("");
  bool is_worth_another = false;
  std::optional<absl::Duration> retry_after;
};

class Endpoint : public ChatModel {
 public:
  explicit Endpoint(EndpointSettings settings) : settings_(std::move(settings)) {}

  absl::StatusOr<ChatReply> Chat(const ChatRequest& request) override {
    const Clock& clock = Clock::Real();
    const absl::Duration begin = clock.Monotonic();
    RetrySchedule schedule(std::min(settings_.retry_limit, request.deadline - begin));
    while (true) {
      if (request.is_stopped && request.is_stopped()) return absl::CancelledError("cancelled");
      if (clock.Monotonic() >= request.deadline) return Late();
      Try attempt = Ask(request);
      if (attempt.reply.ok() || absl::IsCancelled(attempt.reply.status())) {
        return std::move(attempt.reply);
      }
      if (clock.Monotonic() >= request.deadline) return Late();
      if (!attempt.is_worth_another) return Failure(attempt.reply.status());
      const auto pause = schedule.Next(clock.Monotonic() - begin, attempt.retry_after);
      if (!pause) return Failure(attempt.reply.status());
      if (request.on_retry) request.on_retry(Message(Failure(attempt.reply.status())));
      RETURN_IF_ERROR(WaitUntil(clock, clock.Monotonic() + *pause, request.is_stopped));
    }
  }

 private:
  static absl::Status Late() {
    return absl::DeadlineExceededError("the model did not answer within the time limit");
  }

  absl::Status Failure(const absl::Status& status) const {
    const std::string text = WithoutSecrets(Message(status), HttpRequest{.url = settings_.base_url},
                                            {settings_.api_key});
    return {status.code(),
            absl::StrCat("chat endpoint ", ShownUrl(settings_.base_url), ": ", text)};
  }

  HttpRequest Request(const ChatRequest& request, bool is_streamed, Body* body) const {
    const bool is_completions = settings_.api == ChatApi::kChatCompletions;
    HttpRequest http{.method = "POST",
                     .url = absl::StrCat(settings_.base_url,
                                         is_completions ? "/chat/completions" : "/responses"),
                     .headers = {{"Content-Type", "application/json"}}};
    if (!settings_.api_key.empty()) {
      http.headers.emplace_back("Authorization", absl::StrCat("Bearer ", settings_.api_key));
    }
    http.body = DumpJson(is_completions ? CompletionsRequest(settings_, request, is_streamed)
                                        : ResponsesRequest(settings_, request, is_streamed));
    http.on_body = [body](const HttpResponse&, std::string_view piece) {
      return body->Feed(piece);
    };
    http.stays_at_origin = true;  // what is said is not for others
    http.timeout = settings_.silence;
    http.total_timeout = request.deadline - Clock::Real().Monotonic();
    http.cancelled = request.is_stopped;
    return http;
  }

  Try Ask(const ChatRequest& request) {
    const bool is_streamed = !cannot_stream_;
    const auto reader = settings_.api == ChatApi::kChatCompletions ? MakeCompletionsReader()
                                                                   : MakeResponsesReader();
    Body body(reader.get());
    const HttpRequest http = Request(request, is_streamed, &body);
    std::unique_ptr<HttpClient> client = TakeClient();
    const absl::StatusOr<HttpResponse> response = client->Send(http);
    GiveClient(std::move(client));

    Try result;
    if (!response.ok()) {
      result.reply = response.status();
      result.is_worth_another = IsRetryable(response.status());
    } else if (response->status >= 300) {
      std::string shown = ShownBody(response->body, http, {settings_.api_key});
      const std::string target = UrlOrigin(ResolveUrl(http.url, response->Header("location")));
      if (response->status < 400 && !target.empty()) {
        shown = absl::StrCat(": a redirect to ", target, ", which is not followed");
      }
      result.reply = absl::FailedPreconditionError(absl::StrCat("HTTP ", response->status, shown));
      result.is_worth_another = IsRetryable(response->status) || response->status == 409;
      result.retry_after = ParseRetryAfter(response->Header("retry-after"), Clock::Real().Now());
      // A server that cannot stream says so by refusing the field.
      const bool is_refusal = response->status == 400 || response->status == 422;
      if (is_streamed && is_refusal && response->body.find("stream") != std::string::npos) {
        cannot_stream_ = true;
        result.is_worth_another = true;
      }
    } else {
      result.reply = body.Finish();
      result.is_worth_another = IsRetryable(result.reply.status());
    }
    return result;
  }

  // Clients are kept for their connections.
  std::unique_ptr<HttpClient> TakeClient() {
    absl::MutexLock lock(&mutex_);
    if (idle_.empty()) return std::make_unique<HttpClient>();
    std::unique_ptr<HttpClient> client = std::move(idle_.back());
    idle_.pop_back();
    return client;
  }
  void GiveClient(std::unique_ptr<HttpClient> client) {
    absl::MutexLock lock(&mutex_);
    idle_.push_back(std::move(client));
  }

  const EndpointSettings settings_;
  std::atomic<bool> cannot_stream_ = false;
  absl::Mutex mutex_;
  std::vector<std::unique_ptr<HttpClient>> idle_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<ChatApi> ReadApi(const std::string& given) {
  const std::string type = ToLower(given);
  if (type.empty() || type == "chat.completions") return ChatApi::kChatCompletions;
  if (type == "responses") return ChatApi::kResponses;
  return absl::InvalidArgumentError(
      absl::StrCat("UTU_LLM_TYPE: expected chat.completions or responses, got \"", given, "\""));
}

}  // namespace

absl::StatusOr<EndpointSettings> ReadEndpointSettings(const EnvLookup& env,
                                                      const ModelOverrides& overrides) {
  const auto value = [&](const std::string& own, std::string_view name) {
    return own.empty() ? Given(env, name) : own;
  };
  EndpointSettings settings{.model = value(overrides.name, "UTU_LLM_MODEL"),
                            .base_url = value(overrides.base_url, "UTU_LLM_BASE_URL"),
                            .temperature = overrides.temperature,
                            .max_tokens = overrides.max_tokens};
  ASSIGN_OR_RETURN(settings.api, ReadApi(value(overrides.type, "UTU_LLM_TYPE")));
  settings.api_key =
      Given(env, overrides.api_key_env.empty() ? "UTU_LLM_API_KEY" : overrides.api_key_env);
  std::vector<std::string> missing;
  if (settings.model.empty()) missing.emplace_back("UTU_LLM_MODEL");
  if (settings.base_url.empty()) missing.emplace_back("UTU_LLM_BASE_URL");
  if (!missing.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("no chat endpoint is known: set the environment variable",
                     missing.size() > 1 ? "s " : " ", absl::StrJoin(missing, " and "),
                     " (and UTU_LLM_API_KEY where the endpoint asks for a key)"));
  }
  while (settings.base_url.ends_with('/')) settings.base_url.pop_back();
  if (UrlOrigin(settings.base_url).empty()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "UTU_LLM_BASE_URL: expected an http(s) URL, got \"", ShownUrl(settings.base_url), "\""));
  }
  return settings;
}

std::unique_ptr<ChatModel> MakeEndpoint(EndpointSettings settings) {
  return std::make_unique<Endpoint>(std::move(settings));
}

}  // namespace flowmesh::agent
