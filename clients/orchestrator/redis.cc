#include "clients/orchestrator/redis.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/log.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

constexpr timeval kIoTimeout = {.tv_sec = 5, .tv_usec = 0};
constexpr absl::Duration kPingInterval = absl::Seconds(10);
constexpr absl::Duration kDeafLimit = absl::Seconds(20);

using Context = std::unique_ptr<redisContext, void (*)(redisContext*)>;

void Append(redisContext* context, const RedisCommand& command) {
  std::vector<const char*> words;
  std::vector<size_t> sizes;
  for (const std::string& word : command) {
    words.push_back(word.data());
    sizes.push_back(word.size());
  }
  redisAppendCommandArgv(context, static_cast<int>(words.size()), words.data(), sizes.data());
}

absl::StatusOr<RedisReply> ReadReply(redisContext* context) {
  void* raw = nullptr;
  if (redisGetReply(context, &raw) != REDIS_OK) {
    return absl::UnavailableError(absl::StrCat("Redis: ", context->errstr));
  }
  RedisReply reply(static_cast<redisReply*>(raw));
  if (reply->type == REDIS_REPLY_ERROR) {
    return absl::InternalError(absl::StrCat("Redis: ", ReplyText(*reply)));
  }
  return reply;
}

absl::StatusOr<Context> Open(const RedisAddress& address) {
  Context context(address.unix_path.empty()
                      ? redisConnectWithTimeout(address.host.c_str(), address.port, kIoTimeout)
                      : redisConnectUnixWithTimeout(address.unix_path.c_str(), kIoTimeout),
                  redisFree);
  if (context == nullptr) return absl::UnavailableError("Redis: no memory for a connection");
  if (context->err != 0) {
    return absl::UnavailableError(
        absl::StrCat("Redis at ", address.ToString(), ": ", context->errstr));
  }
  redisSetTimeout(context.get(), kIoTimeout);
  std::vector<RedisCommand> greeting;
  if (!address.password.empty()) {
    greeting.push_back(address.user.empty() ? RedisCommand{"AUTH", address.password}
                                            : RedisCommand{"AUTH", address.user, address.password});
  }
  if (address.database != 0) greeting.push_back({"SELECT", absl::StrCat(address.database)});
  for (const RedisCommand& command : greeting) {
    Append(context.get(), command);
    RETURN_IF_ERROR(ReadReply(context.get()).status());
  }
  return context;
}

// Whether the server closed an idle connection: nothing may be readable on one.
bool IsStale(const redisContext& context) {
  pollfd wait{context.fd, POLLIN | POLLRDHUP, 0};
  return ::poll(&wait, 1, 0) != 0;
}

absl::StatusOr<std::string> PercentDecode(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      out += text[i];
      continue;
    }
    int code = 0;
    if (i + 2 >= text.size() || !absl::SimpleHexAtoi(ToAbsl(text.substr(i + 1, 2)), &code)) {
      return absl::InvalidArgumentError("a bad percent escape");
    }
    out += static_cast<char>(code);
    i += 2;
  }
  return out;
}

absl::Status ParseCredentials(std::string_view text, RedisAddress& address) {
  const size_t colon = text.find(':');
  ASSIGN_OR_RETURN(address.user, PercentDecode(text.substr(0, colon)));
  if (colon != std::string_view::npos) {
    ASSIGN_OR_RETURN(address.password, PercentDecode(text.substr(colon + 1)));
  }
  return absl::OkStatus();
}

absl::Status ParseDatabase(std::string_view text, RedisAddress& address) {
  if (text.empty()) return absl::OkStatus();
  if (!absl::SimpleAtoi(ToAbsl(text), &address.database) || address.database < 0) {
    return absl::InvalidArgumentError("a database number that is no integer");
  }
  return absl::OkStatus();
}

absl::Status ParseHostAndPort(std::string_view text, RedisAddress& address) {
  const size_t bracket = text.find(']');
  const size_t colon =
      text.find(':', bracket == std::string_view::npos || text.front() != '[' ? 0 : bracket);
  std::string_view host = text.substr(0, colon);
  if (host.size() >= 2 && host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  }
  address.host = host.empty() ? "localhost" : std::string(host);
  if (colon == std::string_view::npos) return absl::OkStatus();
  if (!absl::SimpleAtoi(ToAbsl(text.substr(colon + 1)), &address.port) || address.port < 1 ||
      address.port > 65535) {
    return absl::InvalidArgumentError("a bad port");
  }
  return absl::OkStatus();
}

absl::StatusOr<RedisAddress> ParseParts(std::string_view url) {
  RedisAddress address;
  const size_t scheme_end = url.find("://");
  if (scheme_end == std::string_view::npos) return absl::InvalidArgumentError("no scheme");
  const std::string scheme = ToLower(url.substr(0, scheme_end));
  std::string_view rest = url.substr(scheme_end + 3);
  if (scheme != "redis" && scheme != "unix") {
    return absl::InvalidArgumentError(absl::StrCat("the scheme \"", scheme, "\""));
  }
  if (const size_t query = rest.find('?'); query != std::string_view::npos) {
    const std::string_view parameters = rest.substr(query + 1);
    rest = rest.substr(0, query);
    if (parameters.substr(0, 3) == "db=")
      RETURN_IF_ERROR(ParseDatabase(parameters.substr(3), address));
  }
  if (const size_t at = rest.rfind('@'); at != std::string_view::npos) {
    RETURN_IF_ERROR(ParseCredentials(rest.substr(0, at), address));
    rest = rest.substr(at + 1);
  }
  const size_t slash = rest.find('/');
  if (scheme == "unix") {
    if (slash != 0) return absl::InvalidArgumentError("a socket path that is not absolute");
    ASSIGN_OR_RETURN(address.unix_path, PercentDecode(rest));
    return address;
  }
  if (slash != std::string_view::npos) {
    RETURN_IF_ERROR(ParseDatabase(rest.substr(slash + 1), address));
  }
  RETURN_IF_ERROR(ParseHostAndPort(rest.substr(0, slash), address));
  return address;
}

}  // namespace

std::string RedisAddress::ToString() const {
  const std::string where = unix_path.empty() ? absl::StrCat(host, ":", port) : unix_path;
  return database == 0 ? where : absl::StrCat(where, " db ", database);
}

absl::StatusOr<RedisAddress> ParseRedisUrl(std::string_view url) {
  absl::StatusOr<RedisAddress> address = ParseParts(Trim(url));
  if (address.ok()) return address;
  return absl::InvalidArgumentError(
      absl::StrCat("expected redis://[user:password@]host[:port][/db] or unix:///path, got ",
                   address.status().message()));
}

std::string ReplyText(const redisReply& reply) {
  switch (reply.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
    case REDIS_REPLY_ERROR:
      return std::string(reply.str, reply.len);
    default:
      return "";
  }
}

std::map<std::string, std::string> ReplyMap(const redisReply& reply) {
  std::map<std::string, std::string> map;
  if (reply.type != REDIS_REPLY_ARRAY) return map;
  for (size_t i = 0; i + 1 < reply.elements; i += 2) {
    map[ReplyText(*reply.element[i])] = ReplyText(*reply.element[i + 1]);
  }
  return map;
}

absl::Status Redis::Connect() {
  if (context_ != nullptr && !IsStale(*context_)) return absl::OkStatus();
  context_.reset();
  ASSIGN_OR_RETURN(context_, Open(address_));
  return absl::OkStatus();
}

absl::StatusOr<RedisReply> Redis::Run(const RedisCommand& command) {
  ASSIGN_OR_RETURN(std::vector<RedisReply> replies, Pipeline({command}));
  return std::move(replies.front());
}

absl::StatusOr<std::vector<RedisReply>> Redis::Pipeline(const std::vector<RedisCommand>& commands) {
  absl::MutexLock lock(&mutex_);
  RETURN_IF_ERROR(Connect());
  for (const RedisCommand& command : commands) Append(context_.get(), command);
  std::vector<RedisReply> replies;
  absl::Status refused;
  for (size_t i = 0; i < commands.size(); ++i) {
    absl::StatusOr<RedisReply> reply = ReadReply(context_.get());
    if (absl::IsUnavailable(reply.status())) {
      context_.reset();
      return reply.status();
    }
    // An error reply belongs to one command; the others' replies must be read all the same.
    if (!reply.ok()) {
      if (refused.ok()) refused = reply.status();
      continue;
    }
    replies.push_back(*std::move(reply));
  }
  if (!refused.ok()) return refused;
  return replies;
}

absl::Status Redis::Transaction(const std::vector<RedisCommand>& commands) {
  std::vector<RedisCommand> all = {{"MULTI"}};
  all.insert(all.end(), commands.begin(), commands.end());
  all.push_back({"EXEC"});
  return Pipeline(all).status();
}

RedisSubscriber::RedisSubscriber(RedisAddress address, std::vector<std::string> channels,
                                 OnMessage on_message)
    : address_(std::move(address)),
      channels_(std::move(channels)),
      on_message_(std::move(on_message)),
      stop_(::eventfd(0, EFD_CLOEXEC)),
      thread_([this] { Loop(); }) {}

RedisSubscriber::~RedisSubscriber() {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(stop_.get(), &one, sizeof(one));
  thread_.join();
}

bool RedisSubscriber::WaitSubscribed(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  const auto all = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    return confirmed_ >= channels_.size();
  };
  return mutex_.AwaitWithTimeout(absl::Condition(&all), timeout);
}

void RedisSubscriber::SetConfirmed(size_t count) {
  absl::MutexLock lock(&mutex_);
  confirmed_ = count;
}

bool RedisSubscriber::Sleep(absl::Duration duration) {
  pollfd wait{stop_.get(), POLLIN, 0};
  return ::poll(&wait, 1, static_cast<int>(absl::ToInt64Milliseconds(duration))) == 0;
}

void RedisSubscriber::Loop() {
  absl::Duration pause = absl::Milliseconds(100);
  while (Sleep(absl::ZeroDuration())) {
    const absl::Duration began = Clock::Real().Monotonic();
    const absl::Status status = Listen();
    SetConfirmed(0);
    if (status.ok()) return;
    LogWarning("event subscription lost: {}", Message(status));
    if (Clock::Real().Monotonic() - began > kPingInterval) pause = absl::Milliseconds(100);
    if (!Sleep(pause)) return;
    pause = std::min(pause * 2, absl::Seconds(5));
  }
}

void RedisSubscriber::Handle(const redisReply& reply) {
  if (reply.type != REDIS_REPLY_ARRAY || reply.elements < 3) return;  // `pong`
  const std::string kind = ReplyText(*reply.element[0]);
  if (kind == "subscribe") SetConfirmed(static_cast<size_t>(reply.element[2]->integer));
  if (kind == "message") {
    on_message_(ReplyText(*reply.element[1]), ReplyText(*reply.element[2]));
  }
}

// Returns OK only when asked to stop.
absl::Status RedisSubscriber::Listen() {
  ASSIGN_OR_RETURN(const Context context, Open(address_));
  RedisCommand subscribe = {"SUBSCRIBE"};
  subscribe.insert(subscribe.end(), channels_.begin(), channels_.end());
  Append(context.get(), subscribe);
  absl::Duration heard = Clock::Real().Monotonic();
  absl::Duration pinged = heard;
  while (true) {
    int done = 0;
    while (done == 0) {
      if (redisBufferWrite(context.get(), &done) != REDIS_OK) {
        return absl::UnavailableError(context->errstr);
      }
    }
    pollfd waits[] = {{context->fd, POLLIN, 0}, {stop_.get(), POLLIN, 0}};
    ::poll(waits, 2, 1000);
    if (waits[1].revents != 0) return absl::OkStatus();
    const absl::Duration now = Clock::Real().Monotonic();
    if (waits[0].revents != 0) {
      heard = now;
      if (redisBufferRead(context.get()) != REDIS_OK)
        return absl::UnavailableError(context->errstr);
      while (true) {
        void* raw = nullptr;
        if (redisGetReplyFromReader(context.get(), &raw) != REDIS_OK) {
          return absl::UnavailableError(context->errstr);
        }
        if (raw == nullptr) break;
        const RedisReply reply(static_cast<redisReply*>(raw));
        if (reply->type == REDIS_REPLY_ERROR) return absl::UnavailableError(ReplyText(*reply));
        Handle(*reply);
      }
    }
    if (now - heard > kDeafLimit) return absl::UnavailableError("no answer to PING");
    if (now - pinged > kPingInterval) {
      Append(context.get(), {"PING"});
      pinged = now;
    }
  }
}

}  // namespace flowmesh::orchestrator
