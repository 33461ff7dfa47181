#include "tests/integration/redis_peer.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <hiredis/hiredis.h>
#include <sys/socket.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "tests/integration/eventually.h"

namespace flowmesh::testing {
namespace {

// Null while nobody answers.
redisContext* TryConnect(int port) {
  redisContext* context = redisConnectWithTimeout("127.0.0.1", port, timeval{2, 0});
  if (context == nullptr || context->err == 0) return context;
  redisFree(context);
  return nullptr;
}

redisContext* Connect(int port) {
  redisContext* context = nullptr;
  if (Eventually([&] { return (context = TryConnect(port)) != nullptr; })) return context;
  ADD_FAILURE() << "redis-server on port " << port << " does not answer";
  std::abort();
}

Json ToJson(const redisReply* reply) {
  switch (reply->type) {
    case REDIS_REPLY_INTEGER:
      return reply->integer;
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      return std::string(reply->str, reply->len);
    case REDIS_REPLY_ARRAY: {
      Json list = Json::array();
      for (size_t i = 0; i < reply->elements; ++i) list.push_back(ToJson(reply->element[i]));
      return list;
    }
    case REDIS_REPLY_ERROR:
      return {{"error", std::string(reply->str, reply->len)}};
    default:
      return nullptr;
  }
}

}  // namespace

RedisServer::RedisServer(std::vector<std::string> settings) : settings_(std::move(settings)) {
  // Between finding a free port and binding it another process may take it: then try the next one.
  for (int attempt = 0; attempt < 5; ++attempt) {
    port_ = FreeLoopbackPort().value();
    if (Launch()) return;
  }
  ADD_FAILURE() << "redis-server does not start: " << ReadFile(dir_ / "redis.log").value_or("");
  std::abort();
}

bool RedisServer::Launch() {
  SubprocessOptions options;
  // It dies with a test that is aborted or runs out of time.
  options.argv = {
      "setpriv",      "--pdeathsig", "KILL",         "redis-server", "--port", absl::StrCat(port_),
      "--bind",       "127.0.0.1",   "--unixsocket", socket(),       "--save", "",
      "--appendonly", "no",          "--dir",        dir_.path()};
  options.argv.insert(options.argv.end(), settings_.begin(), settings_.end());
  const UniqueFd log(
      ::open((dir_ / "redis.log").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  process_ = Subprocess::Start(options).value();
  // Somebody else's server may answer on the port instead: the answer must come from this process.
  const std::string ours = absl::StrCat("process_id:", process_->pid(), "\r");
  const auto answers = [&] {
    redisContext* context = TryConnect(port_);
    if (context == nullptr) return false;
    auto* reply = static_cast<redisReply*>(redisCommand(context, "INFO server"));
    const bool yes = reply != nullptr && reply->type == REDIS_REPLY_STRING &&
                     std::string(reply->str, reply->len).find(ours) != std::string::npos;
    freeReplyObject(reply);
    redisFree(context);
    return yes;
  };
  bool up = false;
  Eventually([&] { return (up = answers()) || process_->Poll().has_value(); });
  return up;
}

void RedisServer::Kill() { process_->Terminate(absl::ZeroDuration()); }

void RedisServer::Start() {
  if (Launch()) return;
  ADD_FAILURE() << "redis-server does not come back: " << ReadFile(dir_ / "redis.log").value_or("");
  std::abort();
}

std::string RedisServer::url() const { return absl::StrCat("redis://127.0.0.1:", port_, "/0"); }

RedisPeer::RedisPeer(int port) : context_(Connect(port)) {}

RedisPeer::~RedisPeer() { redisFree(static_cast<redisContext*>(context_)); }

void RedisPeer::Send(const std::vector<std::string>& arguments) {
  std::vector<const char*> pointers;
  std::vector<size_t> sizes;
  for (const std::string& argument : arguments) {
    pointers.push_back(argument.data());
    sizes.push_back(argument.size());
  }
  redisAppendCommandArgv(static_cast<redisContext*>(context_), static_cast<int>(pointers.size()),
                         pointers.data(), sizes.data());
}

Json RedisPeer::Receive() {
  void* reply = nullptr;
  if (redisGetReply(static_cast<redisContext*>(context_), &reply) != REDIS_OK) {
    ADD_FAILURE() << "redis: " << static_cast<redisContext*>(context_)->errstr;
    std::abort();
  }
  Json result = ToJson(static_cast<redisReply*>(reply));
  freeReplyObject(reply);
  return result;
}

Json RedisPeer::Command(const std::vector<std::string>& arguments) {
  Send(arguments);
  return Receive();
}

std::string RedisPeer::HashField(const std::string& key, const std::string& field) {
  const Json value = Command({"HGET", key, field});
  return value.is_string() ? value.get<std::string>() : "";
}

int64_t RedisPeer::Calls(const std::string& command) {
  const std::string stats = Command({"INFO", "commandstats"}).get<std::string>();
  const std::string label = absl::StrCat("cmdstat_", command, ":calls=");
  const size_t at = stats.find(label);
  return at == std::string::npos ? 0 : std::atoll(stats.c_str() + at + label.size());
}

int64_t RedisPeer::Publish(const std::string& channel, const Json& message) {
  return Command({"PUBLISH", channel, DumpJson(message)}).get<int64_t>();
}

void RedisPeer::PublishAll(const std::string& channel, const std::vector<Json>& messages) {
  for (const Json& message : messages) Send({"PUBLISH", channel, DumpJson(message)});
  for (size_t i = 0; i < messages.size(); ++i) Receive();
}

EventRecorder::EventRecorder(int port, std::function<void(const Json& event)> on_event)
    : on_event_(std::move(on_event)), context_(Connect(port)) {
  auto* context = static_cast<redisContext*>(context_);
  auto* reply =
      static_cast<redisReply*>(redisCommand(context, "SUBSCRIBE workers.events tasks.events"));
  freeReplyObject(reply);
  thread_ = std::thread([this] { Listen(); });
}

EventRecorder::~EventRecorder() {
  ::shutdown(static_cast<redisContext*>(context_)->fd, SHUT_RDWR);
  if (thread_.joinable()) thread_.join();
  redisFree(static_cast<redisContext*>(context_));
}

void EventRecorder::Leave() {
  // Past hiredis, whose context is the thread's.
  constexpr std::string_view kCommand = "UNSUBSCRIBE\r\n";
  (void)::send(static_cast<redisContext*>(context_)->fd, kCommand.data(), kCommand.size(),
               MSG_NOSIGNAL);
  thread_.join();
}

void EventRecorder::Listen() {
  redisReply* reply = nullptr;
  while (redisGetReply(static_cast<redisContext*>(context_), reinterpret_cast<void**>(&reply)) ==
         REDIS_OK) {
    const absl::Duration arrived = Clock::Real().Monotonic();
    const Json message = ToJson(reply);
    freeReplyObject(reply);
    if (!message.is_array() || message.size() != 3) continue;
    if (message[0] == "unsubscribe" && message[2] == 0) return;
    if (message[0] != "message") continue;
    absl::StatusOr<Json> event = ParseJson(message[2].get<std::string>());
    if (!event.ok()) {
      ADD_FAILURE() << "an event that is not JSON: " << message[2];
      continue;
    }
    if (on_event_) on_event_(*event);
    absl::MutexLock lock(&mutex_);
    events_.push_back(*std::move(event));
    arrivals_.push_back(arrived);
  }
}

std::optional<Json> EventRecorder::WaitFor(const Predicate& fits, absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  size_t seen = 0;
  std::optional<Json> found;
  auto look = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (; seen < events_.size() && !found; ++seen) {
      if (fits(events_[seen])) found = events_[seen];
    }
    return found.has_value();
  };
  mutex_.AwaitWithTimeout(absl::Condition(&look), timeout);
  return found;
}

bool EventRecorder::WaitForStarted(const std::string& task_id, absl::Duration timeout) {
  const auto fits = [&](const Json& event) {
    return event.value("task_id", "") == task_id && event["type"] == "TASK_STARTED";
  };
  return WaitFor(fits, timeout).has_value();
}

std::optional<Json> EventRecorder::WaitForTerminal(const std::string& task_id,
                                                   absl::Duration timeout) {
  return WaitFor(
      [&](const Json& event) {
        return event.value("task_id", "") == task_id &&
               (event["type"] == "TASK_SUCCEEDED" || event["type"] == "TASK_FAILED");
      },
      timeout);
}

std::vector<Json> EventRecorder::All(const Predicate& fits) {
  absl::MutexLock lock(&mutex_);
  std::vector<Json> found;
  for (const Json& event : events_) {
    if (!fits || fits(event)) found.push_back(event);
  }
  return found;
}

std::vector<std::pair<absl::Duration, Json>> EventRecorder::Timed(const Predicate& fits) {
  absl::MutexLock lock(&mutex_);
  std::vector<std::pair<absl::Duration, Json>> found;
  for (size_t i = 0; i < events_.size(); ++i) {
    if (fits(events_[i])) found.emplace_back(arrivals_[i], events_[i]);
  }
  return found;
}

}  // namespace flowmesh::testing
