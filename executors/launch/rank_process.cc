#include "executors/launch/rank_process.h"

#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "executors/launch/frames.h"

namespace flowmesh::executor {
namespace {

constexpr int kSocketInRank = 3;

absl::Status SystemError(const char* what) {
  const int error = errno;
  const std::string text = absl::StrCat(what, ": ", std::strerror(error));
  const bool exhausted = error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN;
  return exhausted ? absl::ResourceExhaustedError(text) : absl::UnavailableError(text);
}

// The rank's place in its world, in the variables of torchrun.
void SetPlace(const RankGroupOptions& options, int rank, int master_port,
              std::map<std::string, std::string>* env) {
  const NodeOptions& node = options.node;
  const auto set = [env](const char* name, int value) { (*env)[name] = absl::StrCat(value); };
  set("RANK", node.rank * options.world_size + rank);
  set("LOCAL_RANK", rank);
  set("WORLD_SIZE", node.count * options.world_size);
  set("LOCAL_WORLD_SIZE", options.world_size);
  set("GROUP_RANK", node.rank);
  set("GROUP_WORLD_SIZE", node.count);
  (*env)["MASTER_ADDR"] = node.master_addr;
  set("MASTER_PORT", master_port);
  (*env)["TORCHELASTIC_RUN_ID"] = options.run_id;
  set("TORCHELASTIC_RESTART_COUNT", options.restart_count);
  set("TORCHELASTIC_MAX_RESTARTS", options.max_restarts);
}

}  // namespace

absl::StatusOr<RankProcess> StartRankProcess(const RankGroupOptions& options, int rank,
                                             int master_port) {
  int sockets[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) {
    return SystemError("cannot make a socket pair");
  }
  UniqueFd ours(sockets[0]);
  const UniqueFd theirs(sockets[1]);
  ASSIGN_OR_RETURN(Pipe output, MakePipe());
  RETURN_IF_ERROR(SetNonBlocking(ours));
  RETURN_IF_ERROR(SetNonBlocking(output.read));

  SubprocessOptions start;
  start.argv = options.command;
  start.env = options.env;
  SetPlace(options, rank, master_port, &start.env);
  start.env["CUDA_VISIBLE_DEVICES"] = options.use_cuda ? options.visible_devices : "";
  start.env["OMP_NUM_THREADS"] = absl::StrCat(std::max(1, options.threads / options.world_size));
  // Short: a thread that spins while the processors are shared costs far more than it saves.
  if (std::getenv("GOMP_SPINCOUNT") == nullptr) start.env["GOMP_SPINCOUNT"] = "1000";
  // Large tensors go back to the system when they are freed, instead of staying in glibc's heap.
  if (std::getenv("MALLOC_MMAP_THRESHOLD_") == nullptr) {
    start.env["MALLOC_MMAP_THRESHOLD_"] = "1048576";
  }
  start.env[kRankFdVariable] = absl::StrCat(kSocketInRank);
  start.env[kRankParentVariable] = absl::StrCat(::getpid());
  start.env[kRankDeviceVariable] = options.use_cuda ? "cuda" : "cpu";
  start.stdout_fd = output.write.get();
  start.stderr_fd = output.write.get();
  start.inherited_fds = {{theirs.get(), kSocketInRank}};
  ASSIGN_OR_RETURN(Subprocess process, Subprocess::Start(start));

  UniqueFd pidfd(static_cast<int>(::syscall(SYS_pidfd_open, process.pid(), 0)));
  if (!pidfd.valid()) return SystemError("cannot watch a rank (pidfd_open)");
  return RankProcess{std::move(process), std::move(pidfd), std::move(ours), std::move(output.read)};
}

void KillGroupRemains(pid_t leader) { ::kill(-leader, SIGKILL); }

bool AwaitGroupGone(pid_t leader, absl::Duration timeout) {
  const Clock& clock = Clock::Real();
  const absl::Duration deadline = clock.Monotonic() + timeout;
  while (true) {
    while (::waitpid(-leader, nullptr, WNOHANG) > 0) {
    }
    if (::kill(-leader, 0) != 0 && errno == ESRCH) return true;
    if (clock.Monotonic() >= deadline) return false;
    ::poll(nullptr, 0, 2);  // the kernel reports no end of a group; killed processes take moments
  }
}

}  // namespace flowmesh::executor
