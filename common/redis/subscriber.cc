#include "common/redis/subscriber.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/redis/sentinel.h"

namespace flowmesh::redis {
namespace {

absl::Duration Now() { return Clock::Real().Monotonic(); }

void Raise(const UniqueFd& event) {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event.get(), &one, sizeof(one));
}

void Clear(const UniqueFd& event) {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(event.get(), &count, sizeof(count));
}

}  // namespace

Subscriber::Subscriber(Address address, std::vector<std::string> channels,
                       SubscriberOptions options, OnMessage on_message, OnAlive on_alive)
    : address_(std::move(address)),
      channels_(std::move(channels)),
      options_(options),
      on_message_(std::move(on_message)),
      on_alive_(std::move(on_alive)),
      stop_(::eventfd(0, EFD_CLOEXEC)),
      moved_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      watch_(std::make_unique<MasterWatch>(address_, [this] { Raise(moved_); })),
      thread_([this] { Loop(); }) {}

Subscriber::~Subscriber() {
  Raise(stop_);
  thread_.join();
}

bool Subscriber::Pause(absl::Duration duration) const {
  pollfd waits[] = {{stop_.get(), POLLIN, 0}, {moved_.get(), POLLIN, 0}};
  ::poll(waits, 2, PollMilliseconds(duration));
  return waits[0].revents == 0;
}

void Subscriber::Loop() {
  ReconnectPause pause;
  do {
    Clear(moved_);  // what is opened now is where it has moved to
    ConnectError error;
    const std::unique_ptr<Connection> connection =
        Connection::Open(address_, options_.connect_timeout, error);
    if (connection == nullptr) {
      TellDead(Message(error.status));
      continue;
    }
    confirmed_ = 0;
    const absl::Status ended = Listen(*connection);
    if (ended.ok()) return;
    if (confirmed_ == channels_.size()) pause.Reset();
    TellDead(Message(ended));
  } while (Pause(pause.Next()));
}

void Subscriber::TellDead(const std::string& reason) {
  if (std::exchange(told_, reason) != reason) on_alive_(false, reason);
}

absl::Status Subscriber::Send(Connection& connection, const Command& command) {
  std::string bytes;
  AppendCommand(command, bytes);
  // A few bytes on a connection that carries nothing else of ours: they fit, or it is dead.
  ASSIGN_OR_RETURN(const size_t sent, connection.Write(bytes));
  if (sent == bytes.size()) return absl::OkStatus();
  return absl::UnavailableError("the connection takes no bytes");
}

absl::Status Subscriber::Listen(Connection& connection) {
  Command subscribe = {"SUBSCRIBE"};
  subscribe.insert(subscribe.end(), channels_.begin(), channels_.end());
  RETURN_IF_ERROR(Send(connection, subscribe));
  absl::Duration heard = Now();
  absl::Duration pinged = heard;
  while (true) {
    const absl::Duration due =
        std::min(pinged + options_.ping_interval, heard + options_.deaf_limit);
    pollfd waits[] = {
        {connection.fd(), POLLIN, 0}, {stop_.get(), POLLIN, 0}, {moved_.get(), POLLIN, 0}};
    ::poll(waits, 3, PollMilliseconds(due - Now()));
    if (waits[1].revents != 0) return absl::OkStatus();
    if (waits[2].revents != 0) return absl::UnavailableError("the master has moved");
    const absl::Duration now = Now();
    if (waits[0].revents != 0) {
      heard = now;
      RETURN_IF_ERROR(connection.Read());
      while (true) {
        ASSIGN_OR_RETURN(const std::optional<Reply> reply, connection.Next());
        if (!reply) break;
        RETURN_IF_ERROR(Handle(*reply));
      }
    } else if (now - heard >= options_.deaf_limit) {
      return absl::UnavailableError(absl::StrCat("silent for ", absl::FormatDuration(now - heard)));
    }
    if (now - pinged >= options_.ping_interval) {
      pinged = now;
      RETURN_IF_ERROR(Send(connection, {"PING"}));
    }
  }
}

absl::Status Subscriber::Handle(const Reply& reply) {
  if (reply.is_error()) return absl::UnavailableError(reply.text);
  if (reply.elements.size() < 3) return absl::OkStatus();  // `pong`
  const std::string& kind = reply.elements[0].text;
  if (kind == "message") {
    on_message_(reply.elements[1].text, reply.elements[2].text);
  } else if (kind == "subscribe") {
    confirmed_ = static_cast<size_t>(reply.elements[2].integer);
    if (confirmed_ == channels_.size()) {
      told_.clear();
      on_alive_(true, "");
    }
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::redis
