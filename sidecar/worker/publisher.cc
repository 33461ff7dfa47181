#include "sidecar/worker/publisher.h"

#include <utility>

#include "common/log.h"
#include "sidecar/worker/wire.h"

namespace flowmesh::sidecar {
namespace {

absl::Status Silenced() { return absl::CancelledError("this worker id is somebody else's"); }

}  // namespace

void RedisPublisher::Transaction(std::vector<redis::Command> commands,
                                 std::function<void(const absl::Status&)> done) {
  if (silent_) {
    if (done) done(Silenced());
    return;
  }
  client_.Post(redis::Transaction(std::move(commands)),
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
  if (silent_) {
    if (done) done(Silenced());
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

void NoPublisher::Transaction(std::vector<redis::Command>,
                              std::function<void(const absl::Status&)> done) {
  if (done) done(absl::OkStatus());
}

void NoPublisher::PublishTaskEvents(const std::vector<std::string>& events,
                                    std::function<void(const ReceiversOrStatus&)> done) {
  if (done) done(std::vector<int64_t>(events.size(), 1));
}

}  // namespace flowmesh::sidecar
