#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
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
constexpr absl::Duration kCancelTime = absl::Seconds(1);  // to tell it that nobody waits
constexpr size_t kShownStderr = 2000;                     // bytes: the end
constexpr int kMaxGarbage = 1000;                         // lines that are no messages

size_t LongestOf(const std::vector<std::string>& texts) {
  size_t longest = 0;
  for (const std::string& text : texts) longest = std::max(longest, text.size());
  return longest;
}

class StdioConnection : public Connection {
 public:
  StdioConnection(const ServerSettings& settings, OnNotification on_notification)
      : settings_(settings),
        secrets_(settings.Secrets()),
        longest_secret_(LongestOf(secrets_)),
        on_notification_(std::move(on_notification)),
        stop_(::eventfd(0, EFD_CLOEXEC)) {}

  ~StdioConnection() override {
    {
      absl::MutexLock lock(&write_mutex_);
      stdin_.Reset();  // which is how a server is asked to end
    }
    const uint64_t one = 1;
    (void)!::write(stop_.get(), &one, sizeof one);
    if (reader_.joinable()) reader_.join();
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
    reader_ = std::thread([this] { Read(); });
    return absl::OkStatus();
  }

  absl::StatusOr<Json> Request(const std::string& method, const Json& params,
                               const CallLimits& limits) override {
    int64_t id = 0;
    {
      absl::MutexLock lock(&mutex_);
      id = next_id_++;
      waiting_[id] = Json();
    }
    absl::Status status = Write(RequestMessage(id, method, params), limits);
    if (status.ok()) status = AwaitAnswer(id, limits);
    Json answer;
    {
      absl::MutexLock lock(&mutex_);
      answer = std::move(waiting_[id]);
      waiting_.erase(id);
    }
    if (answer.is_null()) {
      if (absl::IsCancelled(status) || absl::IsDeadlineExceeded(status)) {
        (void)Write(CancelledMessage(id), {Clock::Real().Monotonic() + kCancelTime, nullptr});
      }
      return Hidden(status);
    }
    absl::StatusOr<Json> result = ResultOf(answer);
    if (!result.ok()) return Hidden(result.status());
    return result;
  }

  absl::Status Notify(const std::string& method, const Json& params,
                      const CallLimits& limits) override {
    return Hidden(Write(NotificationMessage(method, params), limits));
  }

  void SetProtocolVersion(const std::string&) override {}

  bool is_closed() override {
    absl::MutexLock lock(&mutex_);
    return !closed_.ok();
  }

 private:
  absl::Status Hidden(const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::Status(status.code(), WithoutSecrets(Message(status), {}, secrets_));
  }

  static absl::Status CheckLimits(const CallLimits& limits) {
    if (limits.is_stopped && limits.is_stopped()) return absl::CancelledError("stopped");
    if (Clock::Real().Monotonic() >= limits.deadline) {
      return absl::DeadlineExceededError("no answer in time");
    }
    return absl::OkStatus();
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

  // Whole lines only: a message that was cut by a limit ends the connection.
  absl::Status Write(const Json& message, const CallLimits& limits) {
    const std::string line = DumpJson(message) + "\n";
    absl::MutexLock lock(&write_mutex_);
    size_t written = 0;
    while (written < line.size()) {
      if (!stdin_.valid()) return absl::UnavailableError("the server's input is closed");
      const ssize_t n = ::write(stdin_.get(), line.data() + written, line.size() - written);
      if (n > 0) {
        written += static_cast<size_t>(n);
        continue;
      }
      if (n < 0 && errno != EAGAIN && errno != EINTR) {
        return WaitForEnd();
      }
      const absl::Status status = CheckLimits(limits);
      if (!status.ok()) {
        if (written > 0) Close(absl::UnavailableError("the server does not read its input"));
        return status;
      }
      pollfd fd{stdin_.get(), POLLOUT, 0};
      ::poll(&fd, 1, static_cast<int>(absl::ToInt64Milliseconds(kPoll)));
    }
    return absl::OkStatus();
  }

  // It reads no more: the reader soon knows why.
  absl::Status WaitForEnd() {
    absl::MutexLock lock(&mutex_);
    const auto is_closed = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !closed_.ok(); };
    mutex_.AwaitWithTimeout(absl::Condition(&is_closed), kGrace);
    return closed_.ok() ? absl::UnavailableError("the server has closed its input") : closed_;
  }

  void Close(const absl::Status& why) {
    absl::MutexLock lock(&mutex_);
    if (closed_.ok()) closed_ = why;
  }

  // The reader's thread, until the server's end or ours.
  void Read() {
    bool err_is_open = true;
    while (true) {
      pollfd fds[3] = {{stop_.get(), POLLIN, 0},
                       {stdout_.get(), POLLIN, 0},
                       {err_is_open ? stderr_.get() : -1, POLLIN, 0}};
      if (::poll(fds, 3, -1) < 0 && errno != EINTR) break;
      if (fds[0].revents != 0) break;
      if (fds[2].revents != 0) err_is_open = ReadStderr();
      if (fds[1].revents != 0 && !ReadStdout()) {
        while (err_is_open && ReadStderr()) {  // what it said last
          pollfd err{stderr_.get(), POLLIN, 0};
          if (::poll(&err, 1, 100) <= 0) break;
        }
        Close(absl::UnavailableError(DescribeEnd()));
        return;
      }
      absl::MutexLock lock(&mutex_);
      if (!closed_.ok()) return;
    }
    Close(absl::UnavailableError("the connection is closed"));
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
        (void)Write(AnswerTo(*message), {Clock::Real().Monotonic() + kCancelTime, nullptr});
        return;
      case MessageKind::kNotification:
        if (on_notification_) on_notification_((*message)["method"].get<std::string>());
        return;
    }
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
  const OnNotification on_notification_;
  const UniqueFd stop_;  // an eventfd, readable once this ends
  std::optional<Subprocess> process_;
  UniqueFd stdout_, stderr_;
  std::thread reader_;

  // Of the reader.
  std::string line_, stderr_tail_;
  bool is_stderr_cut_ = false;
  int garbage_ = 0;

  absl::Mutex write_mutex_ ABSL_ACQUIRED_BEFORE(mutex_);
  UniqueFd stdin_ ABSL_GUARDED_BY(write_mutex_);

  absl::Mutex mutex_;
  int64_t next_id_ ABSL_GUARDED_BY(mutex_) = 1;
  std::map<int64_t, Json> waiting_ ABSL_GUARDED_BY(mutex_);  // null until it is answered
  absl::Status closed_ ABSL_GUARDED_BY(mutex_);              // why, once it is
};

}  // namespace

absl::StatusOr<std::unique_ptr<Connection>> StartStdio(const ServerSettings& settings,
                                                       OnNotification on_notification) {
  auto connection = std::make_unique<StdioConnection>(settings, std::move(on_notification));
  RETURN_IF_ERROR(connection->Start());
  return connection;
}

}  // namespace flowmesh::mcp
