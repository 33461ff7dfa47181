// flowmeshctl: hands tasks to an orchestrator or a worker, follows them, and runs them here.
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/interrupt.h"
#include "common/endpoint.h"
#include "common/env.h"
#include "common/log.h"
#include "common/signals.h"
#include "common/strings.h"
#include "common/url.h"

namespace flowmesh::cli {
namespace {

constexpr char kExamples[] = R"(
Examples:
  flowmeshctl run task.yaml                                 one document here, on a worker of its own
  flowmeshctl submit task.yaml --watch                      straight to the worker on this machine
  flowmeshctl submit flow.yaml --orchestrator http://127.0.0.1:8000
  flowmeshctl show 0f7e6d5c-4b3a-4291-8888-777766665555     a task with its result
  flowmeshctl list --orchestrator http://127.0.0.1:8000 --json

All but `run` speak to the worker of --sidecar or the orchestrator of --orchestrator; without either
to that of SIDECAR_LISTEN, else of ORCHESTRATOR_BASE_URL, else to the worker at 127.0.0.1:50061.
Exit status: 0 success, 1 failure, 2 wrong use, 130 interrupted.

Environment:
)";

constexpr char kDefaultSidecar[] = "127.0.0.1:50061";

// The environment, with what is wrong in it.
struct Environment {
  EnvReader reader{SystemEnv()};
  std::string sidecar =
      reader.String("SIDECAR_LISTEN", "", "a worker: host:port or unix:/path, see above");
  std::string orchestrator =
      reader.HttpUrl("ORCHESTRATOR_BASE_URL", "", "URL of an orchestrator, see above");
  std::string token = reader.Secret("ORCHESTRATOR_TOKEN", "the orchestrator's bearer token");
  std::string results =
      reader.String("RESULTS_DIR", "./results_workers", "where `run` keeps the tasks' folders");
};

absl::Status CheckSidecar(std::string_view name, const std::string& target) {
  const absl::StatusOr<Endpoint> endpoint = ParseEndpoint(target);
  const bool is_unix = target.starts_with("unix:") && target.size() > 5;  // maybe a relative path
  if (is_unix || (endpoint.ok() && endpoint->port > 0)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(ToAbsl(name), ": expected host:port or unix:/path, got \"", target, "\""));
}

class Cli {
 public:
  Cli()
      : app_(
            "Hands FlowMesh tasks to an orchestrator or a worker, follows them, or runs them "
            "here.") {
    app_.name("flowmeshctl");
    app_.footer(kExamples + environment_.reader.Help());
    app_.set_version_flag("--version", "flowmeshctl " FLOWMESH_VERSION);
    app_.require_subcommand(1);
    app_.fallthrough();
    app_.add_flag("--json", options_.json, "machine-readable output");
    auto* orchestrator =
        app_.add_option("--orchestrator", options_.orchestrator, "URL of an orchestrator");
    auto* sidecar =
        app_.add_option("--sidecar", options_.sidecar, "a worker: host:port or unix:/path");
    orchestrator->excludes(sidecar);
    AddSubmitAndRun();
    watch_ = AddWithTask("watch", "follow a task to its end and print its result");
    show_ = AddWithTask("show", "a task's record and result");
    cancel_ = AddWithTask("cancel", "end a task (worker only)");
    list_ = app_.add_subcommand("list", "the known tasks");
    limit_ = list_->add_option("--limit", options_.limit, "at most so many");
    worker_ = app_.add_subcommand("worker", "the workers, their hardware and load");
    drain_ = app_.add_subcommand("drain", "let a worker finish its tasks and end (worker only)");
    drain_->add_flag("--wait", options_.wait, "return when it has ended and is unregistered");
    timeout_ = drain_->add_option("--timeout", options_.timeout,
                                  "with --wait: seconds after which to fail [no limit]");
  }

  int Main(int argc, char** argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::Success& help) {
      return app_.exit(help);
    } catch (const CLI::ParseError& error) {
      // CLI11 says of an unknown command only that one is required.
      const bool no_command = app_.get_subcommands().empty() && argc > 1 && argv[1][0] != '-';
      const std::string what =
          no_command ? absl::StrCat("unknown command '", argv[1], "'") : std::string(error.what());
      std::fprintf(stderr, "flowmeshctl: %s\nTry `flowmeshctl --help`.\n", what.c_str());
      return kExitUsage;
    }
    for (const absl::Status& wrong : {FillTargets(), Misuse()}) {
      if (wrong.ok()) continue;
      std::fprintf(stderr, "flowmeshctl: %s\nTry `flowmeshctl --help`.\n", Message(wrong).c_str());
      return kExitUsage;
    }
    Interrupt interrupt;
    const auto leave = [] { ::_exit(kExitInterrupted); };
    interrupt.SetActions(leave, leave);
    const absl::StatusOr<int> exit = Dispatch(interrupt);
    if (exit.ok()) return *exit;
    if (interrupt.requested()) return kExitInterrupted;
    const bool hints = is_default_ && absl::IsUnavailable(exit.status());
    std::fprintf(stderr, "flowmeshctl: %s%s\n", Message(exit.status()).c_str(),
                 hints ? "; --sidecar or --orchestrator name others" : "");
    return kExitFailed;
  }

 private:
  void AddSubmitAndRun() {
    submit_ = app_.add_subcommand("submit", "hand in a document");
    submit_->add_option("FILE", options_.file, "YAML document; - for stdin")->required();
    submit_->add_flag("--wait", options_.wait, "wait for the end");
    submit_->add_flag("--watch", options_.watch, "wait for the end and show progress");
    submit_->add_flag("--fail-fast", options_.fail_fast,
                      "with these, to an orchestrator: end when a task fails, though it may be "
                      "tried again on another worker");
    run_ = app_.add_subcommand(
        "run",
        "run a document on this machine, on a worker that is started for it and ended after it");
    run_->footer(
        "Stages run one after the other. With --sidecar they run on the worker there. Agent\n"
        "configurations in a folder `configurations` beside the document are found, unless\n"
        "AGENT_CONFIG_DIR names another.");
    run_->add_option("FILE", options_.file, "YAML document; - for stdin")->required();
    device_ = run_->add_option("--device", options_.device,
                               "auto, cpu, or GPU places such as 0,1 [auto]");
    results_ = run_->add_option("--results", options_.results, "folder for the task folders");
    run_->add_flag("--deliver", options_.deliver, "also send results to spec.output.destination");
  }

  CLI::App* AddWithTask(const char* name, const char* help) {
    CLI::App* command = app_.add_subcommand(name, help);
    command->add_option("ID", options_.task_id, "task id")->required();
    return command;
  }

  // Options that would have no effect.
  absl::Status Misuse() const {
    std::string text;
    const bool to_orchestrator = !options_.orchestrator.empty();
    const bool to_sidecar = !options_.sidecar.empty();
    if (*run_ && to_orchestrator) {
      text = "`run` needs no orchestrator; `submit` hands it the document";
    } else if (*run_ && to_sidecar && device_->count() > 0) {
      text = "--device: the worker of --sidecar has its devices";
    } else if (*run_ && to_sidecar && results_->count() > 0) {
      text = "--results: the worker of --sidecar has its RESULTS_DIR";
    } else if (*submit_ && options_.fail_fast && to_sidecar) {
      text = "--fail-fast: expected --orchestrator beside it, as a worker tries a task once";
    } else if (*submit_ && options_.fail_fast && !options_.wait && !options_.watch) {
      text = "--fail-fast: expected --wait or --watch beside it";
    } else if (*drain_ && timeout_->count() > 0 && !options_.wait) {
      text = "--timeout: expected --wait beside it";
    } else if (timeout_->count() > 0 && !(options_.timeout > 0)) {
      text = absl::StrCat("--timeout: expected a number above 0, got ", options_.timeout);
    } else if (limit_->count() > 0 && options_.limit == 0) {
      text = "--limit: expected an integer of at least 1, got 0";
    } else if ((*drain_ || *cancel_) && to_orchestrator) {
      text = absl::StrCat("orchestrators offer no ", *drain_ ? "drain" : "cancel",
                          "; use --sidecar TARGET");
    }
    return text.empty() ? absl::OkStatus() : absl::InvalidArgumentError(text);
  }

  // Chooses whom to speak to, and checks what was chosen.
  absl::Status FillTargets() {
    RETURN_IF_ERROR(environment_.reader.status());
    options_.token = environment_.token;
    if (options_.results.empty()) options_.results = environment_.results;
    if (!options_.sidecar.empty()) return CheckSidecar("--sidecar", options_.sidecar);
    if (!options_.orchestrator.empty()) {
      if (IsHttpUrl(options_.orchestrator)) return absl::OkStatus();
      return absl::InvalidArgumentError(
          absl::StrCat("--orchestrator: expected an http or https URL, got \"",
                       WithoutUserInfo(options_.orchestrator), "\""));
    }
    if (*run_) return absl::OkStatus();
    is_default_ = true;
    const bool speaks_to_both = !*drain_ && !*cancel_;
    if (environment_.sidecar.empty() && speaks_to_both && !environment_.orchestrator.empty()) {
      options_.orchestrator = environment_.orchestrator;
      return absl::OkStatus();
    }
    options_.sidecar = environment_.sidecar.empty() ? kDefaultSidecar : environment_.sidecar;
    return CheckSidecar("SIDECAR_LISTEN", options_.sidecar);
  }

  absl::StatusOr<int> Dispatch(Interrupt& interrupt) {
    if (*submit_) return SubmitCommand(options_, interrupt);
    if (*run_) return RunCommand(options_, interrupt);
    if (*watch_) return WatchCommand(options_, interrupt);
    if (*show_) return ShowCommand(options_);
    if (*cancel_) return CancelCommand(options_);
    if (*list_) return ListCommand(options_);
    if (*worker_) return WorkerCommand(options_);
    return DrainCommand(options_, interrupt);
  }

  const Environment environment_;
  Options options_;
  CLI::App app_;
  bool is_default_ = false;  // nobody said whom to speak to
  CLI::Option* device_ = nullptr;
  CLI::Option* results_ = nullptr;
  CLI::Option* timeout_ = nullptr;
  CLI::Option* limit_ = nullptr;
  CLI::App* submit_ = nullptr;
  CLI::App* run_ = nullptr;
  CLI::App* watch_ = nullptr;
  CLI::App* show_ = nullptr;
  CLI::App* cancel_ = nullptr;
  CLI::App* list_ = nullptr;
  CLI::App* worker_ = nullptr;
  CLI::App* drain_ = nullptr;
};

}  // namespace
}  // namespace flowmesh::cli

int main(int argc, char** argv) {
  flowmesh::BlockTerminationSignals();
  flowmesh::StartLog(flowmesh::LogLevel::kWarning);
  return flowmesh::cli::Cli().Main(argc, argv);
}
