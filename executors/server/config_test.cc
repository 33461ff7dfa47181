#include "executors/server/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace flowmesh::executor {
namespace {

using ::testing::HasSubstr;

using Variables = std::map<std::string, std::string>;

EnvReader Reader(const Variables& variables) {
  return EnvReader([variables](std::string_view name) -> std::optional<std::string> {
    const auto found = variables.find(std::string(name));
    if (found == variables.end()) return std::nullopt;
    return found->second;
  });
}

std::string ErrorOf(const Variables& variables) {
  EnvReader env = Reader(variables);
  ReadExecutorConfig(env, "/bin");
  return Message(env.status());
}

TEST(ExecutorConfig, Defaults) {
  EnvReader env = Reader({});
  const ExecutorConfig config = ReadExecutorConfig(env, "/opt/bin");
  EXPECT_TRUE(env.status().ok());
  EXPECT_EQ(config.listen.Target(), "127.0.0.1:50062");
  EXPECT_EQ(config.name, "e0");
  EXPECT_EQ(config.devices, "auto");
  EXPECT_FALSE(config.visible_devices.has_value());
  EXPECT_EQ(config.threads, AvailableCpus());
  EXPECT_EQ(config.rank_bin, "/opt/bin/flowmesh-rank");
  EXPECT_EQ(config.progress_timeout, absl::Hours(1));
  EXPECT_EQ(config.idle_release, absl::Minutes(10));
  EXPECT_FALSE(config.metrics_listen.has_value());
  EXPECT_EQ(config.log_level, LogLevel::kInfo);
}

TEST(ExecutorConfig, ReadsEveryVariable) {
  EnvReader env = Reader({{"EXECUTOR_LISTEN", "unix:/run/e.sock"},
                          {"EXECUTOR_NAME", "gpu-1"},
                          {"EXECUTOR_DEVICES", "0,1"},
                          {"EXECUTOR_THREADS", "3"},
                          {"EXECUTOR_RANK_BIN", "/bin/sh"},
                          {"EXECUTOR_PROGRESS_TIMEOUT_SEC", "0.5"},
                          {"EXECUTOR_IDLE_RELEASE_SEC", "0"},
                          {"EXECUTOR_METRICS_LISTEN", "127.0.0.1:9465"},
                          {"LOG_LEVEL", "warn"},
                          {"CUDA_VISIBLE_DEVICES", ""}});
  const ExecutorConfig config = ReadExecutorConfig(env, "/bin");
  EXPECT_TRUE(env.status().ok()) << env.status();
  EXPECT_EQ(config.listen.unix_path, "/run/e.sock");
  EXPECT_EQ(config.name, "gpu-1");
  EXPECT_EQ(config.devices, "0,1");
  EXPECT_EQ(config.visible_devices, "");  // empty is not unset here
  EXPECT_EQ(config.threads, 3);
  EXPECT_EQ(config.rank_bin, "/bin/sh");
  EXPECT_EQ(config.progress_timeout, absl::Milliseconds(500));
  EXPECT_EQ(config.idle_release, absl::InfiniteDuration());
  EXPECT_EQ(config.metrics_listen->Target(), "127.0.0.1:9465");
  EXPECT_EQ(config.log_level, LogLevel::kWarning);
}

TEST(ExecutorConfig, WrongValuesNameTheirVariable) {
  EXPECT_EQ(ErrorOf({{"EXECUTOR_LISTEN", "nowhere"}}),
            "EXECUTOR_LISTEN: expected host:port or unix:/path, got \"nowhere\"");
  EXPECT_EQ(ErrorOf({{"EXECUTOR_METRICS_LISTEN", "unix:/x"}}),
            "EXECUTOR_METRICS_LISTEN: expected host:port or off, got \"unix:/x\"");
  EXPECT_EQ(ErrorOf({{"EXECUTOR_THREADS", "two"}}),
            "EXECUTOR_THREADS: expected an integer from 1 to 4096, got \"two\"");
  EXPECT_THAT(ErrorOf({{"EXECUTOR_NAME", "a b"}}), HasSubstr("EXECUTOR_NAME: expected letters"));
}

TEST(ExecutorConfig, MachinesThatTrainTogether) {
  EnvReader alone = Reader({{"MASTER_ADDR", "10.0.0.7"}, {"MASTER_PORT", "29501"}});
  const NodeOptions one = ReadExecutorConfig(alone, "/bin").node;
  EXPECT_EQ(one.count, 1);
  EXPECT_EQ(one.master_addr, "127.0.0.1");
  EXPECT_EQ(one.master_port, 0);  // a free one for each group

  EnvReader env = Reader({{"NNODES", "2"}, {"NODE_RANK", "1"}, {"MASTER_ADDR", "10.0.0.7"}});
  const NodeOptions node = ReadExecutorConfig(env, "/bin").node;
  EXPECT_TRUE(env.status().ok()) << env.status();
  EXPECT_EQ(node.count, 2);
  EXPECT_EQ(node.rank, 1);
  EXPECT_EQ(node.master_addr, "10.0.0.7");
  EXPECT_EQ(node.master_port, 29500);

  EXPECT_EQ(ErrorOf({{"NNODES", "2"}}),
            "MASTER_ADDR: expected an address, because NNODES is over 1, got \"\"");
  EXPECT_EQ(ErrorOf({{"NNODES", "2"}, {"NODE_RANK", "2"}, {"MASTER_ADDR", "a"}}),
            "NODE_RANK: expected less than NNODES (2), got \"2\"");
}

TEST(ExecutorConfig, TheLogLevelIsLenient) {
  EnvReader env = Reader({{"LOG_LEVEL", "loud"}});
  EXPECT_EQ(ReadExecutorConfig(env, "/bin").log_level, LogLevel::kInfo);
  EXPECT_TRUE(env.status().ok());
  ASSERT_EQ(env.warnings().size(), 1u);
  EXPECT_THAT(env.warnings()[0], HasSubstr("got \"loud\""));
}

}  // namespace
}  // namespace flowmesh::executor
