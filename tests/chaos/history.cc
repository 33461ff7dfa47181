#include "tests/chaos/history.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/strings.h"

namespace flowmesh::testing {
std::string_view ToText(Step step) {
  switch (step) {
    case Step::kPublished:
      return "published";
    case Step::kReceived:
      return "received";
    case Step::kAccepted:
      return "accepted";
    case Step::kDispatched:
      return "dispatched";
    case Step::kStarted:
      return "started";
    case Step::kFinished:
      return "finished";
    case Step::kResultSent:
      return "result sent";
    case Step::kResultStored:
      return "result stored";
    case Step::kHandedBack:
      break;
  }
  return "handed back";
}

std::optional<Step> StepOf(const Json& event) {
  const std::string type = event.value("type", "");
  if (type == "TASK_STARTED") return Step::kStarted;
  if (type == "TASK_SUCCEEDED" || type == "TASK_FAILED") return Step::kFinished;
  return std::nullopt;
}

void History::Add(Step step, const std::string& task_id, const std::string& where) {
  absl::MutexLock lock(&mutex_);
  entries_.push_back({clock_.Monotonic(), step, task_id, where});
  firsts_.emplace(task_id, entries_.back().at);
}

void History::BeginDeaf(const std::string& reason, absl::Duration on_the_way) {
  absl::MutexLock lock(&mutex_);
  deaf_.push_back({clock_.Monotonic() - on_the_way, absl::InfiniteDuration(), reason});
}

void History::EndDeaf() {
  absl::MutexLock lock(&mutex_);
  if (!deaf_.empty()) deaf_.back().end = clock_.Monotonic();
}

bool History::IsDeafLocked(absl::Duration at) const {
  return std::any_of(deaf_.begin(), deaf_.end(),
                     [&](const Window& window) { return window.begin <= at && at <= window.end; });
}

bool History::IsDeafAtFirst(const std::string& task_id) const {
  absl::MutexLock lock(&mutex_);
  const auto first = firsts_.find(task_id);
  return first != firsts_.end() && IsDeafLocked(first->second);
}

size_t History::Count(Step step) const {
  absl::MutexLock lock(&mutex_);
  return static_cast<size_t>(std::count_if(entries_.begin(), entries_.end(),
                                           [&](const Entry& e) { return e.step == step; }));
}

std::string History::ToString() const {
  absl::MutexLock lock(&mutex_);
  return Lines("");
}

std::string History::Lines(const std::string& task_id) const {
  std::string lines;
  for (const Entry& entry : entries_) {
    if (!task_id.empty() && entry.task_id != task_id) continue;
    absl::StrAppend(&lines,
                    absl::StrFormat("\n  %10.4f  %-13s  %s",
                                    absl::ToDoubleSeconds(entry.at - entries_.front().at),
                                    ToAbsl(ToText(entry.step)), entry.task_id),
                    entry.where.empty() ? "" : " on ", entry.where);
  }
  return lines;
}

absl::Status History::Violation(const std::string& what, const std::string& task_id) const {
  return absl::FailedPreconditionError(absl::StrCat("task ", task_id, ": ", what, Lines(task_id)));
}

std::string History::Judge(const Entry& entry, Way& way) {
  const auto has = [&way](Step step) { return way.counts.count(step) > 0; };
  const bool again = way.counts[entry.step]++ > 0;
  const std::string was = absl::StrCat("it was ", ToAbsl(ToText(entry.step)));
  if (entry.step == Step::kFinished && again) return was + " twice";
  if (entry.step == Step::kResultStored && again) return "its result was stored twice";
  if (entry.step == Step::kResultStored && !has(Step::kResultSent)) {
    return "its result was stored but never sent";
  }
  if (has(Step::kFinished) && (entry.step == Step::kDispatched || entry.step == Step::kStarted)) {
    return was + " after it was finished";
  }
  if (entry.step < Step::kFinished && !again) {
    for (const auto& [step, count] : way.counts) {
      if (step <= entry.step || step > Step::kFinished) continue;
      return absl::StrCat(was, " after it was ", ToAbsl(ToText(step)));
    }
  }
  if (entry.step == Step::kDispatched) {
    if (way.executor) return absl::StrCat(was, " while ", *way.executor, " had it");
    way.executor = entry.where;
  }
  if (entry.step == Step::kHandedBack || entry.step == Step::kFinished) way.executor.reset();
  return "";
}

std::string History::JudgeEnd(const Entry& first, const Way& way) const {
  const auto has = [&way](Step step) { return way.counts.count(step) > 0; };
  if (has(Step::kAccepted) && !has(Step::kFinished)) return "it was accepted and never finished";
  if (has(Step::kResultSent) && !has(Step::kResultStored)) {
    return "its result was sent and never stored";
  }
  if (first.step != Step::kPublished || way.counts.size() > 1) return "";
  return IsDeafLocked(first.at) ? ""
                                : "it was published outside any deaf window and nobody took it";
}

absl::Status History::Check() const {
  absl::MutexLock lock(&mutex_);
  std::map<std::string, Way> ways;
  for (const Entry& entry : entries_) {
    const std::string violation = Judge(entry, ways[entry.task_id]);
    if (!violation.empty()) return Violation(violation, entry.task_id);
  }
  std::set<std::string> seen;
  for (const Entry& entry : entries_) {
    if (!seen.insert(entry.task_id).second) continue;
    const std::string violation = JudgeEnd(entry, ways[entry.task_id]);
    if (!violation.empty()) return Violation(violation, entry.task_id);
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::testing
