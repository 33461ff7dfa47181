// An executor in the process of a test, for what a program cannot be made to do: what it does with
// a task is up to the class that derives from it.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/rpc/server.h"
#include "flowmesh/v1/executor.grpc.pb.h"

namespace flowmesh::testing {

// It offers `echo`.
class InProcessExecutor : public v1::Executor::Service {
 public:
  // Serves on a unix socket, each time as another process would; ends with what is returned.
  std::unique_ptr<RpcServer> Serve(const std::filesystem::path& socket) {
    ++instance_;
    auto server = RpcServer::Start({.variable = "EXECUTOR_LISTEN",
                                    .listen = ParseEndpoint("unix:" + socket.string()).value(),
                                    .service_name = v1::Executor::service_full_name()},
                                   *this);
    EXPECT_TRUE(server.ok()) << server.status();
    return *std::move(server);
  }

  grpc::Status Describe(grpc::ServerContext*, const v1::DescribeRequest*,
                        v1::ExecutorDescription* description) override {
    description->set_name("in-process");
    description->set_instance_id(absl::StrCat(instance_.load()));
    description->add_runnable_task_types("echo");
    return grpc::Status::OK;
  }

 private:
  std::atomic<int> instance_{0};
};

}  // namespace flowmesh::testing
