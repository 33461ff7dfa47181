// One rank: its process and the descriptors through which its group watches it.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/status.h"
#include "common/subprocess.h"
#include "executors/launch/output_log.h"

namespace flowmesh::executor {

struct RankGroupOptions {
  std::vector<std::string> command;  // the rank program and its arguments
  int world_size = 1;
  bool use_cuda = false;
  std::string visible_devices;             // CUDA_VISIBLE_DEVICES of the ranks; empty: none
  int threads = 1;                         // of all ranks together
  std::map<std::string, std::string> env;  // more variables
  // Where the output goes until the first task says otherwise; empty: nowhere.
  std::filesystem::path logs_dir;
  OutputLogLimits output;
  // How long the other ranks get to end after the first one failed.
  absl::Duration failure_grace = absl::Seconds(2);
};

struct RankProcess {
  Subprocess process;
  UniqueFd pidfd;   // readable when the process has ended
  UniqueFd socket;  // frames; non-blocking
  UniqueFd output;  // its stdout and stderr; non-blocking
};

// Starts rank `rank` of the group. NotFound: no such program. ResourceExhausted or Unavailable: the
// system refuses.
absl::StatusOr<RankProcess> StartRankProcess(const RankGroupOptions& options, int rank,
                                             int master_port);

// SIGKILL to a process group whose leader has ended but is not reaped yet (so that its number
// cannot belong to anybody else). The leader is then to be reaped, and AwaitGroupGone waits for the
// rest.
void KillGroupRemains(pid_t leader);

// Waits until nothing is left of the group, reaping what has become our child; at most `timeout`.
bool AwaitGroupGone(pid_t leader, absl::Duration timeout);

}  // namespace flowmesh::executor
