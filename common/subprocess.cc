#include "common/subprocess.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/strings.h"

extern char** environ;

namespace flowmesh {
namespace {

std::vector<std::string> BuildEnvironment(const SubprocessOptions& options) {
  std::map<std::string, std::string> merged;
  if (!options.clear_env) {
    for (char** entry = environ; *entry != nullptr; ++entry) {
      const std::string text = *entry;
      const size_t equals = text.find('=');
      if (equals != std::string::npos) merged[text.substr(0, equals)] = text.substr(equals + 1);
    }
  }
  for (const auto& [key, value] : options.env) merged[key] = value;
  std::vector<std::string> lines;
  lines.reserve(merged.size());
  for (const auto& [key, value] : merged) lines.push_back(absl::StrCat(key, "=", value));
  return lines;
}

std::vector<char*> Pointers(std::vector<std::string>& lines) {
  std::vector<char*> pointers;
  pointers.reserve(lines.size() + 1);
  for (std::string& line : lines) pointers.push_back(line.data());
  pointers.push_back(nullptr);
  return pointers;
}

ExitStatus Decode(int status) {
  ExitStatus result;
  if (WIFSIGNALED(status)) {
    result.signal = WTERMSIG(status);
  } else {
    result.exit_code = WEXITSTATUS(status);
  }
  return result;
}

bool CanBeRun(const std::filesystem::path& program) {
  std::error_code ignored;
  return std::filesystem::is_regular_file(program, ignored) && ::access(program.c_str(), X_OK) == 0;
}

}  // namespace

std::optional<std::filesystem::path> FindExecutable(const std::string& name) {
  if (name.find('/') != std::string::npos) {
    return CanBeRun(name) ? std::optional<std::filesystem::path>(name) : std::nullopt;
  }
  const char* path = std::getenv("PATH");
  for (const std::string& folder : SplitTrimmed(path == nullptr ? "" : path, ':')) {
    const std::filesystem::path program = std::filesystem::path(folder) / name;
    if (CanBeRun(program)) return program;
  }
  return std::nullopt;
}

std::string ExitStatus::ToString() const {
  if (signal != 0) return absl::StrCat("signal ", signal, " (", strsignal(signal), ")");
  return absl::StrCat("exit code ", exit_code);
}

absl::StatusOr<Subprocess> Subprocess::Start(const SubprocessOptions& options) {
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  if (options.stdin_fd >= 0) {
    posix_spawn_file_actions_adddup2(&actions, options.stdin_fd, 0);
  } else {
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  }
  if (options.stdout_fd >= 0) posix_spawn_file_actions_adddup2(&actions, options.stdout_fd, 1);
  if (options.stderr_fd >= 0) posix_spawn_file_actions_adddup2(&actions, options.stderr_fd, 2);
  // dup2 clears close-on-exec, also (since glibc 2.29) when both numbers are the same.
  for (const auto& [ours, theirs] : options.inherited_fds) {
    posix_spawn_file_actions_adddup2(&actions, ours, theirs);
  }
  if (options.closes_other_fds) {
    int last = 2;
    for (const auto& [ours, theirs] : options.inherited_fds) last = std::max(last, theirs);
    posix_spawn_file_actions_addclosefrom_np(&actions, last + 1);
  }
  if (!options.working_directory.empty()) {
    posix_spawn_file_actions_addchdir_np(&actions, options.working_directory.c_str());
  }

  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none, defaults;
  sigemptyset(&none);
  sigemptyset(&defaults);
  for (int signal : {SIGTERM, SIGINT, SIGPIPE, SIGUSR2}) sigaddset(&defaults, signal);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setsigdefault(&attributes, &defaults);
  posix_spawnattr_setpgroup(&attributes, 0);
  posix_spawnattr_setflags(&attributes,
                           POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);

  std::vector<std::string> environment = BuildEnvironment(options);
  std::vector<std::string> argv = options.argv;
  pid_t pid = -1;
  const int error = ::posix_spawnp(&pid, argv[0].c_str(), &actions, &attributes,
                                   Pointers(argv).data(), Pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error != 0) {
    errno = error;
    return ErrnoError("cannot start", argv[0]);
  }
  return Subprocess(pid);
}

Subprocess::Subprocess(Subprocess&& other) noexcept
    : pid_(std::exchange(other.pid_, -1)), status_(other.status_) {}

Subprocess& Subprocess::operator=(Subprocess&& other) noexcept {
  if (this != &other) {
    if (pid_ > 0) Terminate(absl::ZeroDuration());
    pid_ = std::exchange(other.pid_, -1);
    status_ = other.status_;
  }
  return *this;
}

Subprocess::~Subprocess() {
  if (pid_ > 0) Terminate(absl::ZeroDuration());
}

void Subprocess::Signal(int signal) const {
  if (pid_ > 0) ::kill(-pid_, signal);
}

std::optional<ExitStatus> Subprocess::Poll() {
  if (status_ || pid_ <= 0) return status_;
  int status = 0;
  pid_t reaped;
  do {
    reaped = ::waitpid(pid_, &status, WNOHANG);
  } while (reaped < 0 && errno == EINTR);
  if (reaped == pid_) status_ = Decode(status);
  if (reaped < 0) status_ = ExitStatus{.exit_code = 255, .signal = 0};  // reaped by someone else
  return status_;
}

std::optional<ExitStatus> Subprocess::Wait(absl::Duration timeout) {
  if (Poll() || pid_ <= 0) return status_;
  // A pidfd becomes readable when the process ends: no polling, no signal handler.
  const UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0)));
  const Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Monotonic() + timeout;
  while (!Poll()) {
    const absl::Duration left = deadline - clock.Monotonic();
    if (left <= absl::ZeroDuration()) return std::nullopt;
    pollfd wait{pidfd.get(), POLLIN, 0};
    const int64_t ms = std::min<int64_t>(absl::ToInt64Milliseconds(left), 1000 * 1000) + 1;
    ::poll(&wait, pidfd.valid() ? 1 : 0,
           static_cast<int>(pidfd.valid() ? ms : std::min<int64_t>(ms, 10)));
  }
  return status_;
}

ExitStatus Subprocess::Terminate(absl::Duration grace) {
  if (!Poll()) {
    if (grace > absl::ZeroDuration()) {
      Signal(SIGTERM);
      Wait(grace);
    }
    if (!status_) {
      Signal(SIGKILL);
      Wait(absl::InfiniteDuration());
    }
  }
  Signal(SIGKILL);  // grandchildren that stayed in the group
  pid_ = -1;
  return *status_;
}

void DieWithParent(pid_t expected_parent, int signal) {
  ::prctl(PR_SET_PDEATHSIG, signal);
  if (expected_parent > 0 && ::getppid() != expected_parent) ::_exit(1);
}

void EndWithParentIfAsked() {
  const char* text = std::getenv(kParentVariable);
  pid_t parent = 0;
  if (text != nullptr && absl::SimpleAtoi(text, &parent) && parent > 0) {
    DieWithParent(parent, SIGTERM);
  }
}

}  // namespace flowmesh
