// The events of one attempt of one task, numbered from 0, for any number of readers.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/files.h"
#include "executors/launch/task_backend.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::executor {

struct EventLogLimits {
  size_t log_lines = 10000;           // kept as events; the file gets all
  uint64_t log_line_bytes = 4 << 20;  // of all of them together
  uint64_t log_file_bytes = 64ull << 20;
};

// Thread-safe. Bounded: of progress only the newest is kept (readers that keep up see every one),
// and log lines beyond the limits go to the file only. The final event closes the log; what comes
// after it is dropped.
//
// This writes `<task dir>/logs/task.log`: the executor does it for echo and rank tasks alike, from
// the same log lines that it streams, so that the file is complete even when nobody reads the
// stream.
class EventLog {
 public:
  using EventPtr = std::shared_ptr<const v1::TaskEvent>;

  struct Batch {
    std::vector<EventPtr> events;
    uint64_t next = 0;      // where to go on
    bool complete = false;  // nothing will come after these
  };

  // `log_file` may be empty; when it cannot be written, a warning says so.
  EventLog(const std::filesystem::path& log_file, const Clock& clock,
           EventLogLimits limits = EventLogLimits());

  void Started();
  void Progress(v1::TaskProgress progress);
  void LogLine(v1::TaskLogLine line);
  void End(TaskEnd end);

  // The events from `from` on that there are, waiting at most `timeout` for the first.
  Batch Read(uint64_t from, absl::Duration timeout) const;

  bool complete() const;
  // Waits for the end, at most `timeout`.
  bool WaitComplete(absl::Duration timeout) const;
  // How it ended, for counting: `succeeded`, or the failure's code in lower case; empty before.
  std::string outcome() const;
  uint64_t bytes() const;  // of all events

 private:
  void Append(v1::TaskEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void WriteToFile(const v1::TaskLogLine& line) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock& clock_;
  const EventLogLimits limits_;

  mutable absl::Mutex mutex_;
  std::map<uint64_t, EventPtr> events_ ABSL_GUARDED_BY(mutex_);
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 0;
  std::optional<uint64_t> newest_progress_ ABSL_GUARDED_BY(mutex_);
  size_t log_lines_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t log_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  bool complete_ ABSL_GUARDED_BY(mutex_) = false;
  std::string outcome_ ABSL_GUARDED_BY(mutex_);
  UniqueFd file_ ABSL_GUARDED_BY(mutex_);
  uint64_t file_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace flowmesh::executor
