#include "executors/agent/loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/clock.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/agent/endpoint.h"
#include "executors/agent/scripted_endpoint.h"
#include "executors/agent/team.h"
#include "executors/agent/tools/tool_makers.h"

namespace flowmesh::agent {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;
using ::testing::SizeIs;

class LoopTest : public ::testing::Test {
 protected:
  LoopTest() {
    EXPECT_TRUE(
        tools_
            .Add(MakeTool({.name = "add",
                           .parameters = Parameters({{"a", "integer", ""}, {"b", "integer", ""}})},
                          [](const Json& arguments, const ToolContext&) {
                            return std::to_string(arguments["a"].get<int>() +
                                                  arguments["b"].get<int>());
                          }))
            .ok());
    context_.transcript = &transcript_;
    context_.on_step = [this](const std::string& step) { steps_.push_back(step); };
  }

  // An agent on `endpoint`, which must outlive it.
  Agent MakeAgent(const ScriptedEndpoint& endpoint, const std::string& name = "") {
    models_.push_back(MakeEndpoint(ReadEndpointSettings(endpoint.Env(), {}).value()));
    return {
        .name = name, .instructions = "Be exact.", .model = models_.back().get(), .tools = &tools_};
  }

  TempDir dir_;
  Toolbox tools_{1000};
  std::vector<std::unique_ptr<ChatModel>> models_;
  Transcript transcript_{dir_ / "said.jsonl", {"canary"}, nullptr};
  RunContext context_;
  std::vector<std::string> steps_;
};

TEST_F(LoopTest, CallsAreAnsweredUntilAnAnswerComes) {
  ScriptedEndpoint endpoint({Calls("add", R"({"a": 2, "b": 3})"), Says("5 it is")});
  const auto answer = RunAgent(MakeAgent(endpoint), "2 + 3?", context_);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, "5 it is");
  const Json messages = endpoint.body(1)["messages"];
  ASSERT_THAT(messages, SizeIs(4));
  EXPECT_EQ(messages[2]["tool_calls"][0]["function"]["arguments"], R"({"a": 2, "b": 3})");
  EXPECT_EQ(messages[3], (Json{{"role", "tool"}, {"content", "5"}, {"tool_call_id", "call_a"}}));
  EXPECT_THAT(transcript_.lines(),
              ElementsAre("turn 1: 7 tokens, calls add", MatchesRegex("add: [0-9.]+ s, 1 bytes"),
                          "turn 2: 12 tokens"));
  EXPECT_EQ(transcript_.usage().completion_tokens, 19);
  EXPECT_EQ(transcript_.usage().prompt_tokens, 70);
  EXPECT_THAT(steps_, ElementsAre("turn 1", "add", "turn 2"));
  const std::vector<std::string> said =
      absl::StrSplit(ReadFile(dir_ / "said.jsonl").value(), '\n', absl::SkipEmpty());
  ASSERT_THAT(said, SizeIs(5));
  EXPECT_EQ(ParseJson(said[3]).value()["content"], "5");
}

// Each mistake is answered, and the model can do better.
TEST_F(LoopTest, AModelLearnsFromItsMistakes) {
  ScriptedEndpoint endpoint({Calls("add", R"({"a": 2, )"), Calls("sum", "{}"),
                             Calls("add", R"({"a": "two", "b": 3})"), Says("I give up")});
  EXPECT_EQ(RunAgent(MakeAgent(endpoint), "2 + 3?", context_).value(), "I give up");
  const auto last = [&](size_t i) {
    return endpoint.body(i)["messages"].back()["content"].get<std::string>();
  };
  EXPECT_THAT(last(1), HasSubstr("error: the arguments are no JSON"));
  EXPECT_EQ(last(2), "error: no tool is named 'sum'; known are: add");
  EXPECT_EQ(last(3), "error: a: expected an integer, got \"two\"");
  EXPECT_EQ(endpoint.body(1)["messages"][2]["tool_calls"][0]["function"]["arguments"],
            R"({"invalid":"{\"a\": 2, "})")
      << "servers refuse a history with arguments that are no map";
  EXPECT_THAT(transcript_.lines()[3], HasSubstr("no tool is named"));
}

TEST_F(LoopTest, NamesOfToolsAreCutBetweenCharacters) {
  std::string umlauts = "x";
  for (int i = 0; i < 80; ++i) umlauts += "\u00e4";
  ScriptedEndpoint endpoint({Calls(umlauts, "{}"), Says("done")});
  EXPECT_EQ(RunAgent(MakeAgent(endpoint), "x", context_).value(), "done");
  ASSERT_THAT(steps_, SizeIs(3));
  EXPECT_EQ(steps_[1], umlauts.substr(0, 99));
  for (const std::string& line : transcript_.lines()) EXPECT_TRUE(IsValidUtf8(line)) << line;
  const std::string told = endpoint.body(1)["messages"].back()["content"];
  EXPECT_THAT(told, HasSubstr("named '" + umlauts.substr(0, 99) + "'; known"));
}

TEST_F(LoopTest, TriesThatFailAreTold) {
  ScriptedEndpoint endpoint({Status(503, "busy"), Says("well")});
  EXPECT_EQ(RunAgent(MakeAgent(endpoint), "x", context_).value(), "well");
  EXPECT_THAT(transcript_.lines(),
              ElementsAre(AllOf(HasSubstr("turn 1: trying again: "), HasSubstr("HTTP 503: busy")),
                          "turn 1: 12 tokens"));
}

TEST_F(LoopTest, TurnsAreBounded) {
  ScriptedEndpoint endpoint({Calls("add", R"({"a": 2, "b": 3})")});
  Agent agent = MakeAgent(endpoint);
  agent.max_turns = 3;
  const auto answer = RunAgent(agent, "2 + 3?", context_);
  EXPECT_EQ(Message(answer.status()), "no answer after 3 turns, the most that max_turns allows");
  EXPECT_EQ(endpoint.count(), 3u);
}

TEST_F(LoopTest, TheLastToolEndsTheRun) {
  ScriptedEndpoint endpoint({Calls("add", R"({"a": 2})"), Calls("add", R"({"a": 2, "b": 3})")});
  Agent agent = MakeAgent(endpoint);
  agent.last_tool = "add";
  EXPECT_EQ(RunAgent(agent, "2 + 3?", context_).value(), R"({"a": 2, "b": 3})");
  EXPECT_EQ(endpoint.count(), 2u);
}

TEST_F(LoopTest, TimeAndCancelAreSeenBetweenSteps) {
  ScriptedEndpoint endpoint({Calls("add", R"({"a": 2, "b": 3})")});
  context_.tools.deadline = Clock::Real().Monotonic();
  EXPECT_TRUE(absl::IsDeadlineExceeded(RunAgent(MakeAgent(endpoint), "x", context_).status()));
  context_.tools.deadline = absl::InfiniteDuration();
  context_.tools.is_stopped = [this] { return steps_.size() > 1; };
  EXPECT_TRUE(absl::IsCancelled(RunAgent(MakeAgent(endpoint), "x", context_).status()));
  EXPECT_EQ(endpoint.count(), 1u);
}

TEST_F(LoopTest, SecretsAreBlankedForModelsAndPeople) {
  ScriptedEndpoint endpoint({Says("the canary sings")});
  EXPECT_EQ(RunAgent(MakeAgent(endpoint), "x", context_).value(), "the *** sings");
  EXPECT_THAT(ReadFile(dir_ / "said.jsonl").value(), Not(HasSubstr("canary")));
}

TEST_F(LoopTest, SecretsInCallsAreBlankedForPeople) {
  ScriptedEndpoint endpoint({Calls("the_canary", "{}", "canary_id"), Says("done")});
  EXPECT_EQ(RunAgent(MakeAgent(endpoint), "x", context_).value(), "done");
  EXPECT_EQ(steps_[1], "the_***");
  EXPECT_THAT(ReadFile(dir_ / "said.jsonl").value(), Not(HasSubstr("canary")));
}

TEST_F(LoopTest, ASecretAtTheEndOfACutAnswerIsBlankedWhole) {
  ASSERT_TRUE(tools_
                  .Add(MakeTool({.name = "leak"},
                                [](const Json&, const ToolContext&) {
                                  return std::string(996, 'x') + "canary and so on";
                                }))
                  .ok());
  ScriptedEndpoint endpoint({Calls("leak", "{}"), Says("done")});
  EXPECT_EQ(RunAgent(MakeAgent(endpoint), "x", context_).value(), "done");
  EXPECT_THAT(endpoint.body(1)["messages"].back()["content"].get<std::string>(),
              Not(HasSubstr("cana")));
}

TEST_F(LoopTest, ATeamPlansWorksAndReports) {
  ScriptedEndpoint planner(
      {Calls("submit_plan", R"({"steps": [{"worker": "nobody", "task": "x"}]})"),
       Calls("submit_plan", R"({"steps": []})"),
       Calls(
           "submit_plan",
           R"({"steps": [{"worker": "adder", "task": "add"}, {"worker": "lazy", "task": "rest"}]})")});
  ScriptedEndpoint adder({Calls("add", R"({"a": 2, "b": 3})"), Says("it is 5")});
  ScriptedEndpoint lazy({Calls("add", "{}")});
  ScriptedEndpoint reporter({Says("The answer is 5.")});
  Team team{.planner = MakeAgent(planner, "planner"),
            .reporter = MakeAgent(reporter, "reporter"),
            .workers = {{MakeAgent(adder, "adder"), "adds"}, {MakeAgent(lazy, "lazy"), "rests"}},
            .max_steps = 2};
  team.workers[1].agent.max_turns = 2;
  const auto answer = RunTeam(team, "2 + 3?", context_);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(*answer, "The answer is 5.");
  EXPECT_THAT(planner.body(0)["messages"][1]["content"].get<std::string>(),
              AllOf(HasSubstr("2 + 3?"), HasSubstr("- adder: adds\n- lazy: rests")));
  EXPECT_THAT(planner.body(1)["messages"].back()["content"].get<std::string>(),
              HasSubstr("steps[0].worker: expected one of [\"adder\",\"lazy\"]"));
  EXPECT_EQ(planner.body(2)["messages"].back()["content"],
            "error: steps: expected 1 to 2 of them, got 0");
  EXPECT_THAT(lazy.body(0)["messages"][1]["content"].get<std::string>(),
              AllOf(HasSubstr("## Step 1 (adder): add\n\nit is 5"), HasSubstr("Your step:\nrest")));
  EXPECT_THAT(reporter.body(0)["messages"][1]["content"].get<std::string>(),
              AllOf(HasSubstr("it is 5"), HasSubstr("This step failed: lazy: no answer after 2")));
}

TEST_F(LoopTest, APlanThatIsSaidIsBoundedToo) {
  const std::string step = R"({"worker": "worker", "task": "work"})";
  ScriptedEndpoint planner(
      {Says(absl::StrCat(R"({"steps": [)", step, ",", step, ",", step, "]}"))});
  ScriptedEndpoint worker({Says("done")});
  ScriptedEndpoint reporter({Says("It is done.")});
  const Team team{.planner = MakeAgent(planner, "planner"),
                  .reporter = MakeAgent(reporter, "reporter"),
                  .workers = {{MakeAgent(worker, "worker"), "works"}},
                  .max_steps = 2};
  EXPECT_EQ(RunTeam(team, "the task", context_).value(), "It is done.");
  EXPECT_EQ(worker.count(), 2u);
  EXPECT_THAT(transcript_.lines(),
              Contains("planner: a plan of 3 steps, of which the first 2 are done"));
}

TEST_F(LoopTest, WithoutAPlanTheFirstWorkerGetsTheTask) {
  ScriptedEndpoint planner({Says("just do it")});
  ScriptedEndpoint worker({Says("done")});
  ScriptedEndpoint reporter({Says("It is done.")});
  const Team team{.planner = MakeAgent(planner, "planner"),
                  .reporter = MakeAgent(reporter, "reporter"),
                  .workers = {{MakeAgent(worker, "worker"), "works"}}};
  EXPECT_EQ(RunTeam(team, "the task", context_).value(), "It is done.");
  EXPECT_THAT(worker.body(0)["messages"][1]["content"].get<std::string>(),
              HasSubstr("Your step:\nthe task"));
}

}  // namespace
}  // namespace flowmesh::agent
