// What each command of flowmeshctl does. Results go to stdout, everything else to stderr.
#pragma once

#include <cstdint>
#include <string>

#include "clients/cli/interrupt.h"
#include "clients/cpp/sidecar_client.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::cli {

inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitInterrupted = 130;  // as shells say it of Ctrl-C

struct Options {
  bool json = false;
  std::string orchestrator;  // URL; empty unless chosen
  std::string sidecar;       // gRPC target; empty unless chosen
  std::string token;
  std::string file;     // submit, run; `-`: stdin
  std::string task_id;  // watch, show, cancel
  bool wait = false;    // submit, drain
  double timeout = 0;   // drain: seconds to wait; 0: no limit
  bool watch = false;
  bool fail_fast = false;
  uint32_t limit = 0;
  std::string device = "auto";  // run
  std::string results;          // run: folder of task folders
  bool deliver = false;         // run: keep an http destination
};

// Each begins with interrupts that end the process, and takes them over before it starts or follows
// anything. Each returns the exit status, or an error to be told to the user (exit status 1).
absl::StatusOr<int> SubmitCommand(const Options& options, Interrupt& interrupt);
absl::StatusOr<int> WatchCommand(const Options& options, Interrupt& interrupt);
absl::StatusOr<int> ListCommand(const Options& options);
absl::StatusOr<int> ShowCommand(const Options& options);
absl::StatusOr<int> CancelCommand(const Options& options);
absl::StatusOr<int> WorkerCommand(const Options& options);
absl::StatusOr<int> DrainCommand(const Options& options, Interrupt& interrupt);
absl::StatusOr<int> RunCommand(const Options& options, Interrupt& interrupt);

// FILE, as text and as what it says. Keys that nobody reads are named on stderr. Errors name it.
struct Document {
  std::string yaml;
  Json json;
};
absl::StatusOr<Document> ReadDocument(const std::string& file);

// Waits a little for a sidecar that may have been started just now, and says so on stderr. Whether
// it came shows when it is asked.
void AwaitSidecar(client::SidecarClient& sidecar);

}  // namespace flowmesh::cli
