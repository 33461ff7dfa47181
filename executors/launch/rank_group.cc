#include "executors/launch/rank_group.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/log.h"
#include "executors/launch/shared_memory.h"

namespace flowmesh::executor {
namespace {

constexpr size_t kReadBytes = 64 << 10;
// Reads per descriptor and round, so that a talkative rank cannot keep the others waiting.
constexpr int kReadsPerRound = 16;
// A rank that closes its socket is about to end; one that does not end within this time is ended.
constexpr absl::Duration kCloseGrace = absl::Seconds(2);
// What SIGKILL leaves of a process group is gone within moments.
constexpr absl::Duration kRemainsTimeout = absl::Seconds(2);

}  // namespace

std::string RankDeath::ToString() const {
  if (!complaint.empty()) return absl::StrCat("rank ", rank, " ", complaint, " and was ended");
  std::string text = absl::StrCat("rank ", rank, " died: ", status.ToString());
  if (status.signal == SIGKILL) {
    absl::StrAppend(&text, ", most often the system's answer to running out of memory");
  } else if (status.ok()) {
    absl::StrAppend(&text, " before its work was done");
  }
  return text;
}

// The lock of the group guards `outbox*`, `is_ready` and `answer`; the rest is the watching
// thread's.
struct RankGroup::Member {
  Member(int rank, int local_rank, RankProcess process, const OutputLogLimits& limits)
      : rank(rank), local_rank(local_rank), process(std::move(process)), output(limits) {}

  const int rank;
  const int local_rank;
  RankProcess process;
  FrameDecoder decoder;
  OutputLog output;
  std::string complaint;  // why we end it, when it is the reason
  bool killed = false;    // by us
  bool reaped = false;

  std::string outbox;
  size_t outbox_sent = 0;  // bytes of it that the rank has
  bool is_ready = false;
  std::optional<v1::FromRank> answer;
};

RankGroup::RankGroup(const RankGroupOptions& options)
    : options_(options), wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!options.logs_dir.empty()) new_logs_dir_ = options.logs_dir;
}

absl::StatusOr<std::unique_ptr<RankGroup>> RankGroup::Start(const RankGroupOptions& options) {
  int port = options.node.master_port;
  if (port == 0) {
    ASSIGN_OR_RETURN(port, FreeLoopbackPort());
  }
  std::unique_ptr<RankGroup> group(new RankGroup(options));
  if (!group->wake_.valid()) return absl::ResourceExhaustedError("cannot make an eventfd");
  for (int rank = 0; rank < options.world_size; ++rank) {
    ASSIGN_OR_RETURN(RankProcess process, StartRankProcess(options, rank, port));
    group->members_.push_back(std::make_unique<Member>(
        options.node.rank * options.world_size + rank, rank, std::move(process), options.output));
  }
  group->watcher_ = std::thread([raw = group.get()] { raw->Watch(); });
  return group;
}

RankGroup::~RankGroup() {
  if (!watcher_.joinable()) return;  // a start that failed; ~Subprocess ends what had begun
  Stop(absl::ZeroDuration());
  watcher_.join();
}

std::optional<std::variant<RankDeath, RankGroup::Stopped>> RankGroup::WaitReady(
    absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  if (!Clock::Real().Await(mutex_, absl::Condition(this, &RankGroup::AllReadyOrOverLocked),
                           timeout)) {
    for (const auto& member : members_) {
      if (member->is_ready || death_) continue;
      death_ = RankDeath{
          .rank = member->rank,
          .status = {},
          .complaint = absl::StrCat("was not ready within ", absl::FormatDuration(timeout)),
          .last_lines = {}};
    }
    EndLocked(options_.failure_grace);
  }
  if (!death_ && !stopped_) return std::nullopt;
  mutex_.Await(absl::Condition(&gone_));
  if (death_) return *death_;
  return Stopped{};
}

RankGroup::Outcome RankGroup::Run(const v1::RunTask& task, const std::filesystem::path& logs_dir,
                                  OnMessage on_message) {
  v1::ToRank message;
  *message.mutable_run() = task;
  absl::StatusOr<std::string> frame = EncodeFrame(message);
  if (!frame.ok()) {
    v1::TaskFailed failed;
    failed.set_code(v1::TaskFailed::INVALID_SPEC);
    failed.set_message(absl::StrCat("the task document is too large: ", frame.status().message()));
    return failed;
  }
  absl::MutexLock lock(&mutex_);
  outcome_.reset();
  task_failure_.reset();
  follow_up_.reset();
  give_up_at_ = absl::InfiniteDuration();
  running_ = true;
  on_message_ = std::move(on_message);
  new_logs_dir_ = logs_dir;
  for (const auto& member : members_) {
    member->answer.reset();
    member->outbox += *frame;
  }
  if (gone_) SettleLocked();
  Wake();
  mutex_.Await(absl::Condition(
      +[](std::optional<Outcome>* outcome) { return outcome->has_value(); }, &outcome_));
  return *std::exchange(outcome_, std::nullopt);
}

void RankGroup::Stop(absl::Duration grace) {
  absl::MutexLock lock(&mutex_);
  stopped_ = true;
  EndLocked(grace);
}

bool RankGroup::WaitGone(absl::Duration timeout) {
  absl::MutexLock lock(&mutex_);
  return Clock::Real().Await(mutex_, absl::Condition(&gone_), timeout);
}

bool RankGroup::alive() const {
  absl::MutexLock lock(&mutex_);
  return !gone_ && !stopped_ && !death_ && kill_at_ == absl::InfiniteDuration();
}

v1::RankReady RankGroup::ready() const {
  absl::MutexLock lock(&mutex_);
  return ready_;
}

std::vector<pid_t> RankGroup::pids() const {
  std::vector<pid_t> result;
  for (const auto& member : members_) result.push_back(member->process.process.pid());
  return result;
}

void RankGroup::Wake() {
  const uint64_t one = 1;
  // A full counter means that the thread is about to wake anyway.
  (void)!::write(wake_.get(), &one, sizeof(one));
}

void RankGroup::EndLocked(absl::Duration grace) {
  if (kill_at_ == absl::InfiniteDuration() && grace > absl::ZeroDuration()) term_due_ = true;
  kill_at_ = std::min(kill_at_, Clock::Real().Monotonic() + grace);
  Wake();
}

bool RankGroup::AllAnsweredLocked() const {
  return std::all_of(members_.begin(), members_.end(),
                     [](const auto& member) { return member->answer.has_value(); });
}

bool RankGroup::AllReadyOrOverLocked() const {
  return death_ || stopped_ ||
         std::all_of(members_.begin(), members_.end(),
                     [](const auto& member) { return member->is_ready; });
}

// A task that failed while it ran is the cause of what follows; an older one's failure is not.
bool RankGroup::NoCauseYetLocked() const {
  return !death_ && !stopped_ && !(running_ && task_failure_);
}

// Decides how the running task ended, once that is known. A group that is ending settles only when
// no process of it is left, so that a caller may rely on that.
void RankGroup::SettleLocked() {
  if (!running_) return;
  const bool ending = kill_at_ != absl::InfiniteDuration();
  if (!gone_ && (ending || !AllAnsweredLocked())) return;
  if (death_) {
    outcome_ = *death_;
  } else if (task_failure_) {
    outcome_ = *task_failure_;
  } else if (follow_up_ && !stopped_) {
    outcome_ = *follow_up_;
  } else if (AllAnsweredLocked()) {
    outcome_ = members_[0]->answer->finished();
  } else {
    outcome_ = Stopped{};
  }
  running_ = false;
  on_message_ = nullptr;
  new_logs_dir_ = std::filesystem::path();
}

// --- The watching thread -------------------------------------------------------------------------

void RankGroup::Watch() {
  while (true) {
    Poll(Prepare());
    bool all_reaped = true;
    for (const auto& member : members_) all_reaped &= member->reaped;
    if (all_reaped) {
      const int left = RemoveSharedMemory(shared_memory_);
      if (left > 0) LogWarning("ranks left {} shared-memory segments, now removed", left);
    }
    absl::MutexLock lock(&mutex_);
    gone_ = all_reaped;
    SettleLocked();
    if (gone_) return;
  }
}

// Does what other threads have asked for. Returns how long the thread may then sleep.
absl::Duration RankGroup::Prepare() {
  absl::MutexLock lock(&mutex_);
  if (new_logs_dir_) {
    for (const auto& member : members_) {
      const std::filesystem::path file =
          new_logs_dir_->empty() ? std::filesystem::path()
                                 : *new_logs_dir_ / absl::StrCat("rank", member->rank, ".log");
      const absl::Status status = member->output.WriteTo(file);
      if (!status.ok()) LogWarning("output of rank {}: {}", member->rank, Message(status));
    }
    new_logs_dir_.reset();
  }
  if (Clock::Real().Monotonic() >= give_up_at_) {
    give_up_at_ = absl::InfiniteDuration();
    if (NoCauseYetLocked()) task_failure_ = follow_up_;
    if (running_) EndLocked(options_.failure_grace);
  }
  if (term_due_) {
    NoteSharedMemory();
    v1::ToRank stop;
    stop.mutable_stop();
    const std::string frame = EncodeFrame(stop).value();
    for (const auto& member : members_) {
      member->outbox += frame;
      if (!member->reaped) member->process.process.Signal(SIGTERM);
    }
    term_due_ = false;
  }
  const absl::Duration now = Clock::Real().Monotonic();
  if (kill_at_ > now) return std::min(kill_at_, give_up_at_) - now;
  NoteSharedMemory();
  for (const auto& member : members_) {
    if (member->reaped || member->killed) continue;
    member->process.process.Signal(SIGKILL);
    member->killed = true;
  }
  return absl::InfiniteDuration();
}

void RankGroup::NoteSharedMemory() {
  for (const auto& member : members_) {
    if (!member->reaped) AddSharedMemoryOf(member->process.process.pid(), shared_memory_);
  }
}

void RankGroup::Poll(absl::Duration timeout) {
  constexpr size_t kPerMember = 3;
  std::vector<pollfd> fds = {{wake_.get(), POLLIN, 0}};
  for (const auto& member : members_) {
    RankProcess& process = member->process;
    short socket_events = POLLIN;
    {
      absl::MutexLock lock(&mutex_);
      if (!member->outbox.empty()) socket_events |= POLLOUT;
    }
    // poll() skips negative descriptors: those closed by now.
    fds.push_back({process.output.get(), POLLIN, 0});
    fds.push_back({process.socket.get(), socket_events, 0});
    fds.push_back({member->reaped ? -1 : process.pidfd.get(), POLLIN, 0});
  }
  const int timeout_ms =
      timeout == absl::InfiniteDuration()
          ? -1
          : static_cast<int>(std::min<int64_t>(absl::ToInt64Milliseconds(timeout) + 1, 1000000));
  ::poll(fds.data(), fds.size(), timeout_ms);
  uint64_t count;
  (void)!::read(wake_.get(), &count, sizeof(count));

  const auto ready = [&](size_t member, size_t which) {
    return fds[1 + member * kPerMember + which].revents;
  };
  for (size_t i = 0; i < members_.size(); ++i) {
    if (ready(i, 0) != 0) ReadOutput(*members_[i]);
    if ((ready(i, 1) & POLLOUT) != 0) WriteFrames(*members_[i]);
    if ((ready(i, 1) & ~POLLOUT) != 0) ReadFrames(*members_[i], /*until_empty=*/false);
  }
  for (size_t i = 0; i < members_.size(); ++i) {
    if (ready(i, 2) != 0) Reap(*members_[i]);
  }
}

void RankGroup::ReadOutput(Member& member) {
  char buffer[kReadBytes];
  for (int i = 0; i < kReadsPerRound && member.process.output.valid(); ++i) {
    const ssize_t got = ::read(member.process.output.get(), buffer, sizeof(buffer));
    if (got > 0) {
      member.output.Append({buffer, static_cast<size_t>(got)});
    } else if (got == 0) {
      member.process.output.Reset();
    } else if (errno != EINTR) {
      return;
    }
  }
}

void RankGroup::WriteFrames(Member& member) {
  absl::MutexLock lock(&mutex_);
  const ssize_t sent =
      ::send(member.process.socket.get(), member.outbox.data() + member.outbox_sent,
             member.outbox.size() - member.outbox_sent, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (sent > 0) member.outbox_sent += static_cast<size_t>(sent);
  // Of a peer that is gone the reading side tells, or its end.
  const bool failed = sent < 0 && errno != EINTR && errno != EAGAIN;
  if (failed || member.outbox_sent == member.outbox.size()) {
    member.outbox = std::string();
    member.outbox_sent = 0;
  }
}

void RankGroup::ReadFrames(Member& member, bool until_empty) {
  char buffer[kReadBytes];
  for (int i = 0; (until_empty || i < kReadsPerRound) && member.process.socket.valid(); ++i) {
    const ssize_t got = ::recv(member.process.socket.get(), buffer, sizeof(buffer), MSG_DONTWAIT);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) {
      member.process.socket.Reset();
      if (member.reaped) return;
      absl::MutexLock lock(&mutex_);
      if (member.complaint.empty()) member.complaint = "closed its connection";
      kill_at_ = std::min(kill_at_, Clock::Real().Monotonic() + kCloseGrace);
      return;
    }
    member.decoder.Feed({buffer, static_cast<size_t>(got)});
    while (true) {
      absl::StatusOr<std::optional<std::string>> bytes = member.decoder.Next();
      if (!bytes.ok()) {
        Complain(member, absl::StrCat("broke the protocol (", bytes.status().message(), ")"));
        return;
      }
      if (!*bytes) break;
      v1::FromRank message;
      if (!message.ParseFromString(**bytes)) {
        Complain(member, "broke the protocol (a malformed frame)");
        return;
      }
      Handle(member, std::move(message));
    }
  }
}

void RankGroup::Handle(Member& member, v1::FromRank message) {
  switch (message.kind_case()) {
    case v1::FromRank::kReady: {
      absl::MutexLock lock(&mutex_);
      member.is_ready = true;
      if (member.local_rank == 0) ready_ = message.ready();
      return;
    }
    case v1::FromRank::kProgress:
    case v1::FromRank::kLogLine: {
      OnMessage on_message;
      {
        absl::MutexLock lock(&mutex_);
        on_message = on_message_;
      }
      // Without the lock: only this thread takes the callback back, so it is still valid.
      if (on_message) on_message(member.rank, message);
      return;
    }
    case v1::FromRank::kFinished:
    case v1::FromRank::kFailed:
      HandleAnswer(member, std::move(message));
      return;
    case v1::FromRank::KIND_NOT_SET:
      return;  // a kind of a later version
  }
}

void RankGroup::HandleAnswer(Member& member, v1::FromRank message) {
  ReadOutput(member);  // what it wrote before it answered belongs to this task's file
  bool unasked = false;
  {
    absl::MutexLock lock(&mutex_);
    unasked = !running_ || member.answer.has_value();
    if (!unasked) {
      if (message.has_failed()) NoteFailureLocked(message.failed());
      member.answer = std::move(message);
      SettleLocked();
    }
  }
  if (unasked) Complain(member, "broke the protocol (an answer without a task)");
}

void RankGroup::NoteFailureLocked(const v1::TaskFailed& failed) {
  if (task_failure_ || death_) return;
  if (failed.code() == v1::TaskFailed::PEER_LOST) {
    // Somebody else's end is the cause, and may be noticed only now.
    if (!follow_up_) follow_up_ = failed;
    give_up_at_ = std::min(give_up_at_, Clock::Real().Monotonic() + options_.failure_grace);
    return;
  }
  task_failure_ = failed;
  // The others may wait for ever for a rank that has given up.
  if (members_.size() > 1) EndLocked(options_.failure_grace);
}

// A rank that cannot be understood any more is ended; its end then says why.
void RankGroup::Complain(Member& member, std::string complaint) {
  member.process.socket.Reset();
  absl::MutexLock lock(&mutex_);
  member.complaint = complaint;
  if (NoCauseYetLocked()) {
    death_ = RankDeath{
        .rank = member.rank, .status = {}, .complaint = std::move(complaint), .last_lines = {}};
  }
  EndLocked(options_.failure_grace);
}

void RankGroup::Reap(Member& member) {
  ReadFrames(member, /*until_empty=*/true);
  ReadOutput(member);
  const pid_t pid = member.process.process.pid();
  KillGroupRemains(pid);
  const std::optional<ExitStatus> status = member.process.process.Poll();
  if (!status) return;  // its other threads still end; the descriptor stays readable
  AwaitGroupGone(pid, kRemainsTimeout);
  member.reaped = true;
  member.process.socket.Reset();
  member.process.output.Reset();

  absl::MutexLock lock(&mutex_);
  if (NoCauseYetLocked()) {
    death_ = RankDeath{.rank = member.rank, .status = {}, .complaint = {}, .last_lines = {}};
    if (member.killed) death_->complaint = member.complaint;
  }
  if (death_ && death_->rank == member.rank) {
    death_->status = *status;
    death_->last_lines = member.output.LastLines();
  }
  EndLocked(options_.failure_grace);  // of the others
}

}  // namespace flowmesh::executor
