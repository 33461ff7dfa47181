// flowmeshctl: hands tasks to an orchestrator or a worker, follows them, and runs them here.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "absl/strings/str_cat.h"
#include "clients/cli/commands.h"
#include "clients/cli/interrupt.h"
#include "common/env.h"
#include "common/log.h"
#include "common/signals.h"

namespace flowmesh::cli {
namespace {

constexpr char kExamples[] = R"(
Examples:
  flowmeshctl run task.yaml                                 one document here, on a worker of its own
  flowmeshctl submit flow.yaml --watch                      through the orchestrator on this machine
  flowmeshctl submit task.yaml --sidecar unix:/path.sock    straight to one worker
  flowmeshctl show 0f7e6d5c-4b3a-4291-8888-777766665555     a task with its result
  flowmeshctl list --orchestrator http://127.0.0.1:8000 --json

Environment: ORCHESTRATOR_BASE_URL and SIDECAR_LISTEN are the defaults of --orchestrator
[http://127.0.0.1:8000] and --sidecar [127.0.0.1:50061]; ORCHESTRATOR_TOKEN is the bearer token;
RESULTS_DIR is where `run` keeps task folders [./results_workers].
Exit status: 0 success, 1 failure, 2 wrong use, 130 interrupted.
)";

std::string FromEnvironment(const char* name, const char* fallback) {
  return SystemEnv()(name).value_or("").empty() ? fallback : *SystemEnv()(name);
}

// Which side a command speaks to when the user did not say.
enum class Default { kOrchestrator, kSidecar, kNone };

void FillTargets(Options& options, Default which) {
  if (!options.orchestrator.empty() || !options.sidecar.empty()) return;
  if (which == Default::kOrchestrator) {
    options.orchestrator = FromEnvironment("ORCHESTRATOR_BASE_URL", "http://127.0.0.1:8000");
  } else if (which == Default::kSidecar) {
    options.sidecar = FromEnvironment("SIDECAR_LISTEN", "127.0.0.1:50061");
  }
}

class Cli {
 public:
  Cli()
      : app_(
            "Hands FlowMesh tasks to an orchestrator or a worker, follows them, or runs them "
            "here.") {
    app_.name("flowmeshctl");
    app_.footer(kExamples);
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
    list_->add_option("--limit", options_.limit, "at most so many");
    worker_ = app_.add_subcommand("worker", "the workers, their hardware and load");
    drain_ = app_.add_subcommand("drain", "let a worker finish its tasks and end (worker only)");
    drain_->add_flag("--wait", options_.wait, "return when it has ended and is unregistered");
    drain_
        ->add_option("--timeout", options_.timeout,
                     "with --wait: seconds after which to fail [no limit]")
        ->check(CLI::PositiveNumber);
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
    options_.token = SystemEnv()("ORCHESTRATOR_TOKEN").value_or("");
    Interrupt interrupt;
    const absl::StatusOr<int> exit = Dispatch(interrupt);
    if (exit.ok()) return *exit;
    std::fprintf(stderr, "flowmeshctl: %s\n", Message(exit.status()).c_str());
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
        "run a document on this machine, stages one after the other, on a sidecar and an executor "
        "that are started for it and ended after it; with --sidecar, on those that run there");
    run_->add_option("FILE", options_.file, "YAML document; - for stdin")->required();
    run_->add_option("--device", options_.device, "auto, cpu, or GPU places such as 0,1 [auto]");
    run_->add_option("--results", options_.results, "folder for the task folders");
    run_->add_flag("--deliver", options_.deliver, "also send results to spec.output.destination");
  }

  CLI::App* AddWithTask(const char* name, const char* help) {
    CLI::App* command = app_.add_subcommand(name, help);
    command->add_option("ID", options_.task_id, "task id")->required();
    return command;
  }

  absl::StatusOr<int> Dispatch(Interrupt& interrupt) {
    if (*submit_) {
      FillTargets(options_, Default::kOrchestrator);
      return SubmitCommand(options_, interrupt);
    }
    if (*run_) {
      if (!options_.orchestrator.empty()) {
        return absl::InvalidArgumentError(
            "`run` needs no orchestrator; `submit` hands it the document");
      }
      if (options_.results.empty())
        options_.results = FromEnvironment("RESULTS_DIR", "./results_workers");
      return RunCommand(options_, interrupt);
    }
    FillTargets(options_, Default::kSidecar);
    if (*watch_) return WatchCommand(options_, interrupt);
    if (*show_) return ShowCommand(options_);
    if (*cancel_) return CancelCommand(options_);
    if (*list_) return ListCommand(options_);
    if (*worker_) return WorkerCommand(options_);
    return DrainCommand(options_, interrupt);
  }

  Options options_;
  CLI::App app_;
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
