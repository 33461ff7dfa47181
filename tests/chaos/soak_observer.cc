#include "tests/chaos/soak_observer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh::testing {
namespace {

constexpr double kAllowedJitter = 0.1;  // of the interval

constexpr char kLostExecutor[] = "was lost while the task ran";

size_t CountOf(const std::string& text, std::string_view what) {
  size_t count = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++count;
  return count;
}

}  // namespace

std::string SoakChildId(const std::string& id, int child) { return absl::StrCat(id, "-c", child); }

void SoakObserver::Violate(const std::string& what) {
  absl::MutexLock lock(&mutex_);
  ViolateLocked(what);
}

void SoakObserver::ViolateLocked(const std::string& what) {
  if (violation_.ok()) violation_ = absl::FailedPreconditionError(what);
}

// --- What comes in -------------------------------------------------------------------------------

void SoakObserver::Hear(const std::string& id, Sent& sent) {
  if (!sent.heard) history_.Add(Step::kAccepted, id);
  sent.heard = true;
}

void SoakObserver::OnEvent(const Json& event) {
  absl::MutexLock lock(&mutex_);
  const std::string type = event.value("type", ""), worker = event.value("worker_id", "");
  if (type == "HEARTBEAT") {
    OnBeat(worker);
  } else if (type == "REGISTER") {
    beats_[worker].registering = true;
  } else if (absl::StartsWith(type, "TASK")) {
    OnTaskEvent(event);
  }
}

void SoakObserver::OnBeat(const std::string& worker) {
  Beats& beats = beats_[worker];
  if (std::exchange(beats.registering, false) || disturbed_) return;
  const absl::Duration now = Clock::Real().Monotonic();
  if (beats.last) {
    const double intervals = std::max(1., std::round(absl::FDivDuration(now - *beats.last, beat_)));
    const absl::Duration jitter = absl::AbsDuration(now - *beats.last - intervals * beat_);
    if (!beats.disturbed) {
      report_.lost_beats += static_cast<size_t>(intervals) - 1;
    } else if (jitter > kAllowedJitter * beat_ && !std::exchange(beats.retried, true)) {
      return;
    }
    jitters_.push_back(jitter);
  }
  beats = {.last = now};
}

void SoakObserver::OnTaskEvent(const Json& event) {
  const std::string id = event.value("task_id", "");
  const auto found = sent_.find(id);
  if (found == sent_.end()) {
    return ViolateLocked(absl::StrCat("an event of no task: ", DumpJson(event)));
  }
  Sent& sent = found->second;
  if (event["worker_id"] != sent.worker) {
    ViolateLocked(absl::StrCat("task ", id, " is not that worker's: ", DumpJson(event)));
  }
  Hear(id, sent);
  const std::optional<Step> step = StepOf(event);
  if (step == Step::kStarted) history_.Add(Step::kStarted, id);
  if (step == Step::kFinished) OnEnd(id, sent, event);
}

void SoakObserver::OnEnd(const std::string& id, Sent& sent, const Json& event) {
  std::string words = DumpJson(event);
  if (sent.end == words) {  // sent at least once, and this was once more
    ++report_.repeated;
    return;
  }
  history_.Add(Step::kFinished, id);
  if (sent.end.empty() && !sent.missed) --in_flight_[sent.worker];
  sent.end = std::move(words);
  if (sent.task) CheckEnd(id, sent, event);
}

void SoakObserver::CheckEnd(const std::string& id, const Sent& sent, const Json& event) {
  const bool succeeded = event["type"] == "TASK_SUCCEEDED";
  ++(succeeded ? report_.succeeded : report_.failed);
  const std::string error = succeeded ? "" : event.value("error", "");
  if (absl::StrContains(error, kLostExecutor)) {
    ++report_.lost_executors;
  } else if (succeeded != sent.task->may_succeed()) {
    ViolateLocked(absl::StrCat("task ", id, " ended as it should not: ", sent.end));
  } else if (!succeeded && !absl::StrContains(error, "as it was told to") &&
             !absl::StrContains(error, "rank 0 died")) {
    ViolateLocked(absl::StrCat("task ", id, " does not say why it failed: ", sent.end));
  }
  if (!succeeded || !sent.task->http) return;
  std::vector<std::string> units = {id};
  if (sent.task->kind == SoakTask::Kind::kMerged) {
    units.insert(units.end(), {SoakChildId(id, 0), SoakChildId(id, 1)});
  }
  for (const std::string& unit : units) {
    if (stored_.count(unit) > 0) continue;
    ViolateLocked(
        absl::StrCat("task ", id, " succeeded before the result of ", unit, " was stored"));
  }
}

void SoakObserver::OnRequest(const httplib::Request& request, httplib::Response& reply) {
  absl::MutexLock lock(&mutex_);
  if (request.method == "GET") {
    const auto found = sent_.find(request.path.substr(request.path.rfind('/') + 1));
    if (found == sent_.end()) {
      reply.status = 404;
      return;
    }
    const Sent& sent = found->second;
    const bool failed = absl::StrContains(sent.end, "TASK_FAILED");
    const char* status = sent.end.empty() ? "DISPATCHED" : failed ? "FAILED" : "DONE";
    reply.set_content(DumpJson({{"status", status}, {"assigned_worker", sent.worker}}),
                      "application/json");
    return;
  }
  const absl::StatusOr<Json> body = ParseJson(request.body);
  if (!body.ok() || !(*body)["task_id"].is_string()) {
    return ViolateLocked(absl::StrCat("not a result: ", request.body));
  }
  const std::string id = (*body)["task_id"];
  history_.Add(Step::kResultSent, id);
  const auto [stored, is_new] = stored_.emplace(id, request.body);
  if (!is_new && stored->second == request.body) {
    ++report_.sent_again;
  } else {
    history_.Add(Step::kResultStored, id);  // the second is a violation
  }
  reply.set_content(R"({"ok":true,"path":"p"})", "application/json");
}

// --- What is done --------------------------------------------------------------------------------

void SoakObserver::Published(const std::string& id, const std::string& worker,
                             std::optional<SoakTask> task) {
  history_.Add(Step::kPublished, id);
  absl::MutexLock lock(&mutex_);
  ++in_flight_[worker];
  if (task) ++report_.published;
  sent_[id] = {.task = task, .worker = worker};
}

void SoakObserver::Accepted(const std::string& id) {
  absl::MutexLock lock(&mutex_);
  Hear(id, sent_[id]);
}

void SoakObserver::BeginDeaf(const std::string& reason) {
  history_.BeginDeaf(reason, on_the_way_);
  Disturb(true);
}

void SoakObserver::EndDeaf() {
  history_.EndDeaf();
  absl::MutexLock lock(&mutex_);
  for (auto& [id, sent] : sent_) {  // the others are still awaited
    if (sent.heard || sent.missed || !history_.IsDeafAtFirst(id)) continue;
    sent.missed = true;
    --in_flight_[sent.worker];
  }
  DisturbLocked(false);
}

void SoakObserver::Disturb(bool disturbed) {
  absl::MutexLock lock(&mutex_);
  DisturbLocked(disturbed);
}

void SoakObserver::DisturbLocked(bool disturbed) {
  disturbed_ = disturbed;
  for (auto& [worker, beats] : beats_) beats.disturbed = true;
}

void SoakObserver::ForgetBeats() {
  absl::MutexLock lock(&mutex_);
  for (auto& [worker, beats] : beats_) beats.last.reset();
}

// --- What is known -------------------------------------------------------------------------------

size_t SoakObserver::in_flight(const std::string& worker) const {
  absl::MutexLock lock(&mutex_);
  const auto found = in_flight_.find(worker);
  return found == in_flight_.end() ? 0 : found->second;
}

bool SoakObserver::Heard(const std::string& id) const {
  absl::MutexLock lock(&mutex_);
  return sent_.at(id).heard;
}

bool SoakObserver::Ended(const std::string& id) const {
  absl::MutexLock lock(&mutex_);
  return !sent_.at(id).end.empty();
}

bool SoakObserver::AllEnded() const {
  absl::MutexLock lock(&mutex_);
  return std::all_of(sent_.begin(), sent_.end(), [](const auto& sent) {
    return !sent.second.end.empty() || (sent.second.missed && !sent.second.heard);
  });
}

void SoakObserver::CheckFiles(const std::filesystem::path& results, size_t executor_kills) {
  absl::MutexLock lock(&mutex_);
  size_t again = 0;
  for (const auto& [id, sent] : sent_) {
    if (!sent.task || sent.end.empty()) continue;
    const size_t runs = CheckFolder(id, sent, results / id);
    if (runs > 1) again += runs - 1;
  }
  if (again > executor_kills) {
    ViolateLocked(
        absl::StrCat(again, " tasks ran again for ", executor_kills, " killed executors"));
  }
  if (report_.lost_executors > executor_kills) {
    ViolateLocked(absl::StrCat(report_.lost_executors, " tasks failed for ", executor_kills,
                               " killed executors"));
  }
}

size_t SoakObserver::CheckFolder(const std::string& id, const Sent& sent,
                                 const std::filesystem::path& folder) {
  const std::string log = ReadFile(folder / "logs/task.log").value_or("");
  const size_t runs = CountOf(log, sent.task->kind == SoakTask::Kind::kEcho ? "| echo: " : "| run");
  if (!absl::StrContains(sent.end, "TASK_SUCCEEDED")) return runs;
  if (runs == 0) ViolateLocked(absl::StrCat("task ", id, " succeeded and never ran"));
  const absl::StatusOr<std::string> text = ReadFile(folder / "responses.json");
  const absl::StatusOr<Json> result = text.ok() ? ParseJson(*text) : text.status();
  if (!result.ok() || (*result)["ok"] != true) {
    ViolateLocked(
        absl::StrCat("task ", id, " succeeded without a result: ", text.value_or("none")));
  }
  return runs;
}

SoakReport SoakObserver::Report() const {
  const absl::Status lost_or_doubled = history_.Check();
  absl::MutexLock lock(&mutex_);
  SoakReport report = report_;
  for (const auto& [id, sent] : sent_) {
    report.missed += sent.task && sent.missed && !sent.heard ? 1 : 0;
  }
  std::vector<absl::Duration> jitters = jitters_;
  // A beat that did not come is as late as one can be.
  jitters.insert(jitters.end(), report.lost_beats, beat_);
  std::sort(jitters.begin(), jitters.end());
  report.beats = jitters.size();
  if (!jitters.empty()) {
    report.jitter = absl::FDivDuration(jitters[jitters.size() * 9 / 10], beat_);
    report.worst_jitter = absl::FDivDuration(jitters.back(), beat_);
  }
  report.verdict = !lost_or_doubled.ok() ? lost_or_doubled : violation_;
  if (report.verdict.ok() && (jitters.empty() || report.jitter > kAllowedJitter)) {
    report.verdict = absl::FailedPreconditionError("heartbeats come irregularly");
  }
  if (report.verdict.ok() && report.lost_beats > report.beats / 100) {
    report.verdict = absl::FailedPreconditionError(
        absl::StrCat(report.lost_beats, " of ", report.beats, " heartbeats never came"));
  }
  return report;
}

}  // namespace flowmesh::testing
