// A blocking Redis connection that mends itself, and a subscriber thread, both over hiredis.
#pragma once

#include <hiredis/hiredis.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "common/files.h"
#include "common/status.h"

namespace flowmesh::orchestrator {

struct RedisAddress {
  std::string host;
  int port = 6379;
  std::string unix_path;  // instead of host and port
  std::string user;
  std::string password;
  int database = 0;

  std::string ToString() const;  // without the password
};

// `redis://[user][:password@]host[:port][/db]`, `unix://[user:password@]/path[?db=n]`.
// InvalidArgument, without the password; `rediss://` is refused: hiredis has no TLS here.
absl::StatusOr<RedisAddress> ParseRedisUrl(std::string_view url);

struct FreeRedisReply {
  void operator()(redisReply* reply) const { freeReplyObject(reply); }
};
using RedisReply = std::unique_ptr<redisReply, FreeRedisReply>;
using RedisCommand = std::vector<std::string>;

// The bytes of a string reply; empty for nil and other types.
std::string ReplyText(const redisReply& reply);
// Field and value pairs of a flat array reply.
std::map<std::string, std::string> ReplyMap(const redisReply& reply);

// Thread-safe; one command at a time. A broken connection is dropped, and the next call connects
// anew.
class Redis {
 public:
  explicit Redis(RedisAddress address) : address_(std::move(address)) {}

  // Unavailable: no connection, or it broke (the command may have been run). Internal: the server's
  // error reply.
  absl::StatusOr<RedisReply> Run(const RedisCommand& command);
  // All in one round trip; one reply each.
  absl::StatusOr<std::vector<RedisReply>> Pipeline(const std::vector<RedisCommand>& commands);
  // MULTI ... EXEC.
  absl::Status Transaction(const std::vector<RedisCommand>& commands);

 private:
  absl::Status Connect() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const RedisAddress address_;
  absl::Mutex mutex_;
  std::unique_ptr<redisContext, void (*)(redisContext*)> context_ ABSL_GUARDED_BY(mutex_){
      nullptr, redisFree};
};

// Listens on channels from its own thread until destroyed; reconnects with back-off for ever.
class RedisSubscriber {
 public:
  using OnMessage = std::function<void(std::string_view channel, std::string_view message)>;

  // `on_message` runs on the subscriber's thread.
  RedisSubscriber(RedisAddress address, std::vector<std::string> channels, OnMessage on_message);
  ~RedisSubscriber();

  // Waits until the server has confirmed every channel; false after `timeout`.
  bool WaitSubscribed(absl::Duration timeout);

 private:
  void Loop();
  absl::Status Listen();
  bool Sleep(absl::Duration duration);  // false when stopping
  void Handle(const redisReply& reply);
  void SetConfirmed(size_t count);

  const RedisAddress address_;
  const std::vector<std::string> channels_;
  const OnMessage on_message_;
  UniqueFd stop_;  // an eventfd
  absl::Mutex mutex_;
  size_t confirmed_ ABSL_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

}  // namespace flowmesh::orchestrator
