#include "executors/parallel/test_ranks.h"

#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/endpoint.h"
#include "common/files.h"
#include "executors/device/test_device.h"

namespace flowmesh::parallel {
namespace {

constexpr char kFunctionVariable[] = "TEST_RANK_FUNCTION";
constexpr char kTimeoutVariable[] = "TEST_RANK_TIMEOUT_MS";
constexpr char kJoinTimeoutVariable[] = "TEST_RANK_JOIN_TIMEOUT_MS";
constexpr absl::Duration kBound = absl::Seconds(100);

std::map<std::string, RankFunction>& Functions() {
  static auto& functions = *new std::map<std::string, RankFunction>();
  return functions;
}

absl::Duration Milliseconds(const char* variable) {
  int64_t number = 0;
  (void)absl::SimpleAtoi(std::getenv(variable), &number);
  return absl::Milliseconds(number);
}

}  // namespace

bool IsRank() { return std::getenv(kFunctionVariable) != nullptr; }

int RunAsRank() {
  DieWithParent(0);
  GroupOptions options =
      ProcessGroup::OptionsFromEnvironment(device::TestDevice().is_cuda()).value();
  options.timeout = Milliseconds(kTimeoutVariable);
  options.join_timeout = Milliseconds(kJoinTimeoutVariable);
  std::printf("%s", Functions().at(std::getenv(kFunctionVariable))(options).c_str());
  std::fflush(stdout);
  return 0;
}

bool HasDevices(int world_size) {
  return device::TestDevice().is_cpu() || device::CountGpus() >= world_size;
}

RankFunctionRegistration::RankFunctionRegistration(const char* name, RankFunction function) {
  Functions()[name] = function;
}

std::string WithGroup(const GroupOptions& options, std::string (*body)(ProcessGroup& group)) {
  absl::StatusOr<std::unique_ptr<ProcessGroup>> group = ProcessGroup::Join(options);
  return group.ok() ? body(**group) : group.status().ToString();
}

std::map<int, RankEnd> RunRanks(const std::string& function, const RanksToRun& ranks) {
  const TempDir folder;
  const int port = FreeLoopbackPort().value();
  std::map<int, Subprocess> processes;
  for (int rank = 0; rank < ranks.world_size; ++rank) {
    if (ranks.absent.count(rank) > 0) continue;
    const std::filesystem::path output = folder / absl::StrCat(rank);
    const UniqueFd file(::open(output.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    SubprocessOptions options;
    const auto run_by = ranks.run_by.find(rank);
    if (run_by != ranks.run_by.end()) options.argv = run_by->second;
    options.argv.push_back(std::filesystem::read_symlink("/proc/self/exe").string());
    options.env = {
        {"RANK", absl::StrCat(rank)},
        {"LOCAL_RANK", absl::StrCat(rank)},
        {"WORLD_SIZE", absl::StrCat(ranks.world_size)},
        {"MASTER_ADDR", ranks.master_addr},
        {"MASTER_PORT", absl::StrCat(port)},
        {"OMP_NUM_THREADS", "1"},
        {kFunctionVariable, function},
        {kTimeoutVariable, absl::StrCat(absl::ToInt64Milliseconds(ranks.timeout))},
        {kJoinTimeoutVariable, absl::StrCat(absl::ToInt64Milliseconds(ranks.join_timeout))}};
    options.stdout_fd = file.get();
    processes.emplace(rank, Subprocess::Start(options).value());
  }
  std::map<int, RankEnd> ends;
  const auto end = [&](int rank, Subprocess& process, absl::Duration bound) {
    const std::optional<ExitStatus> status = process.Wait(bound);
    ends[rank].status = status ? *status : process.Terminate(absl::ZeroDuration());
    ends[rank].output = ReadFile(folder / absl::StrCat(rank)).value_or("");
  };
  for (auto& [rank, process] : processes) {
    if (ranks.endless.count(rank) == 0) end(rank, process, kBound);
  }
  for (const int rank : ranks.endless) end(rank, processes.at(rank), absl::ZeroDuration());
  return ends;
}

}  // namespace flowmesh::parallel
