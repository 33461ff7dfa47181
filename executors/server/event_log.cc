#include "executors/server/event_log.h"

#include <fcntl.h>
#include <google/protobuf/util/time_util.h>
#include <unistd.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/strings.h"

namespace flowmesh::executor {

EventLog::EventLog(const std::filesystem::path& log_file, const Clock& clock, EventLogLimits limits)
    : clock_(clock), limits_(limits) {
  if (log_file.empty()) return;
  file_ = UniqueFd(::open(log_file.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644));
  if (!file_.valid()) LogWarning("{}", Message(ErrnoError("cannot write", log_file)));
}

void EventLog::Append(v1::TaskEvent event) {
  event.set_sequence(next_);
  *event.mutable_time() =
      google::protobuf::util::TimeUtil::NanosecondsToTimestamp(absl::ToUnixNanos(clock_.Now()));
  bytes_ += event.ByteSizeLong();
  events_.emplace_hint(events_.end(), next_++, std::make_shared<v1::TaskEvent>(std::move(event)));
}

void EventLog::Started() {
  v1::TaskEvent event;
  event.mutable_started();
  absl::MutexLock lock(&mutex_);
  Append(std::move(event));
}

void EventLog::Progress(v1::TaskProgress progress) {
  v1::TaskEvent event;
  *event.mutable_progress() = std::move(progress);
  absl::MutexLock lock(&mutex_);
  if (complete_) return;
  if (newest_progress_) {
    const auto superseded = events_.find(*newest_progress_);
    bytes_ -= superseded->second->ByteSizeLong();
    events_.erase(superseded);
  }
  newest_progress_ = next_;
  Append(std::move(event));
}

void EventLog::LogLine(v1::TaskLogLine line) {
  absl::MutexLock lock(&mutex_);
  if (complete_) return;
  WriteToFile(line);
  const bool within = log_lines_ < limits_.log_lines && log_bytes_ < limits_.log_line_bytes;
  ++log_lines_;
  if (within) {
    log_bytes_ += line.text().size();
    if (log_lines_ == limits_.log_lines || log_bytes_ >= limits_.log_line_bytes) {
      line.set_text(absl::StrCat(line.text(), " [further lines are in logs/task.log only]"));
    }
    v1::TaskEvent event;
    *event.mutable_log_line() = std::move(line);
    Append(std::move(event));
  }
}

void EventLog::WriteToFile(const v1::TaskLogLine& line) {
  if (!file_.valid() || file_bytes_ >= limits_.log_file_bytes) return;
  std::string text =
      absl::StrCat(absl::FormatTime("%Y-%m-%d %H:%M:%E3S", clock_.Now(), absl::LocalTimeZone()),
                   " | ", line.level(), " | ", line.text(), "\n");
  file_bytes_ += text.size();
  if (file_bytes_ >= limits_.log_file_bytes) text += "[log lines beyond the limit are lost]\n";
  // One write per line: O_APPEND keeps lines whole beside other writers. A full disk loses log
  // text, never a task.
  (void)!::write(file_.get(), text.data(), text.size());
}

void EventLog::End(TaskEnd end) {
  v1::TaskEvent event;
  absl::MutexLock lock(&mutex_);
  if (complete_) return;
  if (auto* finished = std::get_if<v1::TaskFinished>(&end)) {
    outcome_ = "succeeded";
    *event.mutable_finished() = std::move(*finished);
  } else {
    v1::TaskFailed& failed = std::get<v1::TaskFailed>(end);
    outcome_ = ToLower(v1::TaskFailed::Code_Name(failed.code()));
    v1::TaskLogLine line;
    line.set_level("ERROR");
    line.set_text(failed.message());
    WriteToFile(line);
    *event.mutable_failed() = std::move(failed);
  }
  Append(std::move(event));
  complete_ = true;
  file_.Reset();
}

EventLog::Batch EventLog::Read(uint64_t from, absl::Duration timeout) const {
  struct Want {
    const EventLog* log;
    uint64_t from;
    bool Ready() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
      return log->complete_ || log->next_ > from;
    }
  } want{this, from};
  absl::MutexLock lock(&mutex_);
  Clock::Real().Await(mutex_, absl::Condition(&want, &Want::Ready), timeout);
  Batch batch;
  for (auto it = events_.lower_bound(from); it != events_.end(); ++it) {
    batch.events.push_back(it->second);
  }
  batch.next = std::max(from, next_);
  batch.complete = complete_;
  return batch;
}

bool EventLog::complete() const {
  absl::MutexLock lock(&mutex_);
  return complete_;
}

bool EventLog::WaitComplete(absl::Duration timeout) const {
  absl::MutexLock lock(&mutex_);
  return Clock::Real().Await(mutex_, absl::Condition(&complete_), timeout);
}

std::string EventLog::outcome() const {
  absl::MutexLock lock(&mutex_);
  return outcome_;
}

uint64_t EventLog::bytes() const {
  absl::MutexLock lock(&mutex_);
  return bytes_;
}

}  // namespace flowmesh::executor
