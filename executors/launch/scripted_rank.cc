// A rank for tests that does what the task tells it to, misbehaviour included. `spec.script` is a
// list of steps, `spec.scripts` a map from rank number to such a list:
//
//   log TEXT | progress N | print TEXT | flood BYTES | sleep MS | until_stopped
//   finish | fail TEXT | lose TEXT (PEER_LOST) | attempt N STEP (only there) | crash SIGNAL | exit
//   CODE | hang | ignore_term | grandchild | malformed huge | close | answer_twice | shared_memory
//   NAME | exhaust_memory
//
// Merged children get a result each with `finish`.
//
// SCRIPTED_RANK_START holds steps (by comma) done before `ready` is sent. The result of `finish`
// tells the rank's pid, environment, number of tasks so far, and the pid of its grandchild.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/strings.h"
#include "common/subprocess.h"
#include "executors/launch/frames.h"
#include "flowmesh/v1/rank.pb.h"

namespace flowmesh::executor {
namespace {

constexpr int kSocket = 3;
pid_t grandchild = 0;
int tasks_run = 0;
Json children;  // of the task that runs: their results

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "(unset)" : value;
}

void Send(const v1::FromRank& message) { (void)WriteFrame(kSocket, message); }

Json Result() {
  Json result = {
      {"ok", true}, {"pid", ::getpid()}, {"tasks", tasks_run}, {"grandchild", grandchild}};
  for (const char* name :
       {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR",
        "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT",
        "TORCHELASTIC_MAX_RESTARTS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GOMP_SPINCOUNT",
        "MALLOC_MMAP_THRESHOLD_", "FLOWMESH_RANK_DEVICE"}) {
    result[name] = Environment(name);
  }
  if (!children.empty()) result["children"] = children;
  return result;
}

bool StopCame() {
  v1::ToRank message;
  return ReadFrame(kSocket, &message).ok() && message.has_stop();
}

void StartGrandchild() {
  int ready[2];
  if (::pipe(ready) != 0) std::abort();
  grandchild = ::fork();
  if (grandchild == 0) {
    ::signal(SIGTERM, SIG_IGN);
    ::close(kSocket);
    (void)!::write(ready[1], "x", 1);
    while (true) ::pause();
  }
  char byte;
  (void)!::read(ready[0], &byte, 1);  // from here on it ignores SIGTERM
}

// A segment that stays when its maker is killed.
void MakeSharedMemory(const std::string& name) {
  const int segment = ::shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
  if (segment < 0 || ::ftruncate(segment, 4096) != 0 ||
      ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, segment, 0) == MAP_FAILED) {
    std::abort();
  }
}

// Does one step; true when it answered the task.
bool Do(const std::string& step) {
  const size_t space = step.find(' ');
  const std::string verb = step.substr(0, space);
  const std::string text = space == std::string::npos ? "" : step.substr(space + 1);
  int64_t number = 0;
  (void)absl::SimpleAtoi(text, &number);
  v1::FromRank message;
  if (verb == "log") {
    message.mutable_log_line()->set_level("INFO");
    message.mutable_log_line()->set_text(text);
    Send(message);
  } else if (verb == "progress") {
    message.mutable_progress()->set_stage("scripted");
    message.mutable_progress()->set_done(static_cast<uint64_t>(number));
    Send(message);
  } else if (verb == "print") {
    std::printf("%s\n", text.c_str());
    std::fflush(stdout);
  } else if (verb == "flood") {
    const std::string line(99, 'x');
    for (int64_t done = 0; done < number; done += 100) std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  } else if (verb == "sleep") {
    ::usleep(static_cast<useconds_t>(number * 1000));
  } else if (verb == "until_stopped") {
    while (!StopCame()) {
    }
    message.mutable_failed()->set_code(v1::TaskFailed::CANCELLED);
    message.mutable_failed()->set_message("stopped");
    Send(message);
    ::_exit(0);
  } else if (verb == "finish" || verb == "answer_twice") {
    message.mutable_finished()->set_result_json(DumpJson(Result()));
    Send(message);
    if (verb == "answer_twice") Send(message);
    return true;
  } else if (verb == "attempt") {
    const size_t rest = text.find(' ');
    return text.substr(0, rest) == Environment("TORCHELASTIC_RESTART_COUNT") &&
           Do(text.substr(rest + 1));
  } else if (verb == "fail" || verb == "lose") {
    message.mutable_failed()->set_code(verb == "fail" ? v1::TaskFailed::INVALID_SPEC
                                                      : v1::TaskFailed::PEER_LOST);
    message.mutable_failed()->set_message(text);
    Send(message);
    return true;
  } else if (verb == "crash") {
    ::signal(static_cast<int>(number), SIG_DFL);
    ::raise(static_cast<int>(number));
  } else if (verb == "exit") {
    std::fflush(stdout);
    ::_exit(static_cast<int>(number));
  } else if (verb == "hang") {
    while (true) ::pause();
  } else if (verb == "ignore_term") {
    ::signal(SIGTERM, SIG_IGN);
  } else if (verb == "grandchild") {
    StartGrandchild();
  } else if (verb == "malformed") {
    const char bytes[] = {3, 0, 0, 0, '\xff', '\xff', '\xff'};
    (void)!::write(kSocket, bytes, sizeof(bytes));
    while (true) ::pause();
  } else if (verb == "huge") {
    const char bytes[] = {'\xff', '\xff', '\xff', '\x7f'};
    (void)!::write(kSocket, bytes, sizeof(bytes));
    while (true) ::pause();
  } else if (verb == "shared_memory") {
    MakeSharedMemory(text);
  } else if (verb == "exhaust_memory") {
    // As in a container without swap; the end is that of an allocation that nobody expects to fail.
    const rlimit limit{size_t{512} << 20, size_t{512} << 20};
    ::setrlimit(RLIMIT_AS, &limit);
    std::vector<std::string> pieces;
    while (true) pieces.emplace_back(size_t{16} << 20, 'x');
  } else if (verb == "close") {
    ::close(kSocket);
    while (true) ::pause();
  } else {
    std::fprintf(stderr, "scripted rank: unknown step %s\n", step.c_str());
    ::_exit(99);
  }
  return false;
}

void RunScript(const v1::ExecuteRequest& task) {
  ++tasks_run;
  const Json document = ParseJson(task.document_json()).value();
  const Json& spec = document["spec"];
  children = Json::object();
  for (const Json& child : document.value("merge_children", Json::array())) {
    children[child["task_id"].get<std::string>()] = {{"ok", true}};
  }
  const Json scripts = spec.value("scripts", Json::object());
  const Json script = scripts.value(Environment("RANK"), spec.value("script", Json(Json::array())));
  for (const Json& step : script) {
    if (Do(step.get<std::string>())) return;
  }
  Do("finish");
}

int Main(int argc, char** argv) {
  if (argc > 1 && std::string(argv[1]) == "--describe") {
    if (Environment("SCRIPTED_RANK_DESCRIBE") == "fail") {
      std::fprintf(stderr, "error while loading shared libraries: libtorch_cpu.so\n");
      return 127;
    }
    std::printf(R"({"torch_version":"none","task_types":["inference"],"cuda":%s})"
                "\n",
                Environment("SCRIPTED_RANK_DESCRIBE") == "cuda" ? "true" : "false");
    return 0;
  }
  if (std::getenv("SCRIPTED_RANK_START") != nullptr) {
    for (const std::string& step : SplitTrimmed(Environment("SCRIPTED_RANK_START"), ',')) Do(step);
  }
  v1::FromRank ready;
  ready.mutable_ready()->set_device("cpu");
  ready.mutable_ready()->set_torch_version("none");
  Send(ready);
  v1::ToRank message;
  while (ReadFrame(kSocket, &message).ok()) {
    if (message.has_shutdown()) return 0;
    if (message.has_run()) RunScript(message.run().task());
  }
  return 0;
}

}  // namespace
}  // namespace flowmesh::executor

int main(int argc, char** argv) {
  int parent = 0;
  (void)absl::SimpleAtoi(flowmesh::executor::Environment(flowmesh::executor::kRankParentVariable),
                         &parent);
  flowmesh::DieWithParent(parent);
  return flowmesh::executor::Main(argc, argv);
}
