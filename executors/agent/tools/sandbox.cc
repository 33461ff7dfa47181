#include "executors/agent/tools/sandbox.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/agent/tools/usage.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;

constexpr char kPath[] = "/usr/local/bin:/usr/bin:/bin";
constexpr char kScratchBytes[] = "67108864";  // of each folder in memory
constexpr int kLookAroundMs = 50;
constexpr absl::Duration kCountProcesses = absl::Milliseconds(100);
constexpr absl::Duration kCountFiles = absl::Seconds(1);
constexpr int kOfBubblewrap = 2;  // processes

// The system as the program sees it: its own places of programs and libraries, and of /etc what
// those need. The rest of the machine, its secrets included, is not there.
void AddSystem(std::vector<std::string>& argv) {
  argv.insert(argv.end(), {"--ro-bind", "/usr", "/usr"});
  for (const char* name : {"/bin", "/sbin", "/lib", "/lib32", "/lib64"}) {
    std::error_code error;
    if (fs::is_symlink(name, error)) {
      argv.insert(argv.end(), {"--symlink", fs::read_symlink(name, error).string(), name});
    } else if (fs::is_directory(name, error)) {
      argv.insert(argv.end(), {"--ro-bind", name, name});
    }
  }
  for (const char* name : {"/etc/alternatives", "/etc/ld.so.cache", "/etc/ld.so.conf",
                           "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types"}) {
    argv.insert(argv.end(), {"--ro-bind-try", name, name});
  }
}

std::vector<std::string> BubblewrapArgv(const std::string& workspace) {
  std::vector<std::string> argv = {"bwrap",
                                   "--unshare-user",
                                   "--unshare-net",
                                   "--unshare-pid",
                                   "--unshare-ipc",
                                   "--unshare-uts",
                                   "--unshare-cgroup-try",
                                   "--disable-userns",
                                   "--die-with-parent",
                                   "--new-session",
                                   "--cap-drop",
                                   "ALL",
                                   "--uid",
                                   "1000",
                                   "--gid",
                                   "1000",
                                   "--hostname",
                                   "sandbox"};
  AddSystem(argv);
  argv.insert(argv.end(), {"--proc", "/proc", "--dev", "/dev"});
  for (const char* folder : {"/dev/shm", "/tmp"}) {
    argv.insert(argv.end(), {"--size", kScratchBytes, "--tmpfs", folder});
  }
  if (!workspace.empty()) {
    argv.insert(argv.end(), {"--bind", workspace, workspace, "--chdir", workspace});
  }
  // They are in memory: what is written there would be taken from everybody.
  argv.insert(argv.end(), {"--remount-ro", "/dev", "--remount-ro", "/"});
  argv.emplace_back("--");
  return argv;
}

std::vector<std::string> LimitArgv(const SandboxLimits& limits, bool with_bubblewrap) {
  const int64_t cpu = absl::ToInt64Seconds(absl::Ceil(limits.time, absl::Seconds(1))) + 1;
  std::vector<std::string> argv = {"prlimit", absl::StrCat("--as=", limits.memory_bytes),
                                   absl::StrCat("--cpu=", cpu),
                                   absl::StrCat("--fsize=", limits.file_bytes), "--core=0"};
  // Outside a user namespace it would count all processes of this user.
  if (with_bubblewrap) argv.push_back(absl::StrCat("--nproc=", limits.processes));
  argv.emplace_back("--");
  return argv;
}

SubprocessOptions Options(std::vector<std::string> argv, const std::string& workspace, int output) {
  // Of bubblewrap's first process, too: the program can read its environment in /proc.
  return {.argv = std::move(argv),
          .env = {{"PATH", kPath},
                  {"HOME", workspace.empty() ? "/" : workspace},
                  {"TMPDIR", "/tmp"},
                  {"LANG", "C.UTF-8"}},
          .clear_env = true,
          .working_directory = workspace,
          .stdout_fd = output,
          .stderr_fd = output,
          .closes_other_fds = true};
}

// Takes what the pipe holds. False at its end.
bool Take(int fd, const SandboxLimits& limits, ProgramEnd& end) {
  char buffer[64 << 10];
  while (end.output_bytes <= limits.most_output) {
    const ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return true;  // nothing there at the moment
    if (n == 0) return false;
    end.output_bytes += static_cast<uint64_t>(n);
    const size_t room = limits.kept_output - std::min(limits.kept_output, end.output.size());
    end.output.append(buffer, std::min(static_cast<size_t>(n), room));
  }
  return true;
}

// Looks now and then at what a program has.
class Watch {
 public:
  Watch(pid_t pid, std::string workspace, const SandboxLimits& limits)
      : pid_(pid), workspace_(std::move(workspace)), limits_(limits) {}

  // Of what there is too much; empty: of nothing.
  std::string TooMuch(absl::Duration now) {
    if (now >= next_processes_) {
      next_processes_ = now + kCountProcesses;
      const ProcessUse use = UseOf(pid_);
      if (use.memory_bytes > static_cast<uint64_t>(limits_.memory_bytes)) return "memory";
      if (use.processes > limits_.processes + kOfBubblewrap) return "processes";
    }
    if (now >= next_files_) {
      const bool is_full = DiskUse(workspace_, limits_.folder_bytes) > limits_.folder_bytes;
      next_files_ = Clock::Real().Monotonic() + kCountFiles;
      if (is_full) return "files";
    }
    return "";
  }

 private:
  const pid_t pid_;
  const std::string workspace_;
  const SandboxLimits& limits_;
  absl::Duration next_processes_, next_files_;
};

}  // namespace

absl::Status CheckBubblewrap() {
  ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  RETURN_IF_ERROR(SetNonBlocking(pipe.read));
  std::vector<std::string> argv = BubblewrapArgv("");
  argv.emplace_back("true");
  ASSIGN_OR_RETURN(Subprocess process,
                   Subprocess::Start(Options(std::move(argv), "", pipe.write.get())));
  pipe.write.Reset();
  const std::optional<ExitStatus> status = process.Wait(absl::Seconds(10));
  ProgramEnd end;
  (void)Take(pipe.read.get(), {}, end);
  if (status && status->ok()) return absl::OkStatus();
  const std::string said(Trim(end.output));
  return absl::FailedPreconditionError(
      absl::StrCat("bubblewrap does not work here: ", !said.empty() ? said.substr(0, 200)
                                                      : status      ? status->ToString()
                                                                    : "it does not end"));
}

absl::StatusOr<ProgramEnd> RunProgram(const std::vector<std::string>& program,
                                      const ToolContext& context, const SandboxLimits& limits,
                                      bool with_bubblewrap) {
  const std::string workspace = fs::absolute(context.workspace).string();
  std::vector<std::string> argv;
  if (with_bubblewrap) argv = BubblewrapArgv(workspace);
  const std::vector<std::string> limit = LimitArgv(limits, with_bubblewrap);
  argv.insert(argv.end(), limit.begin(), limit.end());
  argv.insert(argv.end(), program.begin(), program.end());

  ASSIGN_OR_RETURN(Pipe pipe, MakePipe());
  RETURN_IF_ERROR(SetNonBlocking(pipe.read));
  ASSIGN_OR_RETURN(Subprocess process,
                   Subprocess::Start(Options(std::move(argv), workspace, pipe.write.get())));
  pipe.write.Reset();
  const Clock& clock = Clock::Real();
  const absl::Duration left = std::min(limits.time, context.deadline - clock.Monotonic());
  const absl::Duration until = clock.Monotonic() + left;
  ProgramEnd end;
  Watch watch(process.pid(), workspace, limits);
  while (true) {
    pollfd wait{pipe.read.get(), POLLIN, 0};
    ::poll(&wait, 1, kLookAroundMs);
    // Asked before the pipe is emptied: what was written before the end is in it.
    end.status = process.Poll();
    const bool is_open = Take(pipe.read.get(), limits, end);
    end.is_flood = end.output_bytes > limits.most_output;
    end.is_late = clock.Monotonic() >= until;
    if (!end.status) end.too_much = watch.TooMuch(clock.Monotonic());
    const bool is_stopped = context.is_stopped && context.is_stopped();
    if (end.status || end.is_flood || end.is_late || !end.too_much.empty() || is_stopped) {
      process.Terminate(absl::ZeroDuration());  // with what it left in the background
      if (is_stopped) return absl::CancelledError("cancelled");
      break;
    }
    if (!is_open) {  // it closed its output: only its end is left to wait for
      (void)process.Wait(absl::Milliseconds(kLookAroundMs));
    }
  }
  if (end.status) end.is_late = end.is_flood = false;
  return end;
}

}  // namespace flowmesh::agent
