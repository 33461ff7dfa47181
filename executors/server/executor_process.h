// For tests and benchmarks: a real flowmesh-executor as a child process, and a client of it.
#pragma once

#include <fcntl.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/endpoint.h"
#include "common/files.h"
#include "common/strings.h"
#include "common/subprocess.h"
#include "flowmesh/v1/executor.grpc.pb.h"

namespace flowmesh::executor {

class ExecutorProcess {
 public:
  // Starts it on `listen` with further variables; its log goes to `dir`/executor.log.
  ExecutorProcess(const std::filesystem::path& dir, const std::string& listen,
                  std::map<std::string, std::string> env = {})
      : log_path_(dir / absl::StrCat("executor-", RandomHex(4), ".log")) {
    const std::string bin = std::getenv("FLOWMESH_BIN_DIR");
    const UniqueFd log(::open(log_path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    SubprocessOptions options;
    options.argv = {bin + "/flowmesh-executor"};
    options.env = std::move(env);
    options.env["EXECUTOR_LISTEN"] = listen;
    options.env.try_emplace("EXECUTOR_RANK_BIN", bin + "/../tests/scripted_rank");
    options.stdout_fd = log.get();
    options.stderr_fd = log.get();
    process_ = Subprocess::Start(options).value();

    grpc::ChannelArguments arguments;
    arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 10);
    arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 10);
    arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 50);
    // A server of an earlier test may have had the same address: no shared connections.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    channel_ = grpc::CreateCustomChannel(ParseEndpoint(listen)->Target(),
                                         grpc::InsecureChannelCredentials(), arguments);
    stub_ = v1::Executor::NewStub(channel_);
  }

  // Whether it accepts connections, waiting for it.
  bool Up() {
    return channel_->WaitForConnected(std::chrono::system_clock::now() + std::chrono::seconds(30));
  }

  v1::Executor::Stub& stub() { return *stub_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  Subprocess& process() { return *process_; }
  std::string Log() const { return ReadFile(log_path_).value_or(""); }

 private:
  const std::filesystem::path log_path_;
  std::optional<Subprocess> process_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::Executor::Stub> stub_;
};

inline v1::ExecuteRequest EchoRequest(const std::string& id, const std::filesystem::path& dir) {
  v1::ExecuteRequest request;
  request.set_task_id(id);
  request.set_task_dir(dir.string());
  request.set_document_json(absl::StrCat(
      R"({"task_id": ")", id,
      R"(", "spec": {"taskType": "echo", "data": {"type": "list", "items": ["are you there"]}}})"));
  return request;
}

}  // namespace flowmesh::executor
