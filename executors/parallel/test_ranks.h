// Ranks in processes of their own, for tests: the test program starts itself once per rank, with
// the name of the function that the rank is to run.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "common/subprocess.h"
#include "executors/parallel/process_group.h"

namespace flowmesh::parallel {

// What a rank does. What it returns becomes its output.
using RankFunction = std::string (*)(const GroupOptions& options);

// Registers a function; to be used for a global.
struct RankFunctionRegistration {
  RankFunctionRegistration(const char* name, RankFunction function);
};

// For main(): whether this process is to be a rank, and doing so; returns the exit status.
bool IsRank();
int RunAsRank();

// Joins, hands the group over, and returns its text, or the error's.
std::string WithGroup(const GroupOptions& options, std::string (*body)(ProcessGroup& group));

struct RankEnd {
  ExitStatus status;
  std::string output;
};

struct RanksToRun {
  int world_size = 2;
  absl::Duration timeout = absl::Seconds(60);
  absl::Duration join_timeout = absl::Seconds(60);
  std::set<int> absent;  // ranks that never start
  std::string master_addr = "127.0.0.1";
  // What stands before the program's name in the command of a rank, to run it elsewhere.
  std::map<int, std::vector<std::string>> run_by;
  std::set<int> endless;  // ranks that are killed when the others have ended
};

// Whether each rank of such a world can have a device of its own; ranks on CPUs share.
bool HasDevices(int world_size);

// Runs them to their ends, by rank number.
std::map<int, RankEnd> RunRanks(const std::string& function, const RanksToRun& ranks);

}  // namespace flowmesh::parallel
