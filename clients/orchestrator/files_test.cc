#include "common/files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "clients/orchestrator/config.h"
#include "clients/orchestrator/file_answer.h"
#include "clients/orchestrator/result_store.h"
#include "common/clock.h"

namespace flowmesh::orchestrator {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(FolderNameTest, NoIdLeavesTheRoot) {
  EXPECT_EQ(FolderName("0f7e-A_z"), "0f7e-A_z");
  EXPECT_EQ(FolderName("../../etc/x"), "______etc_x");
  EXPECT_EQ(FolderName("a.b c"), "a_b_c");
  EXPECT_EQ(FolderName("é"), "_");
}

TEST(BareFileNameTest, RefusesPaths) {
  for (const char* bad : {"", ".", "..", "a/b", "/a", "../a"}) EXPECT_FALSE(IsBareFileName(bad));
  EXPECT_FALSE(IsBareFileName(std::string_view("a\0b", 3)));
  for (const char* good : {"a", ".hidden", "final_model.tar.gz", "..a"}) {
    EXPECT_TRUE(IsBareFileName(good));
  }
}

TEST(ResultStoreTest, KeepsResultManifestAndUploads) {
  TempDir dir;
  const FakeClock clock;
  const ResultStore store(dir.path(), clock);
  EXPECT_EQ(store.LoadResult("t").status().code(), absl::StatusCode::kNotFound);
  {
    DotFile upload = store.BeginUpload("t", "m.tar.gz").value();
    ASSERT_TRUE(upload.Write("hello ").ok());
    ASSERT_TRUE(upload.Write("world").ok());
    EXPECT_FALSE(store.FindFile("t", "m.tar.gz").ok());  // not before it is whole
    ASSERT_TRUE(upload.Commit().ok());
  }
  { const DotFile abandoned = store.BeginUpload("t", "never").value(); }
  EXPECT_EQ(ReadFile(store.FindFile("t", "m.tar.gz").value()).value(), "hello world");
  EXPECT_FALSE(store.FindFile("t", "never").ok());

  const Json document = {{"task_id", "t"}, {"result", {{"ok", true}}}};
  std::filesystem::create_symlink("/etc", store.Folder("t") / "outside");
  std::filesystem::create_symlink("/etc/passwd", store.Folder("t") / "artifacts/outside");
  ASSERT_TRUE(
      store.StoreResult("t", document, {"./final_model/", "../etc", "notes.txt", "outside/passwd"})
          .ok());
  EXPECT_EQ(store.LoadResult("t").value(), document);
  const Json manifest = ParseJson(ReadFile(store.Folder("t") / "manifest.json").value()).value();
  std::map<std::string, Json> entries;
  for (const Json& entry : manifest["entries"]) entries[entry["name"]] = entry;
  EXPECT_EQ(entries.size(), 8u);
  EXPECT_FALSE(store.FindFile("t", "outside").ok());
  EXPECT_EQ(entries["outside"]["status"], "missing");
  EXPECT_EQ(entries["outside/passwd"]["status"], "missing");
  EXPECT_EQ(entries["../etc"]["status"], "missing");
  EXPECT_EQ(entries["final_model"]["type"], "directory");
  EXPECT_EQ(entries["notes.txt"]["type"], "artifact");
  EXPECT_EQ(entries["artifacts"]["file_count"], 1);
  EXPECT_EQ(entries["artifacts"]["size"], 11);
  EXPECT_EQ(entries["responses.json"]["type"], "result");
  EXPECT_EQ(entries["responses.json"]["sha256"].get<std::string>().size(), 64u);
}

TEST(ParseRangeTest, FollowsTheStandard) {
  const auto range = [](const char* header, uint64_t size) -> std::string {
    const auto parsed = ParseRange(header, size);
    if (!parsed.ok()) return "416";
    if (!*parsed) return "all";
    return std::to_string((*parsed)->offset) + "+" + std::to_string((*parsed)->length);
  };
  EXPECT_EQ(range("bytes=0-", 10), "0+10");
  EXPECT_EQ(range("bytes=3-5", 10), "3+3");
  EXPECT_EQ(range("bytes=3-99", 10), "3+7");
  EXPECT_EQ(range("bytes=-4", 10), "6+4");
  EXPECT_EQ(range("bytes=-40", 10), "0+10");
  EXPECT_EQ(range("bytes=10-", 10), "416");
  EXPECT_EQ(range("bytes=-0", 10), "416");
  EXPECT_EQ(range("bytes=0-", 0), "416");
  for (const char* all :
       {"", "lines=1-2", "bytes=", "bytes=-", "bytes=5-3", "bytes=a-b", "bytes=0-1,3-4"}) {
    EXPECT_EQ(range(all, 10), "all") << all;
  }
}

TEST(ConfigTest, ReadsChecksAndKeepsSecrets) {
  std::map<std::string, std::string> values;
  const auto read = [&](EnvReader& env) { return ReadConfig(env); };
  const EnvLookup lookup = [&](std::string_view name) -> std::optional<std::string> {
    const auto value = values.find(std::string(name));
    if (value == values.end()) return std::nullopt;
    return value->second;
  };
  EnvReader defaults(lookup);
  const Config config = read(defaults);
  ASSERT_TRUE(defaults.status().ok()) << defaults.status();
  EXPECT_EQ(config.listen.Target(), "127.0.0.1:8000");
  EXPECT_EQ(config.results_dir.filename(), "results_host");
  EXPECT_TRUE(config.merge && config.elastic && config.watchdog);
  EXPECT_FALSE(config.flushdb_on_exit || config.late_order_delay);
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"REDIS_URL", "redis://u:canary@h:bad"}, {"ORCHESTRATOR_LISTEN", "unix:/x"},
      {"ORCHESTRATOR_LISTEN", "8000"},         {"TASK_MERGE_MAX_BATCH_SIZE", "0"},
      {"WORKER_DEATH_CHECK_INTERVAL", "4"},    {"WORKER_DEATH_GRACE_SEC", "x"},
      {"ORCHESTRATOR_LATE_ORDER_MS", "-2"}};
  for (const auto& [name, value] : wrong) {
    values = {{name, value}};
    EnvReader env(lookup);
    read(env);
    EXPECT_THAT(Message(env.status()), HasSubstr(name + ": expected ")) << value;
    EXPECT_THAT(Message(env.status()), Not(HasSubstr("canary")));
  }
  values = {{"LOG_LEVEL", "loud"}};
  EnvReader lenient(lookup);
  read(lenient);
  EXPECT_TRUE(lenient.status().ok());
  EXPECT_EQ(lenient.warnings().size(), 1u);
}

}  // namespace
}  // namespace flowmesh::orchestrator
