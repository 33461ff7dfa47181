// flowmesh-rank: one process of model work, started by flowmesh-executor, which sends it tasks over
// an inherited socket (proto/flowmesh/v1/rank.proto).
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/signals.h"
#include "common/subprocess.h"
#include "executors/device/cuda_library.h"
#include "executors/launch/frames.h"
#include "executors/rank/rank_link.h"
#include "executors/rank/run_task.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::rank {
namespace {

constexpr int kCannotStart = 1;
constexpr int kUsage = 2;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

int EnvironmentInt(const char* name, int fallback) {
  int number = 0;
  return absl::SimpleAtoi(Environment(name), &number) ? number : fallback;
}

tasks::RankOptions Options(bool use_cuda) {
  return {.use_cuda = use_cuda,
          .threads = EnvironmentInt("OMP_NUM_THREADS", 0),
          .local_rank = EnvironmentInt("LOCAL_RANK", 0)};
}

// Prints, as JSON, what this program can do here: the executor asks once when it starts.
int Describe() {
  const bool wants_cuda = Environment(executor::kRankDeviceVariable) == "cuda";
  const absl::Status cuda = wants_cuda ? device::LoadCudaLibrary() : absl::OkStatus();
  const bool use_cuda = wants_cuda && cuda.ok();
  Json description = {{"torch_version", tasks::TorchVersion()},
                      {"task_types", Json::array()},
                      {"cuda", use_cuda},
                      {"cuda_problem", Message(cuda)}};
  for (const auto& [type, runner] : tasks::MakeTaskRunners(Options(use_cuda))) {
    description["task_types"].push_back(type);
  }
  std::printf("%s\n", DumpJson(description).c_str());
  return 0;
}

// Runs tasks until the executor, or a signal, ends it. Returns the exit status.
int Serve(UniqueFd socket, bool use_cuda, LogLevel log_level) {
  const TaskRunners runners = tasks::MakeTaskRunners(Options(use_cuda));
  RankLink link(std::move(socket), [](const absl::Status& why) {
    if (!absl::IsNotFound(why)) LogError("lost the executor: {}", Message(why));
    std::fflush(nullptr);
    ::_exit(absl::IsNotFound(why) ? 0 : kCannotStart);  // at once: nobody reads what we do
  });
  SignalWatcher signals([&link](int count) {
    link.Shutdown();
    if (count > 1) ::_exit(kCannotStart);
  });

  v1::FromRank ready;
  v1::RankReady& self = *ready.mutable_ready();
  self.set_rank(EnvironmentInt("RANK", 0));
  self.set_world_size(EnvironmentInt("WORLD_SIZE", 1));
  self.set_device(use_cuda ? absl::StrCat("cuda:", EnvironmentInt("LOCAL_RANK", 0)) : "cpu");
  self.set_torch_version(tasks::TorchVersion());
  for (const auto& [type, runner] : runners) self.add_runnable_task_types(type);
  (void)link.Send(ready);

  const TaskCallbacks callbacks{
      .send = [&link](v1::FromRank message) { (void)link.Send(message); },
      .is_stopped = [&link] { return link.is_stopped(); },
      .log_level = log_level,
  };
  while (const std::optional<v1::RunTask> task = link.NextTask()) {
    const v1::FromRank answer = RunTask(task->task(), runners, callbacks, Clock::Real());
    const absl::Status sent = link.Send(answer);
    if (sent.ok()) continue;
    v1::FromRank failed;
    failed.mutable_failed()->set_code(v1::TaskFailed::TASK_ERROR);
    failed.mutable_failed()->set_message(absl::StrCat("the result is too large: ", sent.message()));
    (void)link.Send(failed);
  }
  std::fflush(nullptr);
  ::_exit(0);  // no destructors of libtorch's globals, which may wait for its threads
}

int Main(int argc, char** argv) {
  const std::string_view argument = argc > 1 ? argv[1] : "";
  if (argument == "--help") {
    std::printf(
        "flowmesh-rank: runs models for flowmesh-executor, which starts it; it is of no use "
        "alone.\n"
        "  --describe  print as JSON what it can run here\n"
        "  --version   print its version and libtorch's\n");
    return 0;
  }
  if (argument == "--version") {
    std::printf("flowmesh-rank %s, libtorch %s\n", FLOWMESH_VERSION, tasks::TorchVersion().c_str());
    return 0;
  }
  if (argument == "--describe") return Describe();
  const int fd = EnvironmentInt(executor::kRankFdVariable, -1);
  if (argc > 1 || fd < 0 || ::fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
    std::fprintf(stderr,
                 "flowmesh-rank: started without an executor (%s names no open socket); "
                 "start flowmesh-executor instead\n",
                 executor::kRankFdVariable);
    return kUsage;
  }
  const LogLevel log_level = ParseLogLevel(Environment("LOG_LEVEL")).value_or(LogLevel::kInfo);
  StartLog(log_level);
  const bool use_cuda = Environment(executor::kRankDeviceVariable) == "cuda";
  if (use_cuda) {
    absl::Status status = device::LoadCudaLibrary();
    if (status.ok()) status = device::SelectGpu(EnvironmentInt("LOCAL_RANK", 0));  // tasks run here
    if (!status.ok()) {
      LogError("cannot use the GPU: {}", Message(status));
      return kCannotStart;
    }
  }
  return Serve(UniqueFd(fd), use_cuda, log_level);
}

}  // namespace
}  // namespace flowmesh::rank

int main(int argc, char** argv) {
  flowmesh::DieWithParent(
      flowmesh::rank::EnvironmentInt(flowmesh::executor::kRankParentVariable, 0));
  flowmesh::BlockTerminationSignals();
  return flowmesh::rank::Main(argc, argv);
}
