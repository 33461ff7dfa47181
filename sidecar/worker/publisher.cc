#include "sidecar/worker/publisher.h"

#include <utility>

#include "common/log.h"
#include "sidecar/worker/wire.h"

namespace flowmesh::sidecar {

absl::Status RedisPublisher::Refusal(Kind kind) const {
  if (silent_) return absl::CancelledError("this worker id is somebody else's");
  absl::MutexLock lock(&mutex_);
  if ((kind == Kind::kTransaction && transactions_held_) ||
      (kind == Kind::kTaskEvents && task_events_held_)) {
    return absl::UnavailableError("what Redis holds of this worker is not known");
  }
  return absl::OkStatus();
}

void RedisPublisher::Transaction(std::vector<redis::Command> commands,
                                 std::function<void(const absl::Status&)> done) {
  Send(Kind::kTransaction, std::move(commands), std::move(done));
}

void RedisPublisher::Register(std::vector<redis::Command> commands,
                              std::function<void(const absl::Status&)> done) {
  Send(Kind::kRegistration, std::move(commands), std::move(done));
}

void RedisPublisher::Send(Kind kind, std::vector<redis::Command> transaction,
                          std::function<void(const absl::Status&)> done) {
  if (const absl::Status refusal = Refusal(kind); !refusal.ok()) {
    if (done) done(refusal);
    return;
  }
  client_.Post(redis::Transaction(std::move(transaction)),
               [done = std::move(done)](const redis::Replies& replies) {
                 const absl::Status status = redis::TransactionStatus(replies);
                 // A lost connection is told of once, by the client; a refusal is the server's
                 // word.
                 if (absl::IsInternal(status)) LogError("{}", Message(status));
                 if (done) done(status);
               });
}

void RedisPublisher::PublishTaskEvents(const std::vector<std::string>& events,
                                       std::function<void(const ReceiversOrStatus&)> done) {
  if (const absl::Status refusal = Refusal(Kind::kTaskEvents); !refusal.ok()) {
    if (done) done(refusal);
    return;
  }
  std::vector<redis::Command> commands;
  for (const std::string& event : events) commands.push_back({"PUBLISH", kTaskEvents, event});
  client_.Post(commands, [done = std::move(done)](const redis::Replies& replies) {
    if (!replies.ok()) {
      if (done) done(replies.status());
      return;
    }
    std::vector<int64_t> receivers;
    for (const redis::Reply& reply : *replies) {
      if (reply.is_error()) LogError("Redis: PUBLISH {}: {}", kTaskEvents, reply.text);
      receivers.push_back(reply.integer);
    }
    if (done) done(receivers);
  });
}

void RedisPublisher::Hold() {
  absl::MutexLock lock(&mutex_);
  ++holds_;
  task_events_held_ = transactions_held_ = true;
}

uint64_t RedisPublisher::holds() const {
  absl::MutexLock lock(&mutex_);
  return holds_;
}

void RedisPublisher::ReleaseTaskEvents(uint64_t holds) {
  absl::MutexLock lock(&mutex_);
  if (holds == holds_) task_events_held_ = false;
}

void RedisPublisher::ReleaseTransactions(uint64_t holds) {
  absl::MutexLock lock(&mutex_);
  if (holds == holds_) transactions_held_ = false;
}

void NoPublisher::Transaction(std::vector<redis::Command>,
                              std::function<void(const absl::Status&)> done) {
  if (done) done(absl::OkStatus());
}

void NoPublisher::Register(std::vector<redis::Command>,
                           std::function<void(const absl::Status&)> done) {
  if (done) done(absl::OkStatus());
}

void NoPublisher::PublishTaskEvents(const std::vector<std::string>& events,
                                    std::function<void(const ReceiversOrStatus&)> done) {
  if (done) done(std::vector<int64_t>(events.size(), 1));
}

}  // namespace flowmesh::sidecar
