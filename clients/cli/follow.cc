#include "clients/cli/follow.h"

#include <cstdio>
#include <optional>
#include <thread>

#include "absl/base/thread_annotations.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "clients/cli/commands.h"
#include "clients/cli/progress.h"
#include "clients/cli/text.h"
#include "common/clock.h"

namespace flowmesh::cli {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(500);

absl::Time TimeOf(const v1::TaskEvent& event) {
  if (!event.has_time()) return Clock::Real().Now();
  return absl::FromUnixSeconds(event.time().seconds()) + absl::Nanoseconds(event.time().nanos());
}

// Shows updates: a bar on a terminal, whose seconds go on between them, a line per new state
// elsewhere.
class Reporter {
 public:
  explicit Reporter(const FollowOptions& options) : options_(options) {
    if (options.show && !options.json && line_.on_terminal()) {
      ticker_ = std::thread([this] { Tick(); });
    }
  }

  ~Reporter() {
    {
      absl::MutexLock lock(&mutex_);
      over_ = true;
    }
    if (ticker_.joinable()) ticker_.join();
  }

  void Report(const v1::TaskUpdate& update) {
    absl::MutexLock lock(&mutex_);
    const v1::TaskLogLine& log = update.event().log_line();
    if (!options_.show) {
      // A field that was ignored, say: nobody looks into the task's log for what went well.
      if (log.level() == "WARNING" || log.level() == "ERROR") {
        line_.Print(absl::StrCat(log.level(), ": ", log.text()));
      }
      return;
    }
    if (update.event().has_progress()) {
      progress_ = update.event().progress();
      left_ = time_left_.After(progress_, TimeOf(update.event()));
    }
    if (options_.json) {
      Json line = client::ToJson(update);
      if (update.event().has_progress() && left_) {
        line["seconds_left"] = absl::ToDoubleSeconds(*left_);
      }
      std::printf("%s\n", DumpJson(line).c_str());
      std::fflush(stdout);
      return;
    }
    if (update.has_record() && update.record().state() != state_) {
      state_ = update.record().state();
      if (!line_.on_terminal() && !client::IsTerminal(state_)) {
        line_.Print(absl::StrCat(update.record().task_id(), "  ", v1::TaskState_Name(state_)));
      }
    }
    if (update.event().has_log_line() && log.level() != "DEBUG") {
      line_.Print(absl::StrCat(log.level(), ": ", log.text()));
    }
    if (state_ == v1::QUEUED || state_ == v1::DELIVERING) {
      progress_.Clear();
      progress_.set_stage(state_ == v1::QUEUED ? "queued" : "delivering");
      left_.reset();
    } else if (!update.has_event() && update.record().has_progress()) {
      progress_ = update.record().progress();
    }
    Draw();
  }

 private:
  void Draw() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    line_.Show(ProgressText(progress_, Clock::Real().Monotonic() - began_, left_, line_.width()));
  }

  void Tick() {
    absl::MutexLock lock(&mutex_);
    while (!mutex_.AwaitWithTimeout(absl::Condition(&over_), kTick)) {
      if (state_ != v1::TASK_STATE_UNSPECIFIED && !client::IsTerminal(state_)) Draw();
    }
  }

  const FollowOptions options_;
  const absl::Duration began_ = Clock::Real().Monotonic();
  absl::Mutex mutex_;
  ProgressLine line_ ABSL_GUARDED_BY(mutex_);
  v1::TaskState state_ ABSL_GUARDED_BY(mutex_) = v1::TASK_STATE_UNSPECIFIED;
  v1::TaskProgress progress_ ABSL_GUARDED_BY(mutex_);
  TimeLeft time_left_ ABSL_GUARDED_BY(mutex_);
  std::optional<absl::Duration> left_ ABSL_GUARDED_BY(mutex_);
  bool over_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread ticker_;
};

}  // namespace

absl::StatusOr<v1::TaskRecord> Follow(client::SidecarClient& sidecar, const std::string& task_id,
                                      const FollowOptions& options, Interrupt& interrupt) {
  if (options.cancel_on_interrupt) {
    interrupt.SetActions([&] { static_cast<void>(sidecar.Cancel(task_id)); },
                         [&] { sidecar.StopWatching(); });
  } else {
    interrupt.SetActions([&] { sidecar.StopWatching(); }, [&] { sidecar.StopWatching(); });
  }
  Reporter reporter(options);
  absl::StatusOr<v1::TaskRecord> record =
      sidecar.Watch(task_id, [&](const v1::TaskUpdate& update) { reporter.Report(update); });
  interrupt.ClearActions();
  return record;
}

absl::StatusOr<int> FollowTask(client::SidecarClient& sidecar, const std::string& task_id,
                               const FollowOptions& options, Interrupt& interrupt) {
  const absl::StatusOr<v1::TaskRecord> record = Follow(sidecar, task_id, options, interrupt);
  if (interrupt.requested() && !record.ok()) {
    std::fputs("no longer watching; the task goes on\n", stderr);
    return kExitInterrupted;
  }
  RETURN_IF_ERROR(record.status());
  const Json json = client::ToJson(*record);
  if (options.json) {
    if (!options.show) std::printf("%s\n", DumpJson(json, 2).c_str());
  } else if (record->state() == v1::SUCCEEDED) {
    std::fputs(ResultText(json.value("result", Json())).c_str(), stdout);
  }
  if (record->state() == v1::SUCCEEDED) return 0;
  std::fprintf(stderr, "task %s failed: %s\n", task_id.c_str(), record->error().c_str());
  PrintFilesOfFailed(*record);
  return kExitFailed;
}

void PrintFilesOfFailed(const v1::TaskRecord& record) {
  if (record.task_dir().empty()) return;
  std::fprintf(stderr, "files: %s\n", record.task_dir().c_str());
}

}  // namespace flowmesh::cli
