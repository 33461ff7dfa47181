// What became of every task, as seen from outside, and whether the promises held (PROMISES.md).
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "common/clock.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::testing {

// What may happen to a task. An observer records what it can see: steps may be missing.
enum class Step {
  // In this order.
  kPublished,
  kReceived,    // heard by the worker
  kAccepted,    // the worker answers for it
  kDispatched,  // given to an executor
  kStarted,     // TASK_STARTED
  kFinished,    // TASK_SUCCEEDED or TASK_FAILED
  // Beside them.
  kResultSent,    // once per try
  kResultStored,  // once, whatever the number of tries
  kHandedBack,    // the executor is rid of it, without an end: the next dispatch may come
};

std::string_view ToText(Step step);

// The step that an event of PROTOCOL.md 5.2 tells of; nothing for others.
std::optional<Step> StepOf(const Json& event);

// Append-only. Thread-safe.
class History {
 public:
  explicit History(const Clock& clock = Clock::Real()) : clock_(clock) {}

  // `where`: the executor of kDispatched and kHandedBack.
  void Add(Step step, const std::string& task_id, const std::string& where = "");
  // Between these two messages may be missed, and so may what was on its way: what was published
  // less than `on_the_way` before. A window that nobody ends lasts.
  void BeginDeaf(const std::string& reason, absl::Duration on_the_way = absl::ZeroDuration());
  void EndDeaf();
  // Whether the first that is known of a task lies in a deaf window.
  bool IsDeafAtFirst(const std::string& task_id) const;

  // To be asked when everything has come to rest. FailedPrecondition with the first violation, in
  // the order of the log, and the whole way of its task:
  //   - the steps of a task first come in their order, and none runs again after its end;
  //   - what was published came to some later step, unless it was published in a deaf window;
  //   - what was accepted finished, and nothing finished twice;
  //   - no task is with two executors at once;
  //   - what was sent is stored, once, and after it was sent.
  absl::Status Check() const;

  size_t Count(Step step) const;
  // All of it, a line per entry: seconds since the first, step, task, executor.
  std::string ToString() const;

 private:
  struct Entry {
    absl::Duration at;
    Step step;
    std::string task_id, where;
  };
  struct Window {
    absl::Duration begin, end;
    std::string reason;
  };
  // What is known of a task while the log is read.
  struct Way {
    std::map<Step, int> counts;
    std::optional<std::string> executor;  // that has it
  };

  bool IsDeafLocked(absl::Duration at) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The violation that `entry` is, given what came before; empty when it is none.
  static std::string Judge(const Entry& entry, Way& way);
  // What is missing at the end.
  std::string JudgeEnd(const Entry& first, const Way& way) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status Violation(const std::string& what, const std::string& task_id) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::string Lines(const std::string& task_id) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Clock& clock_;
  mutable absl::Mutex mutex_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, absl::Duration> firsts_ ABSL_GUARDED_BY(mutex_);  // by task
  std::vector<Window> deaf_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace flowmesh::testing
