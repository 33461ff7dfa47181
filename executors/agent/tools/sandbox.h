// Programs that a model wrote, held by bubblewrap: user, network, process and mount namespaces of
// their own, the system's programs and libraries readable, one folder writable, nothing else there.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/subprocess.h"
#include "executors/agent/tools/tool.h"

namespace flowmesh::agent {

struct SandboxLimits {
  absl::Duration time = absl::Seconds(60);
  // Address space of each process, and what all of them hold together.
  int64_t memory_bytes = int64_t{1} << 30;
  int64_t file_bytes = int64_t{256} << 20;    // of each file that it writes
  uint64_t folder_bytes = uint64_t{1} << 30;  // of all that is in the workspace
  // At a time. By the kernel with bubblewrap, and not where the worker is root; else they are
  // counted now and then, as memory and folder are, and too many end it.
  int processes = 64;
  size_t kept_output = 30000;        // bytes that are kept
  uint64_t most_output = 16u << 20;  // bytes after which it is ended
};

// Whether bubblewrap can be had and the kernel lets it do what it must. Starts it once.
absl::Status CheckBubblewrap();

struct ProgramEnd {
  std::string output;  // stdout and stderr together: the beginning
  uint64_t output_bytes = 0;
  std::optional<ExitStatus> status;  // nothing: it was ended
  bool is_late = false, is_flood = false;
  std::string too_much;  // of what it had, where that ended it: `memory`
};

// Runs `argv` in the context's workspace until its end, a limit, the context's deadline, or until
// it is stopped (Cancelled); nothing of it runs on. Its environment holds nothing of ours.
// `with_bubblewrap` false: only the limits hold it, it sees and does what this process may, and
// what has made a session of its own (setsid) runs on.
absl::StatusOr<ProgramEnd> RunProgram(const std::vector<std::string>& argv,
                                      const ToolContext& context, const SandboxLimits& limits,
                                      bool with_bubblewrap);

}  // namespace flowmesh::agent
