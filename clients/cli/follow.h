// Follows one task of a sidecar to its end, with progress for whoever looks on.
#pragma once

#include <string>

#include "clients/cli/interrupt.h"
#include "clients/cpp/sidecar_client.h"
#include "common/status.h"

namespace flowmesh::cli {

struct FollowOptions {
  bool json = false;  // one JSON line per update on stdout when `show`, else the record
  bool show = true;   // progress and changes of state
  bool cancel_on_interrupt = false;  // Ctrl-C ends the task; otherwise only the watching
};

// The task's last record. Cancelled: the user stopped watching, or forced an end.
absl::StatusOr<v1::TaskRecord> Follow(client::SidecarClient& sidecar, const std::string& task_id,
                                      const FollowOptions& options, Interrupt& interrupt);

// Follow, then the result on stdout or the error on stderr; returns the exit status.
absl::StatusOr<int> FollowTask(client::SidecarClient& sidecar, const std::string& task_id,
                               const FollowOptions& options, Interrupt& interrupt);

// Where the files of a task that failed lie, on stderr; nothing when it had no folder.
void PrintFilesOfFailed(const v1::TaskRecord& record);

}  // namespace flowmesh::cli
