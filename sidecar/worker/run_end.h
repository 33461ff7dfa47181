// How the run of a task ended, in the forms that it takes on its way: the executor's last event,
// what is to be delivered of it, and what is said of a failure.
#pragma once

#include <optional>
#include <string>

#include "common/json.h"
#include "common/status.h"
#include "sidecar/delivery/delivery_job.h"
#include "sidecar/dispatch/executor_link.h"
#include "sidecar/journal/journal.h"
#include "sidecar/worker/task_table.h"

namespace flowmesh::sidecar {

// The end of a run, and what is to be delivered unless it failed before it had a folder.
struct Ended {
  TaskEnd end;
  // Not OK: why there is none.
  absl::StatusOr<DeliveryJob> job = absl::FailedPreconditionError("it has no folder");
};

struct Outcome {
  absl::Status status;             // not OK: the task fails with this text
  std::optional<DeliveryJob> job;  // nothing: it failed before it had a folder
  Json failure_record;             // of a failed task, may be null
  Json details = Json::object();   // for the payload of the event
  JournalKeep keep = JournalKeep::kNothing;
};

// `executor`: its name, for errors. `token`: a secret that no text may hold.
Outcome OutcomeOf(Ended ended, const std::string& executor, const std::string& token);

// A run that failed before the executor saw it.
TaskEnd FailedBefore(const absl::Status& status);
bool WasCancelled(const TaskEnd& end);

// The event that carries an end, and back; `event` has one.
v1::TaskEvent ToEvent(const TaskEnd& end);
TaskEnd FromEvent(v1::TaskEvent event);

// Executors are programs of many: what one says of a failure may quote the task's document.
void BlankSecrets(const DeliveryJob& job, const std::string& token, v1::TaskFailed& failed);

// Enters a run that ended earlier, as the journal keeps it.
void RestoreClosed(const JournalClosed& closed, TaskTable& tasks);

// Why a task failed, as a metric's label.
std::string CauseOf(const absl::Status& status, const Json& details, JournalKeep keep);

}  // namespace flowmesh::sidecar
