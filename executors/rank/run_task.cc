#include "executors/rank/run_task.h"

#include <exception>
#include <new>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/strings.h"
#include "executors/launch/output_log.h"
#include "executors/launch/task_type_name.h"

namespace flowmesh::rank {
namespace {

constexpr absl::Duration kProgressInterval = absl::Milliseconds(50);
constexpr size_t kMaxMessageBytes = 8 << 10;

v1::FromRank Failed(v1::TaskFailed::Code code, std::string_view message) {
  v1::FromRank answer;
  answer.mutable_failed()->set_code(code);
  const std::string text = ToValidUtf8(message);
  answer.mutable_failed()->set_message(std::string(CutUtf8(text, kMaxMessageBytes)));
  return answer;
}

v1::TaskFailed::Code CodeOf(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return v1::TaskFailed::INVALID_SPEC;
    case absl::StatusCode::kCancelled:
      return v1::TaskFailed::CANCELLED;
    case absl::StatusCode::kInternal:
      return v1::TaskFailed::INTERNAL;
    case absl::StatusCode::kAborted:
      return v1::TaskFailed::PEER_LOST;
    default:
      return v1::TaskFailed::TASK_ERROR;
  }
}

// The readable part of an exception's text: libtorch appends where it was raised and a C++ stack.
std::string_view FirstCause(std::string_view text) {
  text = text.substr(0, text.find("\nException raised from"));
  text = text.substr(0, text.find("\nC++ CapturedTraceback"));
  return Trim(text);
}

v1::FromRank FromException(std::string_view what) {
  const std::string_view cause = FirstCause(what);
  const bool memory = cause.find("out of memory") != std::string_view::npos ||
                      cause.find("can't allocate memory") != std::string_view::npos;
  return Failed(v1::TaskFailed::TASK_ERROR,
                memory ? absl::StrCat("out of memory: ", ToAbsl(cause)) : std::string(cause));
}

v1::OutputFile::Kind ToProto(tasks::OutputFile::Kind kind) {
  switch (kind) {
    case tasks::OutputFile::Kind::kJsonlExport:
      return v1::OutputFile::JSONL_EXPORT;
    case tasks::OutputFile::Kind::kFinalModel:
      return v1::OutputFile::FINAL_MODEL;
    case tasks::OutputFile::Kind::kFinalLora:
      return v1::OutputFile::FINAL_LORA;
  }
  return v1::OutputFile::KIND_UNSPECIFIED;
}

const char* Name(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return "DEBUG";
    case LogLevel::kInfo:
      return "INFO";
    case LogLevel::kWarning:
      return "WARNING";
    case LogLevel::kError:
    case LogLevel::kCritical:
      return "ERROR";
  }
  return "INFO";
}

// Passes progress on, thinned out.
class ProgressFilter {
 public:
  ProgressFilter(const TaskCallbacks& callbacks, const Clock& clock)
      : callbacks_(callbacks), clock_(clock) {}

  void operator()(const tasks::Progress& progress) {
    const absl::Duration now = clock_.Monotonic();
    const bool is_end = progress.total > 0 && progress.done == progress.total;
    const bool edge = progress.stage != stage_ || is_end;
    if (!edge && now - last_ < kProgressInterval) return;
    stage_ = progress.stage;
    last_ = now;
    v1::FromRank message;
    v1::TaskProgress& out = *message.mutable_progress();
    out.set_stage(ToValidUtf8(progress.stage));
    out.set_done(progress.done);
    out.set_total(progress.total);
    out.set_unit(progress.unit);
    out.set_tokens_per_second(progress.tokens_per_second);
    if (progress.loss) out.set_loss(*progress.loss);
    callbacks_.send(std::move(message));
  }

 private:
  const TaskCallbacks& callbacks_;
  const Clock& clock_;
  std::string stage_;
  absl::Duration last_ = -absl::InfiniteDuration();
};

tasks::TaskContext ToContext(const v1::ExecuteRequest& request, Json document,
                             const TaskCallbacks& callbacks, const Clock& clock) {
  tasks::TaskContext context;
  context.task_id = request.task_id();
  context.document = std::move(document);
  context.task_dir = request.task_dir();
  for (const auto& [id, dir] : request.child_task_dirs()) context.child_dirs[id] = dir;
  context.results_dir = request.results_dir();
  context.orchestrator_base_url = request.orchestrator_base_url();
  context.orchestrator_token = request.orchestrator_token();
  context.on_progress = ProgressFilter(callbacks, clock);
  context.on_log = [&callbacks](LogLevel level, const std::string& text) {
    if (level < callbacks.log_level) return;
    v1::FromRank message;
    message.mutable_log_line()->set_level(Name(level));
    message.mutable_log_line()->set_text(ToValidUtf8(text));
    callbacks.send(std::move(message));
  };
  context.is_stopped = callbacks.is_stopped;
  return context;
}

v1::FromRank Finished(const tasks::TaskOutcome& outcome) {
  v1::FromRank answer;
  v1::TaskFinished& finished = *answer.mutable_finished();
  finished.set_result_json(DumpJson(outcome.result));
  for (const tasks::OutputFile& file : outcome.outputs) {
    v1::OutputFile& out = *finished.add_outputs();
    out.set_kind(ToProto(file.kind));
    out.set_task_id(file.task_id);
    out.set_path(file.path.string());
  }
  return answer;
}

v1::FromRank RunUnguarded(const v1::ExecuteRequest& request, const TaskRunners& runners,
                          const TaskCallbacks& callbacks, const Clock& clock) {
  absl::StatusOr<Json> document = ParseJson(request.document_json());
  if (!document.ok()) return Failed(v1::TaskFailed::INVALID_SPEC, Message(document.status()));
  const absl::StatusOr<std::string> type = Field(&*document, "")["spec"]["taskType"].StringOr("");
  const auto runner = type.ok() ? runners.find(executor::CanonicalTaskType(*type)) : runners.end();
  if (runner == runners.end()) {
    return Failed(v1::TaskFailed::INTERNAL, "the rank has no runner for this task type");
  }
  tasks::TaskContext context = ToContext(request, *std::move(document), callbacks, clock);
  std::string record;
  context.on_failure_record = [&](const Json& json) { record = DumpJson(json); };
  const absl::StatusOr<tasks::TaskOutcome> outcome = runner->second->Run(context);
  if (outcome.ok()) return Finished(*outcome);
  v1::FromRank failed = Failed(CodeOf(outcome.status()), Message(outcome.status()));
  failed.mutable_failed()->set_result_json(record);
  return failed;
}

}  // namespace

v1::FromRank RunTask(const v1::ExecuteRequest& request, const TaskRunners& runners,
                     const TaskCallbacks& callbacks, const Clock& clock) {
  // Runners throw what libtorch and the standard library throw.
  try {
    return RunUnguarded(request, runners, callbacks, clock);
  } catch (const std::bad_alloc&) {
    return Failed(v1::TaskFailed::TASK_ERROR, "out of memory: the system gave no more");
  } catch (const std::exception& e) {
    return FromException(e.what());
  } catch (...) {
    return Failed(v1::TaskFailed::INTERNAL, "an exception of unknown type");
  }
}

}  // namespace flowmesh::rank
