// A redis-server of the test's own, and an orchestrator's view of it: commands, and a recorder of
// every message on the two event channels.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/json.h"
#include "common/subprocess.h"

namespace flowmesh::testing {

// Real redis-server on a free loopback port and on a unix socket, without persistence; ends with
// the object.
class RedisServer {
 public:
  // `settings` are more words of its command line: {"--tls-port", "7000"}.
  explicit RedisServer(std::vector<std::string> settings = {});
  int port() const { return port_; }
  std::string url() const;
  std::filesystem::path socket() const { return dir_ / "redis.sock"; }

  void Kill();   // as a crash does
  void Start();  // after Kill(): the same port, empty
  void Signal(int signal) { process_->Signal(signal); }

 private:
  // False: the port was taken.
  bool Launch();

  const std::vector<std::string> settings_;
  TempDir dir_;
  int port_ = 0;
  std::optional<Subprocess> process_;
};

// One connection; commands block. Aborts the test on a broken connection.
class RedisPeer {
 public:
  explicit RedisPeer(int port);
  ~RedisPeer();

  // The reply: null, a number, a string, or a list of those; an error reply is {"error": text}.
  Json Command(const std::vector<std::string>& arguments);
  std::string HashField(const std::string& key, const std::string& field);
  // How often clients have run `command`.
  int64_t Calls(const std::string& command);
  // PUBLISH; returns the number of receivers.
  int64_t Publish(const std::string& channel, const Json& message);
  // The same for many at once: they are sent back to back.
  void PublishAll(const std::string& channel, const std::vector<Json>& messages);

 private:
  void Send(const std::vector<std::string>& arguments);
  Json Receive();

  void* context_;
};

// Everything published on `workers.events` and `tasks.events` since it was made.
class EventRecorder {
 public:
  // `on_event` is called with each event, from the recording thread.
  explicit EventRecorder(int port, std::function<void(const Json& event)> on_event = nullptr);
  ~EventRecorder();
  // Unsubscribes; what Redis counts as received here is recorded when this returns.
  void Leave();

  using Predicate = std::function<bool(const Json& event)>;
  // The first recorded event that fits, waiting for it at most `timeout`.
  std::optional<Json> WaitFor(const Predicate& fits, absl::Duration timeout = absl::Seconds(20));
  // TASK_STARTED of a task; false after `timeout`.
  bool WaitForStarted(const std::string& task_id, absl::Duration timeout = absl::Seconds(20));
  // TASK_SUCCEEDED or TASK_FAILED of a task; nothing after `timeout`.
  std::optional<Json> WaitForTerminal(const std::string& task_id,
                                      absl::Duration timeout = absl::Seconds(60));
  std::vector<Json> All(const Predicate& fits = nullptr);
  // With the monotonic time at which each came in.
  std::vector<std::pair<absl::Duration, Json>> Timed(const Predicate& fits);

 private:
  void Listen();

  const std::function<void(const Json& event)> on_event_;
  void* context_;
  absl::Mutex mutex_;
  std::vector<Json> events_ ABSL_GUARDED_BY(mutex_);
  std::vector<absl::Duration> arrivals_ ABSL_GUARDED_BY(mutex_);  // of events_
  std::thread thread_;
};

}  // namespace flowmesh::testing
