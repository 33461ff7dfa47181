// An executor in another language: clients/python/example_executor.py behind a real sidecar.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>

#include "clients/cpp/sidecar_client.h"
#include "common/strings.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::HasSubstr;

Json WordCount(const Json& items) {
  return {{"taskType", "wordcount"}, {"data", {{"type", "list"}, {"items", items}}}};
}

std::filesystem::path Source() {
  return std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) /
         "clients/python/example_executor.py";
}

class PythonExecutorTest : public ::testing::Test {
 protected:
  static LineOptions With(std::vector<std::string> executors) {
    return {.executors = std::move(executors),
            .executor_commands = {{"python", {"/usr/bin/python3", Source()}}}};
  }
};

TEST_F(PythonExecutorTest, IsAtMostEightyLines) {
  const std::string text = ReadFile(Source()).value();
  EXPECT_LE(std::count(text.begin(), text.end(), '\n'), 80);
}

TEST_F(PythonExecutorTest, RunsATaskTypeOfItsOwn) {
  Line line(With({"python"}));
  const std::string id = line.Dispatch(WordCount({"one two  three", "", "four"}));
  const auto end = line.events().WaitForTerminal(id);
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED") << DumpJson(*end);
  EXPECT_EQ(line.ResultFile(id), ParseJson(R"({"ok": true, "items": [{"index": 0, "output": 3},
                          {"index": 1, "output": 0}, {"index": 2, "output": 1}]})")
                                     .value());
}

TEST_F(PythonExecutorTest, AMistakeFailsTheTaskWithItsFieldAndNothingElse) {
  Line line(With({"python"}));
  for (const Json& items : {Json("text"), Json::array({"a", 1})}) {
    const std::string id = line.Dispatch(WordCount(items));
    const auto end = line.events().WaitForTerminal(id);
    ASSERT_TRUE(end);
    EXPECT_EQ((*end)["type"], "TASK_FAILED");
    EXPECT_THAT(DumpJson(*end), HasSubstr("spec.data.items: expected a list of strings, got"));
  }
  const std::string id = line.Dispatch(WordCount({"still here"}));
  EXPECT_EQ((*line.events().WaitForTerminal(id))["type"], "TASK_SUCCEEDED");
}

// The sidecar knows task types by what executors say of themselves.
TEST_F(PythonExecutorTest, TheSidecarFindsWhoRunsATaskType) {
  Line line(With({"e0", "python"}));
  client::SidecarClient sidecar(line.sidecar_target());
  for (int i = 0; i < 3; ++i) {
    const auto words = sidecar.Submit({{"spec", WordCount({"a b"})}});
    ASSERT_TRUE(words.ok()) << words.status();
    EXPECT_EQ(words->worker_id(), "w.python");
    const auto echo = sidecar.Submit({{"spec", {{"taskType", "echo"}}}});
    ASSERT_TRUE(echo.ok()) << echo.status();
    EXPECT_EQ(echo->worker_id(), "w.e0");
    for (const auto& accepted : {words, echo}) {
      const auto record = sidecar.Watch(accepted->task_id());
      ASSERT_TRUE(record.ok()) << record.status();
      EXPECT_EQ(record->state(), v1::SUCCEEDED) << record->error();
    }
  }
}

TEST_F(PythonExecutorTest, ARunningTaskIsCancelled) {
  Line line(With({"python"}));
  client::SidecarClient sidecar(line.sidecar_target());
  Json spec = WordCount(std::vector<std::string>(1000, "word"));
  spec["pause_sec"] = 0.05;
  const auto accepted = sidecar.Submit({{"spec", std::move(spec)}}, "long");
  ASSERT_TRUE(accepted.ok()) << accepted.status();
  ASSERT_TRUE(Eventually([&] { return sidecar.Get("long")->state() == v1::RUNNING; }));
  EXPECT_TRUE(sidecar.Cancel("long").ok());
  const auto record = sidecar.Watch("long");
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->state(), v1::FAILED);
  EXPECT_THAT(record->error(), HasSubstr("cancelled"));
  const std::string fresh = line.Dispatch(WordCount({"a"}));
  EXPECT_EQ((*line.events().WaitForTerminal(fresh))["type"], "TASK_SUCCEEDED");
}

TEST_F(PythonExecutorTest, ADeathFailsItsTaskAndTheNextOneRuns) {
  Line line(With({"python"}));
  line.executor("python").process().Signal(SIGSTOP);
  const std::string held = line.Dispatch(WordCount({"a"}));
  ASSERT_TRUE(line.WaitForStatus("RUNNING", "w"));
  line.executor("python").process().Signal(SIGKILL);
  line.StartExecutor("python");
  ASSERT_TRUE(line.events().WaitForTerminal(held));
  const std::string fresh = line.Dispatch(WordCount({"b"}));
  const auto end = line.events().WaitForTerminal(fresh);
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
}

}  // namespace
}  // namespace flowmesh::testing
