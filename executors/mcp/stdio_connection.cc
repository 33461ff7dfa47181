#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <deque>
#include <map>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "common/clock.h"
#include "common/redact.h"
#include "common/strings.h"
#include "common/subprocess.h"
#include "executors/mcp/connection.h"
#include "executors/mcp/jsonrpc.h"

namespace flowmesh::mcp {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(50);  // between looks at is_stopped
constexpr absl::Duration kGrace = absl::Seconds(2);       // after its stdin is closed
constexpr size_t kShownStderr = 2000;                     // bytes: the end
constexpr size_t kMaxUnread = 100;                        // messages that it does not read
constexpr int kMaxGarbage = 1000;                         // lines that are no messages

size_t LongestOf(const std::vector<std::string>& texts) {
  size_t longest = 0;
  for (const std::string& text : texts) longest = std::max(longest, text.size());
  return longest;
}

class StdioConnection : public Connection {
 public:
  explicit StdioConnection(const ServerSettings& settings)
      : settings_(settings),
        secrets_(settings.Secrets()),
        longest_secret_(LongestOf(secrets_)),
        wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  ~StdioConnection() override {
    Close(absl::UnavailableError("the connection is closed"));
    if (pump_.joinable()) pump_.join();
    stdin_.Reset();  // which is how a server is asked to end
    if (process_.has_value() && !process_->Wait(kGrace).has_value()) {
      (void)process_->Terminate(kGrace);
    }
  }

  absl::Status Start() {
    ASSIGN_OR_RETURN(Pipe in, MakePipe());
    ASSIGN_OR_RETURN(Pipe out, MakePipe());
    ASSIGN_OR_RETURN(Pipe err, MakePipe());
    stdin_ = std::move(in.write);
    stdout_ = std::move(out.read);
    stderr_ = std::move(err.read);
    for (const UniqueFd* ours : {&stdin_, &stdout_, &stderr_})
      RETURN_IF_ERROR(SetNonBlocking(*ours));
    SubprocessOptions options;
    options.argv = {settings_.command};
    options.argv.insert(options.argv.end(), settings_.args.begin(), settings_.args.end());
    for (const char* name : {"PATH", "HOME", "USER", "LANG", "TMPDIR"}) {
      const char* value = std::getenv(name);
      if (value != nullptr) options.env[name] = value;
    }
    for (const auto& [name, value] : settings_.env) options.env[name] = value;
    options.clear_env = true;
    options.closes_other_fds = true;
    options.stdin_fd = in.read.get();
    options.stdout_fd = out.write.get();
    options.stderr_fd = err.write.get();
    absl::StatusOr<Subprocess> process = Subprocess::Start(options);
    if (!process.ok()) return Hidden(process.status());
    process_ = *std::move(process);
    pump_ = std::thread([this] { Pump(); });
    return absl::OkStatus();
  }

  absl::StatusOr<Json> Request(const std::string& method, const Json& params,
                               const CallLimits& limits) override {
    int64_t id = 0;
    {
      absl::MutexLock lock(&mutex_);
      id = next_id_++;
      waiting_[id] = Json();
      Send(RequestMessage(id, method, params), id);
    }
    const absl::Status status = AwaitAnswer(id, limits);
    Json answer;
    {
      absl::MutexLock lock(&mutex_);
      answer = std::move(waiting_[id]);
      waiting_.erase(id);
      if (answer.is_null()) Withdraw(id, method != kInitialize);
    }
    if (answer.is_null()) return Hidden(status);
    absl::StatusOr<Json> result = ResultOf(answer);
    if (!result.ok()) return Hidden(result.status());
    return result;
  }

  absl::Status Notify(const std::string& method, const Json& params, const CallLimits&) override {
    absl::MutexLock lock(&mutex_);
    Send(NotificationMessage(method, params));
    return Hidden(closed_);
  }

  void SetProtocolVersion(const std::string&) override {}

  bool is_closed() override {
    absl::MutexLock lock(&mutex_);
    return !closed_.ok();
  }

 private:
  struct Outgoing {
    std::string line;
    int64_t id;  // of our request; 0: it is none
    size_t written = 0;
  };

  absl::Status Hidden(const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::Status(status.code(), WithoutSecrets(Message(status), {}, secrets_));
  }

  // Waits for an answer, the end of the connection, or a limit.
  absl::Status AwaitAnswer(int64_t id, const CallLimits& limits) {
    absl::MutexLock lock(&mutex_);
    while (true) {
      const auto is_over = [this, id]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
        return !waiting_[id].is_null() || !closed_.ok();
      };
      const absl::Duration left = limits.deadline - Clock::Real().Monotonic();
      const absl::Duration wait = std::clamp(left, absl::ZeroDuration(), kPoll);
      if (mutex_.AwaitWithTimeout(absl::Condition(&is_over), wait)) {
        return waiting_[id].is_null() ? closed_ : absl::OkStatus();
      }
      RETURN_IF_ERROR(CheckLimits(limits));
    }
  }

  // The pump's thread writes it.
  void Send(const Json& message, int64_t id = 0) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (!closed_.ok()) return;
    outgoing_.push_back({DumpJson(message) + "\n", id});
    Wake();
  }

  // The request will not be waited for any longer. Whole lines only: one that is half written ends
  // the connection.
  void Withdraw(int64_t id, bool may_cancel) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    const auto found = std::find_if(outgoing_.begin(), outgoing_.end(),
                                    [id](const Outgoing& one) { return one.id == id; });
    if (found == outgoing_.end()) {
      if (may_cancel) Send(CancelledMessage(id));
    } else if (found->written == 0) {
      outgoing_.erase(found);
    } else {
      CloseLocked(absl::UnavailableError("the server does not read its input"));
    }
  }

  void Close(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    CloseLocked(why);
  }
  void CloseLocked(const absl::Status& why) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (closed_.ok()) closed_ = why;
    Wake();
  }

  void Wake() const {
    const uint64_t one = 1;
    (void)!::write(wake_.get(), &one, sizeof one);
  }

  // A thread of its own, until the server's end or ours. It alone reads and writes, so that a
  // server whose output is full is read while it is written to.
  void Pump() {
    bool err_is_open = true;
    while (true) {
      bool has_more = false;
      {
        absl::MutexLock lock(&mutex_);
        if (!closed_.ok()) return;
        has_more = !outgoing_.empty();
      }
      pollfd fds[4] = {{wake_.get(), POLLIN, 0},
                       {stdout_.get(), POLLIN, 0},
                       {err_is_open ? stderr_.get() : -1, POLLIN, 0},
                       {has_more ? stdin_.get() : -1, POLLOUT, 0}};
      const absl::Duration left = input_ended_ + kGrace - Clock::Real().Monotonic();
      const int timeout =
          stdin_.valid()
              ? -1
              : static_cast<int>(absl::ToInt64Milliseconds(std::max(left, absl::ZeroDuration())));
      const int ready = ::poll(fds, 4, timeout);
      if (ready < 0 && errno != EINTR) return Close(absl::ErrnoToStatus(errno, "poll"));
      if (ready == 0) return Close(absl::UnavailableError("the server has closed its input"));
      if (ready < 0) continue;
      uint64_t count = 0;
      if (fds[0].revents != 0) (void)!::read(wake_.get(), &count, sizeof count);
      if (fds[2].revents != 0) err_is_open = ReadStderr();
      if (fds[1].revents != 0 && !ReadStdout()) {
        while (err_is_open && ReadStderr()) {  // what it said last
          pollfd err{stderr_.get(), POLLIN, 0};
          if (::poll(&err, 1, 100) <= 0) break;
        }
        return Close(absl::UnavailableError(DescribeEnd()));
      }
      if (fds[3].revents != 0) WriteStdin();
    }
  }

  // As much as it takes.
  void WriteStdin() {
    absl::MutexLock lock(&mutex_);
    while (!outgoing_.empty()) {
      Outgoing& next = outgoing_.front();
      const ssize_t n =
          ::write(stdin_.get(), next.line.data() + next.written, next.line.size() - next.written);
      if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (n < 0) {  // it reads no more: its output soon says why
        stdin_.Reset();
        input_ended_ = Clock::Real().Monotonic();
        outgoing_.clear();
        return;
      }
      next.written += static_cast<size_t>(n);
      if (next.written == next.line.size()) outgoing_.pop_front();
    }
  }

  // False at the end of it.
  bool ReadStderr() {
    char buffer[4096];
    const ssize_t n = ::read(stderr_.get(), buffer, sizeof buffer);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
    stderr_tail_.append(buffer, static_cast<size_t>(n));
    const size_t kept = kShownStderr + longest_secret_;
    if (stderr_tail_.size() > kept) {
      stderr_tail_.erase(0, stderr_tail_.size() - kept);
      is_stderr_cut_ = true;
    }
    return true;
  }

  // The last that it said. What was cut may have left the end of a secret.
  std::string ShownStderr() const {
    std::string said = WithoutSecrets(stderr_tail_, {}, secrets_);
    if (is_stderr_cut_) said.erase(0, longest_secret_);
    if (said.size() > kShownStderr) said.erase(0, said.size() - kShownStderr);
    while (!said.empty() && !StartsCharacter(said.front())) said.erase(0, 1);
    return IsValidUtf8(said) ? std::string(Trim(said)) : "";
  }

  bool ReadStdout() {
    char buffer[1 << 16];
    const ssize_t n = ::read(stdout_.get(), buffer, sizeof buffer);
    if (n <= 0) return n < 0 && (errno == EAGAIN || errno == EINTR);
    std::string_view piece(buffer, static_cast<size_t>(n));
    for (size_t end = piece.find('\n'); end != std::string_view::npos; end = piece.find('\n')) {
      line_ += piece.substr(0, end);
      OnLine(line_);
      line_.clear();
      piece.remove_prefix(end + 1);
    }
    line_ += piece;
    if (line_.size() > kMaxMessageBytes) {
      Close(absl::DataLossError(
          absl::StrCat("the server writes a message of more than ", kMaxMessageBytes, " bytes")));
    }
    return true;
  }

  void OnLine(const std::string& line) {
    const std::string_view text = Trim(line);
    if (text.empty()) return;
    const absl::StatusOr<Json> message = ParseJson(text);
    switch (message.ok() ? KindOf(*message) : MessageKind::kNone) {
      case MessageKind::kNone:  // some print what is no message; a few lines are forgiven
        if (++garbage_ > kMaxGarbage) {
          Close(absl::DataLossError("the server writes what are no messages of JSON-RPC"));
        }
        return;
      case MessageKind::kAnswer:
        OnAnswer(*message);
        return;
      case MessageKind::kRequest:
        Answer(*message);
        return;
      case MessageKind::kNotification:
        return;
    }
  }

  void Answer(const Json& request) {
    absl::MutexLock lock(&mutex_);
    if (outgoing_.size() < kMaxUnread) return Send(AnswerTo(request));
    CloseLocked(absl::DataLossError("the server asks and does not read what it is answered"));
  }

  void OnAnswer(const Json& message) {
    const std::optional<int64_t> id = AnswerId(message);
    absl::MutexLock lock(&mutex_);
    const auto found = id.has_value() ? waiting_.find(*id) : waiting_.end();
    if (found != waiting_.end()) found->second = message;
  }

  std::string DescribeEnd() {
    const std::optional<ExitStatus> status = process_->Wait(kGrace);
    std::string text = status.has_value()
                           ? absl::StrCat("the server has ended with ", status->ToString())
                           : "the server has closed its output";
    const std::string said = ShownStderr();
    if (!said.empty()) absl::StrAppend(&text, "; it said: ", said);
    return text;
  }

  const ServerSettings settings_;
  const std::vector<std::string> secrets_;
  const size_t longest_secret_;
  const UniqueFd wake_;  // an eventfd
  std::optional<Subprocess> process_;
  UniqueFd stdout_, stderr_;
  std::thread pump_;

  // Of the pump.
  UniqueFd stdin_;
  absl::Duration input_ended_;  // when it was, once stdin_ is not valid
  std::string line_, stderr_tail_;
  bool is_stderr_cut_ = false;
  int garbage_ = 0;

  absl::Mutex mutex_;
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::deque<Outgoing> outgoing_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, Json> waiting_ ABSL_GUARDED_BY(mutex_);  // null until it is answered
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);              // why, once it is
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> StartStdio(const ServerSettings& settings) {
  auto connection = std::make_unique<StdioConnection>(settings);
  RETURN_IF_ERROR(connection->Start());
  return connection;
}

}  // namespace flowmesh::mcp
