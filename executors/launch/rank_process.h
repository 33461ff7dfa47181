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

// This machine's place among those whose groups form one world.
struct NodeOptions {
  int count = 1;
  int rank = 0;
  std::string master_addr = "127.0.0.1";  // of rank 0
  int master_port = 0;                    // 0: a free one (a single machine only)
};

struct RankGroupOptions {
  std::vector<std::string> command;  // the rank program and its arguments
  int world_size = 1;                // ranks of this group, on this machine
  // Of all machines together that form one world with as many ranks each.
  NodeOptions node;
  std::string run_id;  // TORCHELASTIC_RUN_ID
  int restart_count = 0, max_restarts = 0;
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

// Starts the group's rank number `rank`, counted from 0 on each machine. NotFound: no such program.
// ResourceExhausted or Unavailable: the system refuses.
absl::StatusOr<RankProcess> StartRankProcess(const RankGroupOptions& options, int rank,
                                             int master_port);

// SIGKILL to a process group whose leader has ended but is not reaped yet (so that its number
// cannot belong to anybody else). The leader is then to be reaped, and AwaitGroupGone waits for the
// rest.
void KillGroupRemains(pid_t leader);

// Waits until nothing is left of the group, reaping what has become our child; at most `timeout`.
bool AwaitGroupGone(pid_t leader, absl::Duration timeout);

}  // namespace flowmesh::executor
