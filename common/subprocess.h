// Child processes in process groups of their own, so that a whole family can be ended at once.
#pragma once

#include <signal.h>
#include <sys/types.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/files.h"
#include "common/status.h"

namespace flowmesh {

// How a process ended.
struct ExitStatus {
  int exit_code = 0;
  int signal = 0;  // not 0: killed by it

  bool ok() const { return exit_code == 0 && signal == 0; }
  // `exit code 3`, `signal 9 (Killed)`.
  std::string ToString() const;
};

struct SubprocessOptions {
  std::vector<std::string> argv;  // argv[0] is looked up in PATH when it has no slash
  // Added to (or, with clear_env, instead of) this process's environment.
  std::map<std::string, std::string> env;
  bool clear_env = false;
  std::string working_directory;  // empty: ours
  int stdin_fd = -1;              // -1: /dev/null
  int stdout_fd = -1;             // -1: ours
  int stderr_fd = -1;             // -1: ours
  // Descriptors the child keeps, as (ours, its number): {{socket, 3}}.
  std::vector<std::pair<int, int>> inherited_fds;
  // It gets none of the others, not even those that somebody forgot to mark close-on-exec.
  bool closes_other_fds = false;
};

// Owns one child. The destructor kills its whole group and reaps it. One thread at a time,
// except Signal(), which any thread may call.
class Subprocess {
 public:
  // NotFound when the program does not exist.
  static absl::StatusOr<Subprocess> Start(const SubprocessOptions& options);

  Subprocess(Subprocess&& other) noexcept;
  Subprocess& operator=(Subprocess&& other) noexcept;
  ~Subprocess();

  pid_t pid() const { return pid_; }

  // Sends a signal to the whole group; nothing when it is over.
  void Signal(int signal) const;

  // The exit status, if it has ended by now.
  std::optional<ExitStatus> Poll();

  // Waits for the end, at most `timeout`; nothing when it still runs.
  std::optional<ExitStatus> Wait(absl::Duration timeout);

  // SIGTERM, then SIGKILL after `grace`; then SIGKILL to what is left of the group; returns when
  // the child is reaped.
  ExitStatus Terminate(absl::Duration grace);

 private:
  explicit Subprocess(pid_t pid) : pid_(pid) {}

  pid_t pid_ = -1;
  std::optional<ExitStatus> status_;
};

// The program that `name` means as in a shell: a path, or a name that a folder of PATH holds.
// Nothing when no such file can be run.
std::optional<std::filesystem::path> FindExecutable(const std::string& name);

// Asks the kernel to send this process `signal` when its parent dies. To be called at the start of
// main() by programs that must not outlive whoever started them; exits at once when the parent is
// gone already (`expected_parent` is its pid, from the environment; 0 skips that check).
void DieWithParent(pid_t expected_parent, int signal = SIGKILL);

// Set for a server that somebody starts for himself alone (`flowmeshctl run`): his pid. The server
// ends as by SIGTERM when he is gone.
inline constexpr char kParentVariable[] = "FLOWMESH_PARENT_PID";

// Does that, where the variable is set.
void EndWithParentIfAsked();

}  // namespace flowmesh
