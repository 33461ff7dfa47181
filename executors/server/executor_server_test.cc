// The real program as a child process, spoken to over gRPC.
#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "common/clock.h"
#include "common/http.h"
#include "common/json.h"
#include "executors/server/executor_process.h"
#include "grpc/health/v1/health.grpc.pb.h"

namespace flowmesh::executor {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kBound = absl::Seconds(30);

class ExecutorServerTest : public ::testing::Test {
 protected:
  ExecutorServerTest() { std::filesystem::create_directory(dir_ / "logs"); }

  std::string Socket() const { return absl::StrCat("unix:", (dir_ / "e.sock").string()); }

  void Start(std::map<std::string, std::string> env = {}) {
    executor_.emplace(dir_.path(), Socket(), std::move(env));
    ASSERT_TRUE(executor_->Up()) << executor_->Log();
  }

  v1::ExecuteRequest Request(const std::string& id, const std::string& spec) const {
    v1::ExecuteRequest request;
    request.set_task_id(id);
    request.set_task_dir(dir_.path().string());
    request.set_document_json(absl::StrCat(R"({"task_id": ")", id, R"(", "spec": )", spec, "}"));
    return request;
  }

  static std::string Script(const std::string& steps) {
    return absl::StrCat(R"({"taskType": "inference", "script": [)", steps, "]}");
  }

  using Events = std::vector<v1::TaskEvent>;

  // Reads a stream to its end. `on_event` sees each event as it comes.
  Events Drain(grpc::ClientReader<v1::TaskEvent>& reader,
               const std::function<void(const v1::TaskEvent&)>& on_event = nullptr) {
    Events events;
    v1::TaskEvent event;
    while (reader.Read(&event)) {
      if (on_event) on_event(event);
      events.push_back(event);
    }
    status_ = reader.Finish();
    return events;
  }

  Events Execute(const v1::ExecuteRequest& request,
                 const std::function<void(const v1::TaskEvent&)>& on_event = nullptr) {
    grpc::ClientContext context;
    return Drain(*executor_->stub().Execute(&context, request), on_event);
  }

  Events Attach(const std::string& id, uint64_t from) {
    grpc::ClientContext context;
    v1::AttachRequest request;
    request.set_task_id(id);
    request.set_from_sequence(from);
    return Drain(*executor_->stub().Attach(&context, request));
  }

  bool Cancel(const std::string& id, uint32_t grace_ms) {
    grpc::ClientContext context;
    v1::CancelRequest request;
    request.set_task_id(id);
    request.set_grace_ms(grace_ms);
    request.set_reason("cancelled by a test");
    v1::CancelResponse response;
    EXPECT_TRUE(executor_->stub().Cancel(&context, request, &response).ok());
    return response.was_running();
  }

  v1::ExecutorDescription Describe() {
    grpc::ClientContext context;
    v1::ExecutorDescription description;
    EXPECT_TRUE(executor_->stub().Describe(&context, {}, &description).ok());
    return description;
  }

  // Ends the executor by SIGTERM; returns how, and how long that took.
  std::pair<ExitStatus, absl::Duration> Terminate() {
    const absl::Duration start = Clock::Real().Monotonic();
    ::kill(executor_->process().pid(), SIGTERM);
    const std::optional<ExitStatus> status = executor_->process().Wait(kBound);
    EXPECT_TRUE(status.has_value()) << executor_->Log();
    return {status.value_or(ExitStatus{255, 0}), Clock::Real().Monotonic() - start};
  }

  const TempDir dir_;
  std::optional<ExecutorProcess> executor_;
  grpc::Status status_;
};

TEST_F(ExecutorServerTest, DescribesItself) {
  Start({{"EXECUTOR_NAME", "box"}, {"EXECUTOR_THREADS", "3"}});
  const v1::ExecutorDescription description = Describe();
  EXPECT_EQ(description.name(), "box");
  EXPECT_FALSE(description.version().empty());
  EXPECT_EQ(description.instance_id().size(), 32u);
  EXPECT_THAT(description.runnable_task_types(), ElementsAre("echo", "inference"));
  ASSERT_EQ(description.unrunnable_task_types_size(), 6);
  EXPECT_EQ(description.unrunnable_task_types(0).task_type(), "agent");
  EXPECT_EQ(description.unrunnable_task_types(0).reason(), "not built into this version");
  EXPECT_EQ(description.devices().gpus_size(), 0);
  EXPECT_EQ(description.devices().cpu_threads(), 3);
  EXPECT_EQ(description.running_task_id(), "");
}

TEST_F(ExecutorServerTest, EchoOverAUnixSocket) {
  Start();
  const Events events = Execute(EchoRequest("T1", dir_.path()));
  EXPECT_TRUE(status_.ok()) << status_.error_message();
  ASSERT_EQ(events.size(), 3u);
  EXPECT_TRUE(events[0].has_started());
  EXPECT_TRUE(events[1].has_log_line());
  EXPECT_EQ(
      events[2].finished().result_json(),
      R"({"ok":true,"echo":{"taskType":"echo","data":{"type":"list","items":["are you there"]}}})");
  EXPECT_THAT(ReadFile(dir_ / "logs/task.log").value(), HasSubstr("echo: "));
}

TEST_F(ExecutorServerTest, EchoOverTcp) {
  const std::string listen = absl::StrCat("127.0.0.1:", FreeLoopbackPort().value());
  executor_.emplace(dir_.path(), listen);
  ASSERT_TRUE(executor_->Up()) << executor_->Log();
  EXPECT_TRUE(Execute(EchoRequest("T1", dir_.path())).back().has_finished());
}

TEST_F(ExecutorServerTest, ALargeSpecComesBackWhole) {
  Start();
  const std::string text(20 << 20, 'x');
  grpc::ClientContext context;
  v1::TaskEvent event, last;
  // The client's own limit is 4 MiB.
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  const auto stub = v1::Executor::NewStub(
      grpc::CreateCustomChannel(Socket(), grpc::InsecureChannelCredentials(), arguments));
  const auto reader = stub->Execute(
      &context, Request("T1", absl::StrCat(R"({"taskType": "echo", "x": ")", text, R"("})")));
  while (reader->Read(&event)) last = event;
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_EQ(last.finished().result_json().size(), text.size() + 48 - 3);
}

TEST_F(ExecutorServerTest, WrongTypesFailTheTaskWithTheContractsWords) {
  Start();
  const auto error = [&](const std::string& id, const std::string& spec) {
    const Events events = Execute(Request(id, spec));
    EXPECT_TRUE(status_.ok());
    EXPECT_EQ(events.back().failed().code(), v1::TaskFailed::INVALID_SPEC);
    return events.back().failed().message();
  };
  EXPECT_EQ(error("T1", R"({"taskType": "embedding"})"),
            "spec.taskType: unknown type 'embedding'; known types: agent, dpo, echo, inference, "
            "lora_sft, ppo, rag, sft");
  EXPECT_EQ(error("T2", R"({"taskType": "ppo"})"),
            "spec.taskType: 'ppo' cannot run on this worker (not built into this version); "
            "runnable here: echo, inference");
  EXPECT_EQ(error("T3", "{}"),
            "spec.taskType: required, got nothing; known types: agent, dpo, echo, inference, "
            "lora_sft, ppo, rag, sft");
}

TEST_F(ExecutorServerTest, WithoutARankProgramInferenceSaysWhy) {
  Start({{"EXECUTOR_RANK_BIN", "/bin/false"}});
  EXPECT_THAT(Describe().runnable_task_types(), ElementsAre("echo"));
  EXPECT_EQ(
      Execute(Request("T1", Script(""))).back().failed().message(),
      "spec.taskType: 'inference' cannot run on this worker (the rank program does not start: "
      "exit code 1); runnable here: echo");
  EXPECT_TRUE(Execute(EchoRequest("T2", dir_.path())).back().has_finished());
}

TEST_F(ExecutorServerTest, BadRequestsAreInvalidArguments) {
  Start();
  EXPECT_TRUE(Execute(Request("", "{}")).empty());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::ExecuteRequest request = EchoRequest("T1", "relative");
  EXPECT_TRUE(Execute(request).empty());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  request = EchoRequest("T1", dir_.path());
  request.set_document_json("no json");
  EXPECT_TRUE(Execute(request).empty());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_F(ExecutorServerTest, ARankTaskStreamsItsEventsAndStaysWarm) {
  Start();
  const Events events = Execute(Request("T1", Script(R"("log hello", "progress 4", "finish")")));
  ASSERT_EQ(events.size(), 4u);
  EXPECT_EQ(events[1].log_line().text(), "hello");
  EXPECT_EQ(events[2].progress().done(), 4u);
  const Json first = ParseJson(events[3].finished().result_json()).value();
  const Json second =
      ParseJson(Execute(Request("T2", Script(""))).back().finished().result_json()).value();
  EXPECT_EQ(first["pid"], second["pid"]);
  EXPECT_THAT(ReadFile(dir_ / "logs/task.log").value(), HasSubstr(" | INFO | hello\n"));

  grpc::ClientContext context;
  v1::Telemetry telemetry;
  ASSERT_TRUE(executor_->stub().GetTelemetry(&context, {}, &telemetry).ok());
  EXPECT_GT(telemetry.rank_resident_bytes(), 0u);
  EXPECT_GT(telemetry.time().seconds(), 0);
}

TEST_F(ExecutorServerTest, AttachFromASequenceNumber) {
  Start();
  ASSERT_EQ(Execute(EchoRequest("T1", dir_.path())).size(), 3u);
  EXPECT_EQ(Attach("T1", 0).size(), 3u);
  const Events tail = Attach("T1", 2);
  ASSERT_EQ(tail.size(), 1u);
  EXPECT_EQ(tail[0].sequence(), 2u);
  EXPECT_TRUE(Attach("T1", 99).empty());
  EXPECT_TRUE(status_.ok());
  EXPECT_TRUE(Attach("T2", 0).empty());
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ExecutorServerTest, ABrokenStreamDoesNotEndTheTask) {
  Start();
  {
    grpc::ClientContext context;
    const auto reader = executor_->stub().Execute(
        &context, Request("T1", Script(R"("log begun", "sleep 300", "finish")")));
    v1::TaskEvent event;
    while (reader->Read(&event) && !event.has_log_line()) {
    }
    context.TryCancel();
    while (reader->Read(&event)) {
    }
    EXPECT_FALSE(reader->Finish().ok());
  }
  const Events rest = Attach("T1", 1);
  ASSERT_FALSE(rest.empty());
  EXPECT_TRUE(rest.back().has_finished());
}

TEST_F(ExecutorServerTest, ARepeatedExecuteAttaches) {
  Start();
  const v1::ExecuteRequest request = Request("T1", Script(R"("log one", "finish")"));
  const Events first = Execute(request);
  const Events again = Execute(request);
  ASSERT_EQ(first.size(), again.size());
  EXPECT_EQ(first.back().finished().result_json(), again.back().finished().result_json());
}

TEST_F(ExecutorServerTest, ASecondTaskIsRefusedWhileOneRuns) {
  Start();
  bool asked = false;
  Execute(Request("T1", Script(R"("log running", "until_stopped")")),
          [&](const v1::TaskEvent& event) {
            if (!event.has_log_line() || asked) return;
            asked = true;
            grpc::ClientContext context;
            const auto reader = executor_->stub().Execute(&context, EchoRequest("T2", dir_.path()));
            v1::TaskEvent none;
            EXPECT_FALSE(reader->Read(&none));
            EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
            EXPECT_EQ(Describe().running_task_id(), "T1");
            EXPECT_TRUE(Cancel("T1", 20000));
          });
  EXPECT_TRUE(asked);
}

TEST_F(ExecutorServerTest, CancelReachesARankThatIgnoresEverything) {
  Start();
  pid_t rank = 0;
  const Json before =
      ParseJson(Execute(Request("T0", Script(""))).back().finished().result_json()).value();
  rank = before["pid"];
  const Events events = Execute(Request("T1", Script(R"("ignore_term", "log hanging", "hang")")),
                                [&](const v1::TaskEvent& event) {
                                  if (!event.has_log_line()) return;
                                  EXPECT_TRUE(Cancel("T1", 100));
                                  EXPECT_NE(::kill(rank, 0), 0);  // gone when Cancel returns
                                });
  EXPECT_EQ(events.back().failed().code(), v1::TaskFailed::CANCELLED);
  EXPECT_EQ(events.back().failed().message(), "cancelled by a test");
  EXPECT_FALSE(Cancel("T1", 100));
  EXPECT_FALSE(Cancel("unknown", 0));
  EXPECT_TRUE(Execute(Request("T2", Script(""))).back().has_finished());
}

TEST_F(ExecutorServerTest, ADeadRankFailsItsTaskOnly) {
  Start();
  const Events events = Execute(Request("T1", Script(R"("print oops", "crash 11")")));
  const v1::TaskFailed& failed = events.back().failed();
  EXPECT_EQ(failed.code(), v1::TaskFailed::RANK_DIED);
  EXPECT_EQ(failed.rank_failure().signal(), SIGSEGV);
  EXPECT_THAT(failed.rank_failure().last_lines(), ElementsAre("oops"));
  EXPECT_EQ(ReadFile(dir_ / "logs/rank0.log").value(), "oops\n");
  EXPECT_THAT(ReadFile(dir_ / "logs/error.json").value(), HasSubstr("Segmentation fault"));
  EXPECT_TRUE(Execute(Request("T2", Script(""))).back().has_finished());
}

TEST_F(ExecutorServerTest, HealthIsServing) {
  Start();
  const auto health = grpc::health::v1::Health::NewStub(executor_->channel());
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckResponse response;
  ASSERT_TRUE(health->Check(&context, {}, &response).ok());
  EXPECT_EQ(response.status(), grpc::health::v1::HealthCheckResponse::SERVING);
}

// Debian packages no reflection.proto, so the request is written by hand: list_services = "*".
TEST_F(ExecutorServerTest, ReflectionListsTheServices) {
  Start();
  grpc::GenericStub stub(executor_->channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag;
  bool ok = false;
  const auto step = [&] { return queue.Next(&tag, &ok) && ok; };
  call->StartCall(nullptr);
  ASSERT_TRUE(step());
  const grpc::Slice bytes("\x3a\x01*");
  call->WriteLast(grpc::ByteBuffer(&bytes, 1), {}, nullptr);
  ASSERT_TRUE(step());
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  ASSERT_TRUE(step());
  std::vector<grpc::Slice> slices;
  ASSERT_TRUE(answer.Dump(&slices).ok());
  std::string text;
  for (const grpc::Slice& slice : slices) {
    text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  EXPECT_THAT(text, HasSubstr("flowmesh.v1.Executor"));
  EXPECT_THAT(text, HasSubstr("grpc.health.v1.Health"));
  grpc::Status status;
  call->Finish(&status, nullptr);
  step();
}

TEST_F(ExecutorServerTest, ASecondServerOnTheSameAddressIsRefused) {
  Start();
  ExecutorProcess second(dir_.path(), Socket());
  const std::optional<ExitStatus> status = second.process().Wait(kBound);
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->exit_code, 1);
  EXPECT_THAT(second.Log(), HasSubstr("flowmesh-executor: EXECUTOR_LISTEN: another process"));
  EXPECT_TRUE(Execute(EchoRequest("T1", dir_.path())).back().has_finished());

  const std::string tcp = absl::StrCat("127.0.0.1:", FreeLoopbackPort().value());
  ExecutorProcess first(dir_.path(), tcp);
  ASSERT_TRUE(first.Up());
  ExecutorProcess third(dir_.path(), tcp);
  EXPECT_EQ(third.process().Wait(kBound).value_or(ExitStatus{}).exit_code, 1);
  EXPECT_THAT(third.Log(), HasSubstr(absl::StrCat("EXECUTOR_LISTEN: cannot listen on ", tcp)));
}

TEST_F(ExecutorServerTest, AStaleSocketIsReplaced) {
  Start();
  ::kill(executor_->process().pid(), SIGKILL);
  executor_->process().Wait(kBound);
  ASSERT_TRUE(std::filesystem::exists(dir_ / "e.sock"));
  Start();
  EXPECT_TRUE(Execute(EchoRequest("T1", dir_.path())).back().has_finished());
}

TEST_F(ExecutorServerTest, SigtermWhenIdleEndsAtOnce) {
  Start();
  const auto [status, took] = Terminate();
  EXPECT_TRUE(status.ok()) << status.ToString() << executor_->Log();
  EXPECT_LT(took, absl::Seconds(2));
}

// What a client gives up in the middle leaves buffers behind in gRPC.
TEST_F(ExecutorServerTest, EndsAtOnceAfterAResultThatItsReaderRefused) {
  Start();
  v1::ExecuteRequest request = EchoRequest("T1", dir_.path());
  request.set_document_json(
      absl::StrCat(R"({"task_id": "T1", "spec": {"taskType": "echo", "text": ")",
                   std::string(64u << 20, 'x'), R"("}})"));
  Execute(request);
  EXPECT_EQ(status_.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto [status, took] = Terminate();
  EXPECT_TRUE(status.ok()) << status.ToString() << executor_->Log();
  EXPECT_LT(took, absl::Seconds(5));
}

TEST_F(ExecutorServerTest, SigtermCancelsTheRunningTaskAndTellsItsReader) {
  Start();
  pid_t rank =
      ParseJson(Execute(Request("T0", Script(""))).back().finished().result_json()).value()["pid"];
  const Events events =
      Execute(Request("T1", Script(R"("log running", "hang")")), [&](const v1::TaskEvent& event) {
        if (event.has_log_line()) ::kill(executor_->process().pid(), SIGTERM);
      });
  ASSERT_FALSE(events.empty());
  EXPECT_EQ(events.back().failed().code(), v1::TaskFailed::CANCELLED);
  EXPECT_EQ(events.back().failed().message(), "the executor is stopping");
  const std::optional<ExitStatus> status = executor_->process().Wait(kBound);
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(status->ok()) << status->ToString();
  EXPECT_NE(::kill(rank, 0), 0);
}

TEST_F(ExecutorServerTest, ARankDiesWithItsExecutor) {
  Start();
  const pid_t rank =
      ParseJson(Execute(Request("T0", Script(""))).back().finished().result_json()).value()["pid"];
  ::kill(executor_->process().pid(), SIGKILL);  // the executor alone, not its group
  executor_->process().Wait(kBound);
  const absl::Duration deadline = Clock::Real().Monotonic() + kBound;
  while (::kill(rank, 0) == 0 && Clock::Real().Monotonic() < deadline) std::this_thread::yield();
  EXPECT_NE(::kill(rank, 0), 0);
}

TEST_F(ExecutorServerTest, AStreamOfAnIdleReaderDoesNotHoldTheEnd) {
  Start();
  grpc::ClientContext context;
  const auto reader = executor_->stub().Execute(
      &context, Request("T1", Script(R"("flood 1000", "log x", "hang")")));
  v1::TaskEvent event;
  ASSERT_TRUE(reader->Read(&event));  // and never again
  const auto [status, took] = Terminate();
  EXPECT_TRUE(status.ok()) << status.ToString();
  EXPECT_LT(took, absl::Seconds(10));
  while (reader->Read(&event)) {
  }
  reader->Finish();
}

TEST_F(ExecutorServerTest, GpusComeFromTheManagementLibrary) {
  const std::string fake = absl::StrCat(std::getenv("FLOWMESH_BIN_DIR"), "/../tests/fake_nvml");
  // The scripted rank says that it cannot use GPUs: with `auto` the CPU is used, and said.
  Start({{"LD_LIBRARY_PATH", fake}});
  EXPECT_EQ(Describe().devices().gpus_size(), 0);
  EXPECT_EQ(Describe().devices().driver_version(), "");
  EXPECT_THAT(executor_->Log(), HasSubstr("2 GPUs are visible but the rank program cannot use"));
  Terminate();

  ExecutorProcess insisting(dir_.path(), Socket(),
                            {{"LD_LIBRARY_PATH", fake}, {"EXECUTOR_DEVICES", "0"}});
  EXPECT_EQ(insisting.process().Wait(kBound).value_or(ExitStatus{}).exit_code, 1);
  EXPECT_THAT(insisting.Log(), HasSubstr("EXECUTOR_DEVICES: the rank program cannot use GPUs"));

  Start({{"LD_LIBRARY_PATH", fake},
         {"SCRIPTED_RANK_DESCRIBE", "cuda"},
         {"CUDA_VISIBLE_DEVICES", "1,9,0"}});
  EXPECT_THAT(executor_->Log(),
              HasSubstr("CUDA_VISIBLE_DEVICES: expected places below 2 or UUIDs, got \"9\""));
  const v1::DeviceGroup devices = Describe().devices();
  ASSERT_EQ(devices.gpus_size(), 1);
  EXPECT_EQ(devices.gpus(0).index(), 1);
  EXPECT_EQ(devices.gpus(0).uuid(), "GPU-aabb-2");
  EXPECT_EQ(devices.driver_version(), "570.86.10");
  const Json result =
      ParseJson(Execute(Request("T1", Script(""))).back().finished().result_json()).value();
  EXPECT_EQ(result["CUDA_VISIBLE_DEVICES"], "GPU-aabb-2");
  EXPECT_EQ(result["FLOWMESH_RANK_DEVICE"], "cuda");
}

TEST_F(ExecutorServerTest, WrongConfigurationIsOneLineAndStatusOne) {
  const std::map<std::string, std::string> wrong = {{"EXECUTOR_THREADS", "many"},
                                                    {"EXECUTOR_NAME", "a/b"},
                                                    {"EXECUTOR_DEVICES", "7"},
                                                    {"EXECUTOR_METRICS_LISTEN", "x"}};
  for (const auto& [name, value] : wrong) {
    ExecutorProcess process(dir_.path(), Socket(), {{name, value}});
    const std::optional<ExitStatus> status = process.process().Wait(kBound);
    ASSERT_TRUE(status.has_value()) << name;
    EXPECT_EQ(status->exit_code, 1) << name;
    EXPECT_THAT(process.Log(), HasSubstr(absl::StrCat("flowmesh-executor: ", name, ": ")));
    EXPECT_THAT(process.Log(), HasSubstr(absl::StrCat("got \"", value, "\"")));
  }
}

TEST_F(ExecutorServerTest, MetricsCountTasksByTypeAndOutcome) {
  const std::string address = absl::StrCat("127.0.0.1:", FreeLoopbackPort().value());
  Start({{"EXECUTOR_METRICS_LISTEN", address}});
  Execute(EchoRequest("T1", dir_.path()));
  Execute(Request("T2", Script(R"("crash 6")")));
  Execute(Request("T3", R"({"taskType": "nonsense"})"));
  HttpClient client;
  HttpRequest request;
  request.url = absl::StrCat("http://", address, "/metrics");
  // A task is counted just after its end was told.
  std::string text;
  const absl::Time limit = absl::Now() + kBound;
  const auto counted = [&](std::string_view label) { return text.find(label) != text.npos; };
  while (!(counted("\"rank_died\",type=\"inference\"} 1") && counted("\"unknown\"} 1")) &&
         absl::Now() < limit) {
    const auto response = client.Send(request);
    ASSERT_TRUE(response.ok()) << response.status();
    text = response->body;
  }
  EXPECT_THAT(text,
              HasSubstr("flowmesh_executor_tasks_total{outcome=\"succeeded\",type=\"echo\"} 1"));
  EXPECT_THAT(
      text, HasSubstr("flowmesh_executor_tasks_total{outcome=\"rank_died\",type=\"inference\"} 1"));
  EXPECT_THAT(
      text,
      HasSubstr("flowmesh_executor_tasks_total{outcome=\"invalid_spec\",type=\"unknown\"} 1"));
  EXPECT_THAT(text, HasSubstr("flowmesh_executor_rank_deaths_total 1"));
  EXPECT_THAT(text, HasSubstr("flowmesh_executor_busy 0"));

  ExecutorProcess second(dir_.path(), absl::StrCat("127.0.0.1:", FreeLoopbackPort().value()),
                         {{"EXECUTOR_METRICS_LISTEN", address}});
  EXPECT_EQ(second.process().Wait(kBound).value_or(ExitStatus{}).exit_code, 1);
  EXPECT_THAT(second.Log(), HasSubstr("EXECUTOR_METRICS_LISTEN: cannot listen on"));
}

}  // namespace
}  // namespace flowmesh::executor
