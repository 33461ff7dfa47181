#include "sidecar/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "common/files.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Values = std::map<std::string, std::string>;

EnvReader Reader(Values values) {
  return EnvReader(
      [values = std::move(values)](std::string_view name) -> std::optional<std::string> {
        const auto value = values.find(std::string(name));
        if (value == values.end()) return std::nullopt;
        return value->second;
      });
}

SidecarConfig Read(const Values& values) {
  EnvReader env = Reader(values);
  SidecarConfig config = ReadSidecarConfig(env);
  EXPECT_TRUE(env.status().ok()) << env.status();
  return config;
}

std::string Error(const Values& values) {
  EnvReader env = Reader(values);
  ReadSidecarConfig(env);
  return Message(env.status());
}

TEST(ConfigTest, DefaultsAreThoseOfTheProtocol) {
  const SidecarConfig config = Read({});
  ASSERT_TRUE(config.redis);
  EXPECT_EQ(config.redis->host, "localhost");
  EXPECT_EQ(config.redis->port, 6379);
  EXPECT_EQ(config.task_topic, "tasks");
  EXPECT_EQ(config.heartbeat_interval, absl::Seconds(30));
  EXPECT_EQ(config.cost_per_hour, 1.0);
  EXPECT_EQ(config.worker_id.size(), 16u);
  EXPECT_FALSE(config.worker_id_was_set);
  EXPECT_TRUE(config.results_dir.is_absolute());
  EXPECT_EQ(config.results_dir.filename(), "results_workers");
  ASSERT_EQ(config.executors.size(), 1u);
  EXPECT_EQ(config.executors[0].target, "127.0.0.1:50062");
  EXPECT_EQ(config.WorkerIdOf(config.executors[0]), config.worker_id);
  EXPECT_EQ(config.metrics_listen->port, 9464);
  EXPECT_EQ(config.drain_timeout, absl::Seconds(20));
  EXPECT_EQ(config.poison_task_deaths, 3);
  EXPECT_EQ(config.terminal_event_floor, absl::Milliseconds(50));
  EXPECT_EQ(config.max_message_bytes, 64u << 20);
  EXPECT_FALSE(config.bandwidth);
}

TEST(ConfigTest, SeveralExecutorsAreSeveralWorkers) {
  const SidecarConfig config =
      Read({{"WORKER_ID", " w "}, {"EXECUTOR_ENDPOINTS", "a=unix:/run/a.sock, 127.0.0.1:5"}});
  ASSERT_EQ(config.executors.size(), 2u);
  EXPECT_EQ(config.executors[0].target, "unix:/run/a.sock");
  EXPECT_EQ(config.executors[1].name, "e1");
  EXPECT_EQ(config.WorkerIdOf(config.executors[0]), "w.a");
  EXPECT_EQ(config.WorkerIdOf(config.executors[1]), "w.e1");
}

TEST(ConfigTest, StandaloneAndOff) {
  const SidecarConfig config = Read({{"REDIS_URL", "none"}, {"METRICS_LISTEN", "off"}});
  EXPECT_FALSE(config.redis);
  EXPECT_FALSE(config.metrics_listen);
}

TEST(ConfigTest, AContainersRedisVariablesMakeTheUrl) {
  const SidecarConfig config =
      Read({{"REDIS_HOST", "redis"}, {"REDIS_PORT", "7000"}, {"REDIS_DB", "3"}});
  EXPECT_EQ(config.redis->host, "redis");
  EXPECT_EQ(config.redis->port, 7000);
  EXPECT_EQ(config.redis->database, 3);

  const SidecarConfig port = Read({{"REDIS_PORT", "7000"}});
  EXPECT_EQ(port.redis->host, "redis");
  EXPECT_EQ(port.redis->port, 7000);
  const SidecarConfig database = Read({{"REDIS_DB", "3"}});
  EXPECT_EQ(database.redis->host, "redis");
  EXPECT_EQ(database.redis->port, 6379);
  EXPECT_EQ(database.redis->database, 3);
  for (const std::string host : {"fd00::7", "[fd00::7]"}) {
    const SidecarConfig ipv6 = Read({{"REDIS_HOST", host}});
    EXPECT_EQ(ipv6.redis->host, "fd00::7");
    EXPECT_EQ(ipv6.redis->port, 6379);
  }
  EXPECT_EQ(Read({{"REDIS_URL", "redis://a"}, {"REDIS_PORT", "7000"}}).redis->port, 6379);
}

TEST(ConfigTest, TheIdOfEachExecutorIsShortEnough) {
  const std::string id(120, 'x');
  const auto with = [&](const std::string& executors) {
    return Values{{"WORKER_ID", id}, {"EXECUTOR_ENDPOINTS", executors}};
  };
  EXPECT_EQ(Read(with("a=127.0.0.1:1,seven77=127.0.0.1:2")).executors.size(), 2u);
  EXPECT_EQ(Read(with("eight888=127.0.0.1:1")).executors.size(), 1u);  // its id is WORKER_ID
  EXPECT_EQ(Error(with("a=127.0.0.1:1,eight888=127.0.0.1:2")),
            "EXECUTOR_ENDPOINTS: expected names with which the worker ids, <WORKER_ID>.<name>, "
            "have at most 128 bytes, got \"" +
                id + ".eight888\"");
}

TEST(ConfigTest, PasswordsOfRedisMayStandInFiles) {
  const TempDir dir;
  const std::string ours = dir / "ours", theirs = dir / "theirs", empty = dir / "empty";
  ASSERT_TRUE(WriteFileAtomically(ours, "a\n").ok());
  ASSERT_TRUE(WriteFileAtomically(theirs, "b\n").ok());
  ASSERT_TRUE(WriteFileAtomically(empty, "\n").ok());
  const SidecarConfig config = Read({{"REDIS_URL", "redis+sentinel://ann@h1,h2/m"},
                                     {"REDIS_PASSWORD_FILE", ours},
                                     {"REDIS_SENTINEL_PASSWORD_FILE", theirs}});
  EXPECT_EQ(config.redis->user, "ann");
  EXPECT_EQ(redis::PasswordOf(*config.redis).value(), "a");
  ASSERT_EQ(config.redis->sentinels.size(), 2u);
  EXPECT_EQ(redis::PasswordOf(config.redis->sentinels[1]).value(), "b");

  EXPECT_EQ(Error({{"REDIS_URL", "redis://:canary@h"}, {"REDIS_PASSWORD_FILE", ours}}),
            "REDIS_PASSWORD_FILE: expected no password in REDIS_URL beside it, got one");
  EXPECT_EQ(Error({{"REDIS_PASSWORD_FILE", dir / "none"}}),
            "REDIS_PASSWORD_FILE: expected a file with a password in it that can be read, got \"" +
                (dir / "none").string() + "\"");
  EXPECT_THAT(Error({{"REDIS_PASSWORD_FILE", empty}}), StartsWith("REDIS_PASSWORD_FILE: "));
  EXPECT_THAT(Error({{"REDIS_URL", "redis+sentinel://h/m"},
                     {"REDIS_SENTINEL_PASSWORD_FILE", dir / "none"}}),
              StartsWith("REDIS_SENTINEL_PASSWORD_FILE: "));
}

TEST(ConfigTest, ArchivesKnobsKeepTheirMeaning) {
  const SidecarConfig unset = Read({});
  EXPECT_EQ(unset.archive.level, 6);
  EXPECT_GE(unset.archive.threads, 1);
  EXPECT_EQ(unset.archive.tar_program, "");
  EXPECT_EQ(unset.archive.gzip_program, "");
  EXPECT_FALSE(unset.cleanup_after_upload);

  const SidecarConfig set = Read({{"MODEL_ARCHIVE_COMPRESSION_LEVEL", "12"},
                                  {"MODEL_ARCHIVE_PIGZ_THREADS", "3"},
                                  {"MODEL_ARCHIVE_PIGZ_BIN", "/opt/pigz"},
                                  {"MODEL_ARCHIVE_TAR_BIN", "gtar"},
                                  {"MODEL_CLEANUP_AFTER_UPLOAD", "y"}});
  EXPECT_EQ(set.archive.level, 9);
  EXPECT_EQ(set.archive.threads, 3);
  EXPECT_EQ(set.archive.tar_program, "gtar");
  EXPECT_EQ(set.archive.gzip_program, "/opt/pigz");
  EXPECT_TRUE(set.cleanup_after_upload);
  EXPECT_EQ(Read({{"MODEL_ARCHIVE_COMPRESSION_LEVEL", "-3"}}).archive.level, 0);

  const SidecarConfig off = Read({{"MODEL_ARCHIVE_USE_PIGZ", "Off"},
                                  {"MODEL_ARCHIVE_PIGZ_THREADS", "3"},
                                  {"MODEL_ARCHIVE_PIGZ_BIN", "pigz"},
                                  {"MODEL_CLEANUP_AFTER_UPLOAD", "no"}});
  EXPECT_EQ(off.archive.threads, 1);
  EXPECT_EQ(off.archive.gzip_program, "");
  EXPECT_FALSE(off.cleanup_after_upload);

  EnvReader env = Reader({{"REDIS_URL", "none"},
                          {"MODEL_ARCHIVE_COMPRESSION_LEVEL", "best"},
                          {"MODEL_ARCHIVE_PIGZ_THREADS", "0"},
                          {"MODEL_ARCHIVE_TAR_BIN", "/nonexistent/tar"},
                          {"MODEL_ARCHIVE_PIGZ_BIN", "no-such-pigz"},
                          {"MODEL_CLEANUP_AFTER_UPLOAD", "nein"}});
  EXPECT_EQ(ReadSidecarConfig(env).archive.level, 6);
  EXPECT_TRUE(env.status().ok());
  EXPECT_THAT(env.warnings(),
              ElementsAre(StartsWith("MODEL_ARCHIVE_COMPRESSION_LEVEL: "),
                          StartsWith("MODEL_ARCHIVE_PIGZ_THREADS: "),
                          "MODEL_ARCHIVE_TAR_BIN: expected a program that can be run, got "
                          "\"/nonexistent/tar\"; the built-in way is used",
                          StartsWith("MODEL_ARCHIVE_PIGZ_BIN: "),
                          StartsWith("MODEL_CLEANUP_AFTER_UPLOAD: ")));
  EnvReader high = Reader({{"REDIS_URL", "none"}, {"MODEL_ARCHIVE_COMPRESSION_LEVEL", "11"}});
  ReadSidecarConfig(high);
  EXPECT_THAT(high.warnings(),
              ElementsAre("MODEL_ARCHIVE_COMPRESSION_LEVEL: expected an integer from 0 to 9, got "
                          "\"11\"; 9 is used"));
}

TEST(ConfigTest, ALenientVariableWarns) {
  EnvReader env = Reader({{"LOG_LEVEL", "loud"}, {"REDIS_URL", "none"}});
  EXPECT_EQ(ReadSidecarConfig(env).log_level, LogLevel::kInfo);
  EXPECT_TRUE(env.status().ok());
  ASSERT_EQ(env.warnings().size(), 1u);
  EXPECT_THAT(env.warnings()[0], HasSubstr("LOG_LEVEL"));
}

TEST(ConfigTest, MistakesNameTheVariableAndNeverASecret) {
  for (const auto& [name, value] : std::vector<std::pair<std::string, std::string>>{
           {"HEARTBEAT_INTERVAL_SEC", "abc"},
           {"REDIS_URL", "http://x"},
           {"REDIS_URL", "redis://host:port"},
           {"WORKER_ID", "a/b"},
           {"WORKER_ID", ".."},
           {"WORKER_ID", std::string(129, 'x')},
           {"WORKER_COST_PER_HOUR", "nan"},
           {"ORCHESTRATOR_BASE_URL", "ftp://x"},
           {"EXECUTOR_ENDPOINTS", "a=nowhere"},
           {"EXECUTOR_ENDPOINTS", "a=127.0.0.1:1,a=127.0.0.1:2"},
           {"EXECUTOR_ENDPOINTS", ","},
           {"SIDECAR_LISTEN", "nowhere"},
           {"METRICS_LISTEN", "unix:/x"},
           {"TERMINAL_EVENT_FLOOR_MS", "-1"},
           {"MAX_MESSAGE_BYTES", "10"}}) {
    EXPECT_THAT(Error({{name, value}}), StartsWith(name + ": expected ")) << value;
  }
  EXPECT_THAT(Error({{"REDIS_URL", "redis://u:canary@host:port"}}),
              ::testing::Not(HasSubstr("canary")));
  EXPECT_EQ(Error({{"ORCHESTRATOR_BASE_URL", "ftp://u:canary@host"}}),
            "ORCHESTRATOR_BASE_URL: expected an http or https URL, got \"ftp://host\"");
}

}  // namespace
}  // namespace flowmesh::sidecar
