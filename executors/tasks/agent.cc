#include "executors/tasks/agent.h"

#include <algorithm>
#include <filesystem>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/field.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/tasks/data_context.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;

constexpr absl::Duration kTimeoutOfOne = absl::Seconds(600);
constexpr absl::Duration kTimeoutOfEach = absl::Seconds(300);
constexpr absl::Duration kClockGrain = absl::Milliseconds(10);  // of what measures time limits
constexpr double kLongestTimeout = 30 * 86400;                  // seconds
constexpr size_t kMostLogLines = 2000;  // of the result; utu_logs/ holds all

constexpr char kOutput[] = "agent_output.txt";
constexpr char kBatchLogs[] = "batch_logs";
constexpr char kSummary[] = "batch_summary.json";
constexpr char kLogs[] = "utu_logs";
constexpr char kWorkspace[] = "workspace";

absl::StatusOr<absl::Duration> ReadTimeout(const Field& agent) {
  const Field field = agent.FirstOf({"timeout", "timeoutSec"});
  if (!field.present()) return absl::ZeroDuration();
  const absl::StatusOr<double> seconds = field.Number();
  if (!seconds.ok() || *seconds <= 0 || *seconds > kLongestTimeout) {
    return field.Expected("a number of seconds above 0");
  }
  return absl::Seconds(*seconds);
}

// One run of a task.
class AgentJob {
 public:
  AgentJob(const TaskContext& context, const EnvLookup& env, AgentModels* models)
      : context_(context), env_(env), models_(models), begin_(Clock::Real().Monotonic()) {}

  absl::StatusOr<TaskOutcome> Run() {
    absl::StatusOr<TaskOutcome> outcome = Answer();
    if (!outcome.ok() && !absl::IsCancelled(outcome.status())) {
      context_.on_failure_record(FailureRecord(outcome.status()));
    }
    return outcome;
  }

 private:
  absl::StatusOr<TaskOutcome> Answer() {
    RemoveOldFiles();
    const auto warn = [this](const std::string& text) {
      context_.on_log(LogLevel::kWarning, text);
    };
    ASSIGN_OR_RETURN(spec_, ReadAgentSpec(context_.document, warn));
    const auto configuration = agent::LoadConfiguration(spec_.config_name, env_);
    if (!configuration.ok()) return Annotate(configuration.status(), "spec.configName");
    // Before models are loaded and servers started: a wrong column costs no minutes.
    RETURN_IF_ERROR(LoadTasks());
    ASSIGN_OR_RETURN(const std::unique_ptr<agent::Assistant> assistant,
                     agent::Assistant::Make(*configuration, Environment(warn), ChatModels()));
    Log(absl::StrCat("loaded configuration ", spec_.config_name));

    const bool is_one = tasks_.size() == 1;
    const absl::Duration timeout = spec_.timeout > absl::ZeroDuration() ? spec_.timeout
                                   : is_one                             ? kTimeoutOfOne
                                                                        : kTimeoutOfEach;
    std::vector<std::string> secrets = assistant->secrets();
    secrets.push_back(context_.orchestrator_token);
    ASSIGN_OR_RETURN(
        ends_,
        agent::RunBatch(
            *assistant, tasks_,
            {.logs = context_.task_dir / kLogs,
             .workspaces = context_.task_dir / kWorkspace,
             .timeout = timeout,
             .concurrency = spec_.concurrency,
             .secrets = std::move(secrets),
             .is_stopped = context_.is_stopped,
             .on_line = [this](size_t i, const std::string& line) { Log(Labelled(i, line)); },
             .on_step =
                 [this](size_t i, const std::string& step, size_t finished) {
                   context_.on_progress({.stage = Labelled(i, step),
                                         .done = finished,
                                         .total = tasks_.size(),
                                         .unit = "items"});
                 }}));
    for (agent::TaskEnd& end : ends_) {
      // An endpoint has time limits of its own.
      const bool is_over = absl::Seconds(end.seconds) + kClockGrain >= timeout;
      if (is_over && absl::IsDeadlineExceeded(end.answer.status())) {
        end.answer = absl::DeadlineExceededError(absl::StrCat(
            "not over within ", absl::FormatDuration(timeout), " (spec.agent.timeout)"));
      }
    }
    TaskOutcome outcome;
    ASSIGN_OR_RETURN(outcome.result, is_one ? ResultOfOne() : ResultOfSeveral());
    return outcome;
  }

  agent::ToolEnvironment Environment(std::function<void(const std::string&)> warn) const {
    agent::ToolEnvironment environment{.env = env_,
                                       .warn = std::move(warn),
                                       .is_stopped = context_.is_stopped,
                                       .on_ingest = OnIngestOf(context_)};
    if (models_ != nullptr) {
      environment.make_embedder = [this](const std::string& model) {
        return models_->MakeEmbedder(model, context_);
      };
    }
    return environment;
  }

  agent::MakeLocalModel ChatModels() const {
    if (models_ == nullptr) return {};
    return [this](const agent::ModelOverrides& settings) {
      return models_->MakeChat(settings, context_);
    };
  }

  // Of an earlier attempt.
  void RemoveOldFiles() const {
    std::error_code ignored;
    for (const char* name : {kOutput, kBatchLogs, kSummary, kLogs, kWorkspace}) {
      fs::remove_all(context_.task_dir / name, ignored);
    }
  }

  absl::Status LoadTasks() {
    std::vector<data::Prompt> prompts = std::move(spec_.prompts.prompts);
    if (spec_.prompts.data_set) {
      ASSIGN_OR_RETURN(prompts,
                       data::LoadPrompts(*spec_.prompts.data_set, DataContextOf(context_, env_)));
    }
    for (data::Prompt& prompt : prompts) {
      if (Trim(prompt.rendered).empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(prompt.path, ": expected a task, got an empty text"));
      }
      tasks_.push_back(std::move(prompt.rendered));
    }
    return absl::OkStatus();
  }

  std::string Labelled(size_t task, const std::string& text) const {
    return tasks_.size() == 1 ? text : absl::StrCat("task ", task + 1, ": ", text);
  }

  void Log(const std::string& line) {
    context_.on_log(LogLevel::kInfo, line);
    if (log_.size() < kMostLogLines) {
      log_.push_back(line);
    } else if (log_.size() == kMostLogLines) {
      log_.push_back(absl::StrCat("more in ", kLogs, "/"));
    }
  }

  Json Usage() const {
    Json usage = {{"execution_time_sec", absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin_)},
                  {"num_requests", tasks_.size()},
                  {"agent_config", spec_.config_name}};
    agent::ChatUsage tokens;
    int64_t calls = 0;
    for (const agent::TaskEnd& end : ends_) {
      tokens.prompt_tokens += end.usage.prompt_tokens;
      tokens.completion_tokens += end.usage.completion_tokens;
      calls += end.model_calls;
    }
    usage["model_calls"] = calls;
    if (tokens.prompt_tokens + tokens.completion_tokens == 0) return usage;  // it gives none
    usage["prompt_tokens"] = tokens.prompt_tokens;
    usage["completion_tokens"] = tokens.completion_tokens;
    usage["total_tokens"] = tokens.prompt_tokens + tokens.completion_tokens;
    return usage;
  }

  Json FailureRecord(const absl::Status& status) const {
    Json metadata = {{"error", Message(status)}, {"execution_log", log_}};
    if (tasks_.size() == 1) metadata["task"] = tasks_.front();
    return {{"ok", false},
            {"model", spec_.config_name},
            {"items", Json::array()},
            {"usage", Usage()},
            {"metadata", std::move(metadata)}};
  }

  Json Result(Json items, Json metadata) const {
    metadata["execution_log"] = log_;
    return {{"ok", true},
            {"model", spec_.config_name},
            {"items", std::move(items)},
            {"usage", Usage()},
            {"metadata", std::move(metadata)}};
  }

  absl::StatusOr<Json> ResultOfOne() const {
    RETURN_IF_ERROR(ends_.front().answer.status());
    const std::string& answer = *ends_.front().answer;
    RETURN_IF_ERROR(WriteFileAtomically(context_.task_dir / kOutput, answer));
    return Result({{{"index", 0}, {"output", answer}, {"finish_reason", "completed"}}},
                  {{"task", tasks_.front()}});
  }

  absl::StatusOr<Json> ResultOfSeveral() const {
    RETURN_IF_ERROR(MakeDirectories(context_.task_dir / kBatchLogs));
    Json items = Json::array(), entries = Json::array();
    size_t completed = 0;
    for (size_t i = 0; i < ends_.size(); ++i) {
      const absl::StatusOr<std::string>& answer = ends_[i].answer;
      const std::string name = absl::StrCat(kBatchLogs, "/task_", i + 1, "_output.txt");
      const std::string error = answer.ok() ? "" : Message(answer.status());
      RETURN_IF_ERROR(WriteFileAtomically(context_.task_dir / name,
                                          answer.ok() ? *answer : absl::StrCat("failed: ", error)));
      const char* reason = answer.ok() ? "completed" : "failed";
      items.push_back(
          {{"index", i}, {"output", answer.ok() ? *answer : ""}, {"finish_reason", reason}});
      entries.push_back({{"index", i},
                         {"task", tasks_[i]},
                         {"finish_reason", reason},
                         {"execution_time_sec", ends_[i].seconds},
                         {"output_file", name}});
      if (!answer.ok()) items.back()["error"] = entries.back()["error"] = error;
      if (answer.ok()) ++completed;
    }
    Json summary = {{"total_tasks", ends_.size()},
                    {"completed", completed},
                    {"failed", ends_.size() - completed}};
    Json result =
        Result(std::move(items), {{"tasks_count", ends_.size()}, {"batch_summary", summary}});
    summary["tasks"] = std::move(entries);
    RETURN_IF_ERROR(WriteFileAtomically(context_.task_dir / kSummary, DumpJson(summary, 2)));
    return result;
  }

  const TaskContext& context_;
  const EnvLookup& env_;
  AgentModels* const models_;
  const absl::Duration begin_;
  AgentSpec spec_;
  std::vector<std::string> tasks_;
  std::vector<agent::TaskEnd> ends_;
  std::vector<std::string> log_;
};

}  // namespace

absl::StatusOr<AgentSpec> ReadAgentSpec(const Json& document,
                                        const std::function<void(const std::string&)>& warn) {
  const Field spec = Field(&document, "")["spec"], agent = spec["agent"];
  AgentSpec result;
  const Field name = spec.FirstOf({"configName", "config_name"});
  ASSIGN_OR_RETURN(const std::string given, name.StringOr("default"));
  result.config_name = Trim(given).empty() ? "default" : std::string(Trim(given));
  RETURN_IF_ERROR(agent.CheckMap());
  ASSIGN_OR_RETURN(result.timeout, ReadTimeout(agent));
  ASSIGN_OR_RETURN(const int64_t concurrency,
                   agent["concurrency"].IntOr(result.concurrency, 1, 64));
  result.concurrency = static_cast<int>(concurrency);
  if (agent.present()) {
    for (const auto& [key, value] : agent.json().items()) {
      if (key == "timeout" || key == "timeoutSec" || key == "concurrency") continue;
      warn(absl::StrCat("ignored field ", agent.path(), ".", key));
    }
  }
  ASSIGN_OR_RETURN(result.prompts, data::ReadTasks(spec));
  return result;
}

absl::StatusOr<TaskOutcome> AgentRunner::Run(const TaskContext& context) {
  if (models_ != nullptr) models_->BeginRun();
  return AgentJob(context, env_, models_.get()).Run();
}

}  // namespace flowmesh::tasks
