#include "common/redis/client.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "common/clock.h"

namespace flowmesh::redis {
namespace {

absl::Duration Now() { return Clock::Real().Monotonic(); }

}  // namespace

Client::Client(Address address, ClientOptions options)
    : address_(std::move(address)),
      options_(std::move(options)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)),
      watch_(std::make_unique<MasterWatch>(address_, [this] { OnMoved(); })),
      thread_([this] { Loop(); }) {}

Client::~Client() {
  {
    absl::MutexLock lock(&mutex_);
    stopping_ = true;
  }
  Wake();
  thread_.join();
}

void Client::Wake() const {
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

// Unread, it would end each wait that follows.
void Client::TakeWakeUp() const {
  uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(wake_.get(), &count, sizeof(count));
}

State Client::state() const {
  absl::MutexLock lock(&mutex_);
  return state_;
}

uint64_t Client::reconnects() const {
  absl::MutexLock lock(&mutex_);
  return reconnects_;
}

void Client::Post(const std::vector<Command>& commands, Done done) {
  absl::Status refused;
  if (commands.empty()) {  // nothing would ever answer it
    if (done) done(std::vector<Reply>());
    return;
  }
  {
    absl::MutexLock lock(&mutex_);
    if (state_ != State::kReady) {
      refused = absl::UnavailableError("no connection to Redis");
    } else if (waiting_.size() >= options_.max_waiting) {
      refused = absl::ResourceExhaustedError("too many commands wait for Redis");
    } else {
      const bool was_empty = outgoing_.empty();
      for (const Command& command : commands) AppendCommand(command, outgoing_);
      Waiting& waiting = waiting_.emplace_back();
      waiting.replies = commands.size();
      waiting.posted = Now();
      waiting.done = std::move(done);
      if (was_empty) Wake();
    }
  }
  if (!refused.ok() && done) done(refused);
}

Replies Client::Run(const std::vector<Command>& commands, absl::Duration timeout) {
  struct Answer {
    absl::Mutex mutex;
    std::optional<Replies> replies ABSL_GUARDED_BY(mutex);
    bool Arrived() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex) { return replies.has_value(); }
  };
  const auto answer = std::make_shared<Answer>();
  Post(commands, [answer](const Replies& replies) {
    absl::MutexLock lock(&answer->mutex);
    answer->replies = replies;
  });
  absl::MutexLock lock(&answer->mutex);
  if (!Clock::Real().Await(answer->mutex, absl::Condition(answer.get(), &Answer::Arrived),
                           timeout)) {
    return absl::DeadlineExceededError("no answer from Redis in time");
  }
  return *std::move(answer->replies);
}

absl::StatusOr<Reply> Client::Ask(const Command& command, absl::Duration timeout) {
  ASSIGN_OR_RETURN(std::vector<Reply> replies, WithoutErrors(Run({command}, timeout)));
  return std::move(replies.front());
}

void Client::SetState(State state, const std::string& reason) {
  {
    absl::MutexLock lock(&mutex_);
    if (state_ == state) return;
    const bool was_ready = std::exchange(state_, state) == State::kReady;
    if (stopping_) return;  // an end is no loss
    if (was_ready) ++reconnects_;
  }
  if (options_.on_state) options_.on_state(state, reason);
}

void Client::FailAll(const absl::Status& why) {
  std::deque<Waiting> failed;
  {
    absl::MutexLock lock(&mutex_);
    failed.swap(waiting_);
    outgoing_.clear();
  }
  for (const Waiting& waiting : failed) {
    if (waiting.done) waiting.done(why);
  }
}

void Client::OnMoved() {
  {
    absl::MutexLock lock(&mutex_);
    moved_ = true;
  }
  Wake();
}

bool Client::Pause(absl::Duration duration) {
  const absl::Duration deadline = Now() + duration;
  while (true) {
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return false;
      if (moved_) return true;
    }
    const absl::Duration left = deadline - Now();
    if (left <= absl::ZeroDuration()) return true;
    pollfd wait{wake_.get(), POLLIN, 0};
    ::poll(&wait, 1, PollMilliseconds(left));
    if (wait.revents != 0) TakeWakeUp();
  }
}

void Client::Loop() {
  ReconnectPause pause;
  do {
    {
      absl::MutexLock lock(&mutex_);
      moved_ = false;  // what is opened now is where it has moved to
    }
    ConnectError error;
    const std::unique_ptr<Connection> connection =
        Connection::Open(address_, options_.connect_timeout, error);
    if (connection != nullptr) {
      pause.Reset();
      SetState(State::kReady, "");
      error.state = State::kLost;
      error.status = Serve(*connection, error.state);
    }
    // First nobody may post any more, then everybody is told.
    SetState(error.state, Message(error.status));
    FailAll(error.status);
  } while (Pause(pause.Next()));
}

absl::Status Client::Serve(Connection& connection, State& state) {
  std::string unsent;
  absl::Duration heard = Now();
  while (true) {
    absl::Duration oldest = heard;
    bool idle = true;
    {
      absl::MutexLock lock(&mutex_);
      if (stopping_) return absl::UnavailableError("the client is stopping");
      if (moved_) return absl::UnavailableError("the master has moved");
      if (unsent.empty()) unsent.swap(outgoing_);
      idle = waiting_.empty();
      if (!idle) oldest = waiting_.front().posted;
    }
    RETURN_IF_ERROR(Send(connection, unsent));
    // The replies to a long batch are signs of life, however old the batch is.
    const absl::Duration due =
        idle ? heard + options_.idle_ping : std::max(oldest, heard) + options_.command_timeout;
    pollfd waits[] = {
        {connection.fd(), static_cast<short>(unsent.empty() ? POLLIN : POLLIN | POLLOUT), 0},
        {wake_.get(), POLLIN, 0}};
    ::poll(waits, 2, PollMilliseconds(due - Now()));
    if (waits[1].revents != 0) TakeWakeUp();
    const absl::Duration now = Now();
    if ((waits[0].revents & ~POLLOUT) != 0) {
      heard = now;
      RETURN_IF_ERROR(Receive(connection, state));
    } else if (now >= due) {
      if (!idle) return absl::UnavailableError("the server does not answer");
      Post({{"PING"}});
    }
  }
}

absl::Status Client::Send(Connection& connection, std::string& unsent) {
  size_t sent = 0;
  while (sent < unsent.size()) {
    ASSIGN_OR_RETURN(const size_t size, connection.Write(std::string_view(unsent).substr(sent)));
    if (size == 0) break;
    sent += size;
  }
  unsent.erase(0, sent);
  return absl::OkStatus();
}

absl::Status Client::Receive(Connection& connection, State& state) {
  RETURN_IF_ERROR(connection.Read());
  absl::Status turned_away;
  while (true) {
    ASSIGN_OR_RETURN(std::optional<Reply> reply, connection.Next());
    if (!reply) return turned_away;
    if (reply->is_error()) {
      // A missing permission is the command's own; the others are true of every command to come.
      const std::optional<State> told = StateOfError(reply->text);
      if (told && *told != State::kNoPermission) {
        state = *told;
        turned_away = absl::UnavailableError(reply->text);
      }
    }
    Waiting finished;
    {
      absl::MutexLock lock(&mutex_);
      if (waiting_.empty())
        return absl::UnavailableError("the server sent more than was asked for");
      Waiting& front = waiting_.front();
      front.got.push_back(*std::move(reply));
      if (front.got.size() < front.replies) continue;
      finished = std::move(front);
      waiting_.pop_front();
    }
    if (finished.done) finished.done(std::move(finished.got));
  }
}

}  // namespace flowmesh::redis
