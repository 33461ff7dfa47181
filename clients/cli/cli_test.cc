// flowmeshctl as a program: against a scripted sidecar, a real orchestrator, and (where they are
// built) the real sidecar and executor.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ioctl.h>

#include <cstdlib>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "clients/cpp/fake_sidecar.h"
#include "clients/orchestrator/scripted_worker.h"
#include "common/json.h"
#include "common/subprocess.h"
#include "common/test_listener.h"

namespace flowmesh::cli {
namespace {

using client::FakeSidecar;
using orchestrator::Eventually;
using ::testing::HasSubstr;

constexpr absl::Duration kLimit = absl::Seconds(60);

std::filesystem::path Program(const std::string& name) {
  return std::filesystem::path(std::getenv("FLOWMESH_BIN_DIR")) / name;
}

class CliTest : public ::testing::Test {
 protected:
  struct Outcome {
    int exit = -1;
    std::string out, err;
    Json json() const { return ParseJson(out).value_or(Json()); }
  };

  Subprocess Start(std::vector<std::string> arguments, std::map<std::string, std::string> env = {},
                   const std::string& program = "flowmeshctl") {
    SubprocessOptions options;
    options.argv = {Program(program)};
    options.argv.insert(options.argv.end(), arguments.begin(), arguments.end());
    options.env = std::move(env);
    options.working_directory = dir_.path();
    const UniqueFd out(
        ::open((dir_ / "out").c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    const UniqueFd err(
        ::open((dir_ / "err").c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600));
    options.stdout_fd = out.get();
    options.stderr_fd = stderr_fd_ >= 0 ? stderr_fd_ : err.get();
    return Subprocess::Start(options).value();
  }

  // Starts it with a terminal as its stderr, whose other end `terminal` becomes.
  Subprocess StartOnTerminal(std::vector<std::string> arguments, UniqueFd& terminal) {
    terminal = UniqueFd(::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC));
    EXPECT_TRUE(::grantpt(terminal.get()) == 0 && ::unlockpt(terminal.get()) == 0);
    winsize size{.ws_row = 25, .ws_col = 200, .ws_xpixel = 0, .ws_ypixel = 0};
    EXPECT_EQ(::ioctl(terminal.get(), TIOCSWINSZ, &size), 0);
    const UniqueFd other(::open(::ptsname(terminal.get()), O_RDWR | O_NOCTTY | O_CLOEXEC));
    stderr_fd_ = other.get();
    Subprocess process = Start(std::move(arguments));
    stderr_fd_ = -1;
    return process;
  }

  // What flowmeshctl writes to a terminal as its stderr.
  std::string OnTerminal(std::vector<std::string> arguments) {
    UniqueFd terminal;
    EXPECT_EQ(Finish(StartOnTerminal(std::move(arguments), terminal)).exit, 0);
    std::string text;
    char bytes[4096];
    ssize_t count = 0;
    while ((count = ::read(terminal.get(), bytes, sizeof(bytes))) > 0) {  // EIO at the end
      text.append(bytes, static_cast<size_t>(count));
    }
    return text;
  }

  Outcome Finish(Subprocess process) {
    const auto status = process.Wait(kLimit);
    EXPECT_TRUE(status) << "flowmeshctl does not end";
    return {.exit = status ? status->exit_code : -1,
            .out = Out(),
            .err = ReadFile(dir_ / "err").value()};
  }

  Outcome Run(std::vector<std::string> arguments, std::map<std::string, std::string> env = {}) {
    return Finish(Start(std::move(arguments), std::move(env)));
  }

  std::string Out() const { return ReadFile(dir_ / "out").value(); }

  std::string Write(const std::string& name, const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(dir_ / name, text).ok());
    return dir_ / name;
  }

  TempDir dir_;
  int stderr_fd_ = -1;  // instead of the file
};

TEST_F(CliTest, WrongUseIsStatusTwoWithAHint) {
  const std::vector<std::vector<std::string>> wrong = {
      {},
      {"frobnicate"},
      {"submit"},
      {"show"},
      {"list", "--nope"},
      {"list", "--sidecar", "a:1", "--orchestrator", "http://b"},
      {"list", "--limit", "many"},
      {"drain", "--wait", "--timeout", "0"},
      {"drain", "--timeout", "3"},
      {"drain", "--orchestrator", "http://x"},
      {"cancel", "t", "--orchestrator", "http://x"},
      {"list", "--limit", "0"},
      {"list", "--sidecar", "nowhere"},
      {"list", "--sidecar", "127.0.0.1:0"},
      {"list", "--orchestrator", "127.0.0.1:8000"},
      {"run", "t.yaml", "--orchestrator", "http://x"},
      {"run", "t.yaml", "--sidecar", "a:1", "--results", "x"},
      {"run", "t.yaml", "--device", "cpu", "--sidecar", "a:1"},
      {"submit", "t.yaml", "--fail-fast"},
      {"submit", "t.yaml", "--fail-fast", "--wait", "--sidecar", "a:1"}};
  for (const auto& arguments : wrong) {
    const Outcome outcome = Run(arguments);
    EXPECT_EQ(outcome.exit, 2);
    EXPECT_THAT(outcome.err, HasSubstr("Try `flowmeshctl --help`"));
    EXPECT_EQ(outcome.out, "");
  }
  EXPECT_THAT(Run({"frobnicate"}).err, HasSubstr("frobnicate"));
  const Outcome help = Run({"--help"});
  EXPECT_EQ(help.exit, 0);
  EXPECT_THAT(help.out, HasSubstr("Examples:"));
  EXPECT_EQ(Run({"run", "--help"}).exit, 0);
  EXPECT_THAT(Run({"run", "t.yaml", "--results", "x", "--sidecar", "a:1"}).err,
              HasSubstr("--results: the worker of --sidecar has its RESULTS_DIR"));
}

TEST_F(CliTest, EveryProgramSaysItsVersionAndHelps) {
  for (const char* name : {"flowmeshctl", "flowmesh-sidecar", "flowmesh-executor", "flowmesh-rank",
                           "flowmesh-orchestrator"}) {
    if (!std::filesystem::exists(Program(name))) continue;  // a build without libtorch
    Outcome outcome = Finish(Start({"--version"}, {}, name));
    EXPECT_EQ(outcome.exit, 0) << name;
    EXPECT_THAT(outcome.out, ::testing::StartsWith(absl::StrCat(name, " 0.")));
    outcome = Finish(Start({"--help"}, {}, name));
    EXPECT_EQ(outcome.exit, 0) << name;
    EXPECT_THAT(outcome.out, HasSubstr(name));
  }
}

TEST_F(CliTest, AllCommandsSpeakToTheSameWhenNobodySaysToWhom) {
  const std::map<std::string, std::string> orchestrator = {
      {"ORCHESTRATOR_BASE_URL", "http://u:canary@127.0.0.1:1"}};
  std::map<std::string, std::string> both = orchestrator;
  both["SIDECAR_LISTEN"] = "unix:/nonexistent/s.sock";
  const std::string task = Write("t.yaml", "spec: {taskType: echo}");
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"submit", task}, {"list"}, {"worker"}, {"show", "t"}, {"watch", "t"}}) {
    EXPECT_THAT(Run(command, orchestrator).err,
                ::testing::AllOf(HasSubstr("no orchestrator answers at http://127.0.0.1:1 ("),
                                 ::testing::Not(HasSubstr("canary"))))
        << command[0];
    if (command[0] == "submit" || command[0] == "watch") continue;  // these wait for a sidecar
    EXPECT_THAT(Run(command, both).err, HasSubstr("no sidecar answers at unix:/nonexistent/s.sock"))
        << command[0];
  }
  EXPECT_THAT(Run({"drain"}, both).err,
              HasSubstr("no sidecar answers at unix:/nonexistent/s.sock"));
  EXPECT_THAT(Run({"list"}, both).err, HasSubstr("; --sidecar or --orchestrator name others"));
  Outcome outcome = Run({"list", "--orchestrator", "ftp://u:canary@h"});
  EXPECT_EQ(outcome.err.substr(0, outcome.err.find('\n')),
            "flowmeshctl: --orchestrator: expected an http or https URL, got \"ftp://h\"");
  outcome = Run({"list"}, {{"ORCHESTRATOR_BASE_URL", "nowhere"}});
  EXPECT_EQ(outcome.exit, 2);
  EXPECT_THAT(outcome.err, HasSubstr("ORCHESTRATOR_BASE_URL: expected an http or https URL"));
}

// As when both are started by one script.
TEST_F(CliTest, SubmitWaitsForASidecarThatComesUp) {
  const std::string target = absl::StrCat("unix:", (dir_ / "late.sock").string());
  Subprocess waiting =
      Start({"submit", Write("t.yaml", "spec: {taskType: echo}"), "--sidecar", target});
  const auto err = [&] { return ReadFile(dir_ / "err").value(); };
  ASSERT_TRUE(Eventually([&] { return err() == "waiting for the sidecar at " + target + "\n"; }));
  const FakeSidecar fake(target);
  const Outcome outcome = Finish(std::move(waiting));
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "task-1\n");
}

TEST_F(CliTest, CtrlCEndsACommandThatNobodyAnswers) {
  const TestListener silent;
  const std::string url = absl::StrCat("http://127.0.0.1:", silent.port());
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"list", "--orchestrator", url},
           {"submit", Write("t.yaml", "spec: {}"), "--watch", "--orchestrator", url}}) {
    Subprocess process = Start(command);
    const UniqueFd asked = silent.Accept();
    const absl::Time begin = absl::Now();
    process.Signal(SIGINT);
    EXPECT_EQ(Finish(std::move(process)).exit, 130) << command[0];
    EXPECT_LT(absl::Now() - begin, absl::Seconds(5));
  }
}

TEST_F(CliTest, ADocumentsMistakesAreNamedWithTheirPlace) {
  FakeSidecar fake;
  const std::string doubled = Write("doubled.yaml", "spec:\n  taskType: echo\n  taskType: rag\n");
  for (const char* command : {"submit", "run"}) {
    for (const std::string side : {"--sidecar", "--orchestrator"}) {
      if (side == "--orchestrator" && std::string_view(command) == "run") continue;
      const Outcome outcome =
          Run({command, doubled, side, side == "--sidecar" ? fake.target() : "http://127.0.0.1:1"});
      EXPECT_EQ(outcome.exit, 1);
      EXPECT_EQ(
          outcome.err,
          absl::StrCat("flowmeshctl: ", doubled,
                       ": line 3, column 3: the key \"taskType\" stands on line 2 already\n"));
    }
  }
  const std::string unread =
      Write("unread.yaml", "tasktype: echo\nspec: {stages: [{depends_on: a, spec: {}}]}\n");
  const Outcome outcome = Run({"run", unread, "--sidecar", fake.target()});
  EXPECT_EQ(outcome.exit, 0);
  EXPECT_THAT(outcome.err, ::testing::StartsWith(absl::StrCat(
                               "WARNING: ", unread, ": ignored field tasktype\nWARNING: ", unread,
                               ": ignored field spec.stages[0].depends_on\n")));
}

TEST_F(CliTest, FailuresAreStatusOneWithOneLine) {
  EXPECT_THAT(Run({"submit", "missing.yaml"}).err, HasSubstr("missing.yaml: No such file"));
  EXPECT_THAT(Run({"list", "--orchestrator", "http://127.0.0.1:1"}).err,
              HasSubstr("no orchestrator answers at http://127.0.0.1:1"));
  EXPECT_THAT(Run({"list"}, {{"SIDECAR_LISTEN", "unix:/nonexistent/s.sock"}}).err,
              HasSubstr("no sidecar answers at unix:/nonexistent/s.sock"));
  EXPECT_THAT(Run({"cancel", "t", "--orchestrator", "http://x"}).err, HasSubstr("offer no cancel"));
  const Outcome outcome = Run({"run", Write("bad.yaml", "a: [")});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_THAT(outcome.err, HasSubstr("bad.yaml"));
}

TEST_F(CliTest, SpeaksToASidecar) {
  FakeSidecar fake;
  const std::string task = Write("task.yaml", "spec: {taskType: echo}");
  const std::vector<std::string> sidecar = {"--sidecar", fake.target()};
  const auto with = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), sidecar.begin(), sidecar.end());
    return Run(std::move(arguments));
  };
  EXPECT_EQ(with({"submit", task}).out, "task-1\n");
  EXPECT_EQ(with({"submit", task, "--json"}).json()["task_id"], "task-2");
  Outcome outcome = with({"submit", task, "--wait"});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("\"ok\": true"));
  outcome = with({"submit", task, "--watch", "--json"});
  const Json last = ParseJson(outcome.out.substr(outcome.out.find('\n') + 1)).value();
  EXPECT_EQ(last["record"]["state"], "SUCCEEDED");
  EXPECT_EQ(with({"watch", "task-1"}).exit, 0);
  EXPECT_EQ(with({"show", "task-1"}).json()["result"]["ok"], true);
  EXPECT_EQ(with({"list", "--json"}).json().size(), 4u);
  EXPECT_EQ(with({"list", "--json", "--limit", "2"}).json().size(), 2u);
  EXPECT_THAT(with({"list"}).out, HasSubstr("task-1  SUCCEEDED  echo"));
  EXPECT_THAT(with({"worker"}).out, HasSubstr("2 cores, 4.0 GiB"));
  EXPECT_EQ(with({"worker", "--json"}).json()["redis"], "none");
  EXPECT_EQ(with({"cancel", "task-1"}).out, "it was over already\n");
  EXPECT_EQ(with({"drain", "--json"}).json()["tasks_running"], 2);
  outcome = with({"show", "nobody"});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_EQ(outcome.err, "flowmeshctl: no such task\n");
  outcome = with({"submit", Write("bad.yaml", "spec: {taskType: echo, fail: spec.data is missing}"),
                  "--wait"});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_THAT(outcome.err, HasSubstr("failed: spec.data is missing"));
  outcome = with({"submit", Write("staged.yaml", "spec: {stages: [{}, {}]}")});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_THAT(outcome.err, HasSubstr("has stages"));
}

TEST_F(CliTest, ShowsHowATrainingGoes) {
  FakeSidecar fake;
  const std::string task = Write("task.yaml", R"(
spec:
  taskType: lora_sft
  progress:
    - {stage: loading model, done: 7, total: 7, unit: bytes}
    - {stage: training, done: 1, total: 30, unit: steps, tokens_per_second: 80, loss: 3.5}
    - {stage: training, done: 11, total: 30, unit: steps, tokens_per_second: 90, loss: 2.25}
)");
  const std::string line =
      "training [########................] 11/30 steps  loss 2.250  90.0 tokens/s";
  for (const std::vector<std::string>& command : std::vector<std::vector<std::string>>{
           {"submit", task, "--watch"}, {"watch", "task-1"}, {"run", task}}) {
    std::vector<std::string> arguments = command;
    arguments.insert(arguments.end(), {"--sidecar", fake.target()});
    const std::string shown = OnTerminal(arguments);
    EXPECT_THAT(shown, HasSubstr(line)) << command[0];
    EXPECT_THAT(shown, HasSubstr(", 4 s left")) << command[0];
  }
  const Outcome outcome = Run({"watch", "task-1", "--json", "--sidecar", fake.target()});
  std::vector<Json> lines;
  for (const absl::string_view text : absl::StrSplit(outcome.out, '\n', absl::SkipEmpty())) {
    lines.push_back(ParseJson(std::string(text)).value());
  }
  ASSERT_EQ(lines.size(), 4u) << outcome.out;
  EXPECT_FALSE(lines[0]["event"]["progress"].contains("loss"));
  EXPECT_EQ(lines[1]["event"]["progress"]["loss"], 3.5);
  EXPECT_FALSE(lines[1].contains("seconds_left"));
  EXPECT_EQ(lines[2]["event"]["progress"]["loss"], 2.25);
  EXPECT_EQ(lines[2]["seconds_left"], 3.8);
  EXPECT_EQ(lines[3]["record"]["state"], "SUCCEEDED");
}

// A phase of which nothing is heard, such as the writing of a large model, does not look dead.
TEST_F(CliTest, TheSecondsGoOnWhileNothingHappens) {
  FakeSidecar fake;
  UniqueFd terminal;
  Subprocess watching = StartOnTerminal(
      {"submit", Write("t.yaml", "spec: {hang: true}"), "--watch", "--sidecar", fake.target()},
      terminal);
  std::string shown;
  char bytes[4096];
  ssize_t count = 0;
  while (shown.find("  1.") == std::string::npos &&
         (count = ::read(terminal.get(), bytes, sizeof(bytes))) > 0) {
    shown.append(bytes, static_cast<size_t>(count));
  }
  EXPECT_THAT(shown, HasSubstr("  1."));
  watching.Signal(SIGINT);
  EXPECT_EQ(Finish(std::move(watching)).exit, 130);
}

TEST_F(CliTest, SpeaksToAnOrchestrator) {
  orchestrator::RedisServer redis;
  orchestrator::TestOrchestrator server(redis, [](orchestrator::Config& c) { c.token = "secret"; });
  orchestrator::ScriptedWorker worker(redis, "w");
  worker.Register({{"cpu", {{"logical_cores", 4}}}});
  const std::map<std::string, std::string> env = {{"ORCHESTRATOR_BASE_URL", server.url()},
                                                  {"ORCHESTRATOR_TOKEN", "secret"}};
  const std::string flow =
      Write("flow.yaml",
            "spec: {taskType: echo, stages: [{name: a}, {name: b, spec: {x: '${a.result.n}'}}]}");
  std::string first;
  std::thread peer([&] {
    for (int i = 0; i < 2; ++i) {
      const std::string id = worker.TakeEnvelope().value("task_id", "");
      if (i == 0) first = id;
      EXPECT_TRUE(server.core().StoreResult(id, {{"task_id", id}, {"result", {{"n", i}}}}).ok());
      worker.Succeed(id);
    }
  });
  Outcome outcome = Run({"submit", flow, "--watch"}, env);
  peer.join();
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("a  DONE on w"));
  EXPECT_THAT(outcome.out, HasSubstr("DONE   echo  w"));
  EXPECT_THAT(outcome.out, HasSubstr("== b\n{\n  \"n\": 1\n}"));
  outcome = Run({"show", first, "--orchestrator", server.url(), "--json"}, env);
  EXPECT_EQ(outcome.json()["result"]["n"], 0);
  EXPECT_EQ(
      Run({"list", "--orchestrator", server.url(), "--json", "--limit", "1"}, env).json().size(),
      1u);
  EXPECT_EQ(Run({"watch", first, "--orchestrator", server.url()}, env).exit, 0);
  EXPECT_THAT(Run({"worker", "--orchestrator", server.url()}, env).out, HasSubstr("4 cores"));
  outcome = Run({"submit", Write("bad.yaml", "spec: 3")}, env);
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_EQ(outcome.err, "flowmeshctl: spec: expected a map, got 3\n");
  outcome = Run({"list", "--orchestrator", server.url()});
  EXPECT_THAT(outcome.err, HasSubstr("set ORCHESTRATOR_TOKEN"));

  // Ctrl-C ends the watching, not the task.
  Subprocess waiting =
      Start({"submit", Write("one.yaml", "spec: {taskType: echo}"), "--watch"}, env);
  const Json envelope = worker.TakeEnvelope();
  waiting.Signal(SIGINT);
  EXPECT_EQ(Finish(std::move(waiting)).exit, 130);
  EXPECT_EQ(server.Record(envelope["task_id"])["status"], "DISPATCHED");
}

TEST_F(CliTest, SaysWhereAResultIsThatWasNotSent) {
  orchestrator::RedisServer redis;
  orchestrator::TestOrchestrator server(redis);
  orchestrator::ScriptedWorker worker(redis, "w");
  worker.Register({{"cpu", {{"logical_cores", 4}}}});
  Subprocess waiting = Start({"submit", Write("one.yaml", "spec: {taskType: echo}"), "--wait",
                              "--orchestrator", server.url()});
  const std::string id = worker.TakeEnvelope()["task_id"];
  worker.Succeed(id);
  const Outcome outcome = Finish(std::move(waiting));
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("it is in the results folder of worker w"));
}

// Servers that `run` started end with it, however it ends.
TEST_F(CliTest, NothingIsLeftOfARunThatIsKilled) {
  for (const char* program : {"flowmesh-sidecar", "flowmesh-executor", "flowmesh-rank"}) {
    if (!std::filesystem::exists(Program(program))) GTEST_SKIP() << program << " is not built";
  }
  const TestListener hub;  // it never answers, so the task goes on
  const std::string task = Write("t.yaml",
                                 "spec: {taskType: inference, model: {source: {identifier: a/b}}, "
                                 "data: {type: list, items: [x]}}");
  for (const int signal : {SIGHUP, SIGKILL}) {
    Subprocess running =
        Start({"run", task}, {{"TMPDIR", dir_.path().string()},
                              {"HF_HOME", (dir_ / "hub").string()},
                              {"HF_ENDPOINT", absl::StrCat("http://127.0.0.1:", hub.port())}});
    const std::string mark = absl::StrCat(kParentVariable, "=", running.pid());
    const auto servers = [&] {
      int count = 0;
      for (const auto& process : std::filesystem::directory_iterator("/proc")) {
        const auto environment = ReadFile(process.path() / "environ");
        if (environment.ok() && absl::StrContains(*environment, mark)) ++count;
      }
      return count;
    };
    const UniqueFd asked = hub.Accept();  // by the rank
    EXPECT_GE(servers(), 3) << signal;
    ::kill(running.pid(), signal);
    EXPECT_TRUE(Eventually([&] { return servers() == 0; })) << signal;
  }
}

TEST_F(CliTest, AgentConfigurationsBesideADocumentComeWithIt) {
  for (const char* program : {"flowmesh-sidecar", "flowmesh-executor", "flowmesh-rank"}) {
    if (!std::filesystem::exists(Program(program))) GTEST_SKIP() << program << " is not built";
  }
  std::filesystem::create_directories(dir_ / "documents/configurations");
  std::filesystem::create_directories(dir_ / "others");
  Write("documents/configurations/mine.yaml", "tools: 3");
  Write("others/mine.yaml", "tools: 4");
  const std::string task =
      Write("documents/t.yaml", "spec: {taskType: agent, configName: mine, task: x}");
  EXPECT_THAT(Run({"run", task}, {{"AGENT_CONFIG_DIR", ""}}).err, HasSubstr("got 3"));
  const std::string others = dir_ / "others";
  EXPECT_THAT(Run({"run", task}, {{"AGENT_CONFIG_DIR", others}}).err, HasSubstr("got 4"));
}

TEST_F(CliTest, FailFastDoesNotWaitForAnotherWorker) {
  orchestrator::RedisServer redis;
  orchestrator::TestOrchestrator server(redis);
  orchestrator::ScriptedWorker worker(redis, "w");
  worker.Register({{"cpu", {{"logical_cores", 4}}}});
  Subprocess waiting = Start({"submit", Write("one.yaml", "spec: {taskType: echo}"), "--wait",
                              "--fail-fast", "--orchestrator", server.url()});
  const std::string id = worker.TakeEnvelope()["task_id"];
  worker.Fail(id, "no such model");
  const Outcome outcome = Finish(std::move(waiting));
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_THAT(outcome.err, HasSubstr("failed: "));
  EXPECT_THAT(outcome.err, HasSubstr("no such model"));
  EXPECT_EQ(server.Record(id)["status"], "PENDING");
}

TEST_F(CliTest, RunHandsResultsFromStageToStage) {
  FakeSidecar fake;
  const std::string flow = Write("flow.yaml", R"(
spec:
  taskType: inference
  output: {destination: {type: http, url: "http://127.0.0.1:1/x"}}
  graph:
    nodes:
      - {name: b, dependsOn: [a], spec: {x: "${a.result.items.0.output}!", result: {items: [{output: two}]}}}
      - {name: a, spec: {result: {items: [{output: one}]}}}
)");
  Outcome outcome = Run({"run", flow, "--sidecar", fake.target()});
  EXPECT_EQ(outcome.exit, 0) << outcome.err;
  EXPECT_EQ(outcome.out, "one\ntwo\n");
  EXPECT_THAT(outcome.err, HasSubstr("note: results stay on this machine"));
  ASSERT_EQ(fake.Documents().size(), 2u);
  const Json second = ParseJson(fake.Documents()[1]).value();
  EXPECT_EQ(second["spec"]["x"], "one!");
  EXPECT_EQ(second["spec"]["output"]["destination"], Json({{"type", "local"}}));
  EXPECT_EQ(second["spec"]["_upstreamResults"]["a"]["result"]["items"][0]["output"], "one");

  outcome = Run({"run", flow, "--json", "--deliver", "--sidecar", fake.target()});
  EXPECT_EQ(outcome.json()["b"]["state"], "SUCCEEDED");
  EXPECT_EQ(ParseJson(fake.Documents()[3]).value()["spec"]["output"]["destination"]["type"],
            "http");

  outcome = Run({"run", Write("fails.yaml", "spec: {stages: [{spec: {fail: oh}}, {}]}"),
                 "--sidecar", fake.target()});
  EXPECT_EQ(outcome.exit, 1);
  EXPECT_THAT(outcome.err, HasSubstr("stage-1 failed: oh"));
  EXPECT_EQ(fake.Documents().size(), 5u);  // the second stage never ran
  outcome = Run({"run", Write("other.yaml", "spec: {dependsOn: [x]}"), "--sidecar", fake.target()});
  EXPECT_THAT(outcome.err, HasSubstr("knows only the stages of its own document"));
}

TEST_F(CliTest, DrainWaitsForTheEndWithinItsLimit) {
  FakeSidecar fake;  // it answers that it drains, and stays
  const Outcome late = Run({"drain", "--wait", "--timeout", "0.2", "--sidecar", fake.target()});
  EXPECT_EQ(late.exit, 1);
  EXPECT_EQ(late.out, "draining; 2 tasks running\n");
  EXPECT_THAT(late.err, HasSubstr("has not ended within 200ms"));

  Subprocess waiting = Start({"drain", "--wait", "--sidecar", fake.target()});
  ASSERT_TRUE(Eventually([&] { return Out() == "draining; 2 tasks running\n"; }));
  fake.SetUptime(0);  // a new life of it
  const Outcome ended = Finish(std::move(waiting));
  EXPECT_EQ(ended.exit, 0) << ended.err;
  EXPECT_EQ(ended.out, "draining; 2 tasks running\nended\n");
}

TEST_F(CliTest, CtrlCCancelsARun) {
  FakeSidecar fake;
  Subprocess running =
      Start({"run", Write("t.yaml", "spec: {hang: true}"), "--sidecar", fake.target()});
  ASSERT_TRUE(Eventually([&] { return fake.WatchStarts().size() == 1; }));
  running.Signal(SIGINT);
  EXPECT_EQ(Finish(std::move(running)).exit, 130);
  v1::GetTaskRequest request;
  request.set_task_id("task-1");
  v1::TaskRecord record;
  ASSERT_TRUE(fake.GetTask(nullptr, &request, &record).ok());
  EXPECT_EQ(record.error(), "cancelled");
}

}  // namespace
}  // namespace flowmesh::cli
