// Agents whose models run in this process.
#include "executors/tasks/local_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/yaml.h"
#include "executors/agent/scripted_endpoint.h"
#include "executors/model/golden_encoder.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/test_task.h"

namespace flowmesh::tasks {
namespace {

using ::testing::AllOf;
using ::testing::Contains;
using ::testing::HasSubstr;

constexpr char kTemplate[] = "{% for m in messages %}{{ m.role }}: {{ m.content }} {% endfor %}";

class LocalModelsTest : public TaskTest {
 protected:
  LocalModelsTest() {
    std::filesystem::create_directories(dir_ / "configurations");
    spec_ = ParseYaml("{configName: own, data: {type: list, items: [one, two, three]}}").value();
  }

  absl::StatusOr<TaskOutcome> Run(const std::string& model, const std::string& id = "T1") {
    EXPECT_TRUE(
        WriteFileAtomically(dir_ / "configurations/own.yaml", absl::StrCat("model: ", model, "\n"))
            .ok());
    const EnvLookup env = [this](std::string_view name) -> std::optional<std::string> {
      if (name == "AGENT_CONFIG_DIR") return (dir_ / "configurations").string();
      if (name == "HF_HUB_OFFLINE") return "1";
      return std::nullopt;
    };
    return AgentRunner(env, models_).Run(Context(id));
  }
  std::string Local(const std::string& family, const std::string& rest = "") {
    return absl::StrCat("{local: '", model::ModelGolden(family).string(), "', chat_template: '",
                        kTemplate, "', max_tokens: 6, temperature: 0", rest, "}");
  }
  int64_t Loads() const {
    return std::count_if(log_.begin(), log_.end(), [](const std::string& line) {
      return absl::StartsWith(line, "loaded model");
    });
  }

  const std::shared_ptr<LocalModels> models_ =
      std::make_shared<LocalModels>(/*use_cuda=*/false, at::kCPU);
};

TEST_F(LocalModelsTest, AnswersWithoutAnEndpoint) {
  const auto outcome = Run(Local("llama"));
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_EQ(outcome->result["items"].size(), 3u);
  // What the model itself says to the rendered text.
  auto loaded = model::LoadModel(model::ModelGolden("llama"), {}).value();
  const auto engine = engine::Engine::Create(&loaded, engine::EngineOptions());
  const auto said = engine->Generate(
      {{.prompt_ids = loaded.tokenizer->Encode("user: two ", /*add_special_tokens=*/false),
        .params = {.max_tokens = 6, .temperature = 0}}},
      [](const auto&) { return true; });
  ASSERT_TRUE(said.ok());
  EXPECT_EQ(outcome->result["items"][1]["output"], said->front().text);
  EXPECT_GT(outcome->result["usage"]["completion_tokens"], 3);
}

TEST_F(LocalModelsTest, StaysWarmUntilATaskNamesAnother) {
  ASSERT_TRUE(Run(Local("llama"), "T1").ok());
  EXPECT_EQ(Loads(), 1);
  ASSERT_TRUE(Run(Local("llama"), "T2").ok());
  EXPECT_EQ(Loads(), 0);
  ASSERT_TRUE(Run(Local("qwen2"), "T3").ok());
  EXPECT_EQ(Loads(), 1);
  ASSERT_TRUE(Run(Local("llama"), "T4").ok());
  EXPECT_EQ(Loads(), 1) << "it went when another came";
}

// As after a crash of the orchestrator: the same task id, and by then other files.
TEST_F(LocalModelsTest, ATaskThatComesAgainGetsTheModelThatIsThere) {
  namespace fs = std::filesystem;
  const fs::path folder = dir_ / "model";
  const std::string model = absl::StrCat("{local: '", folder.string(), "', chat_template: '",
                                         kTemplate, "', max_tokens: 6, temperature: 0}");
  fs::copy(model::ModelGolden("llama"), folder, fs::copy_options::recursive);
  const auto first = Run(model, "T1");
  ASSERT_TRUE(first.ok()) << first.status();
  fs::rename(folder, dir_ / "away");
  EXPECT_THAT(Message(Run(model, "T1").status()), HasSubstr("model.local: "));
  fs::copy(model::ModelGolden("qwen2"), folder, fs::copy_options::recursive);
  const auto second = Run(model, "T1");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(Loads(), 1);
  EXPECT_NE(second->result["items"], first->result["items"]);
}

TEST_F(LocalModelsTest, AStoreIsSearchedWithAnEncoderOfThisProcess) {
  model::MakeGoldenEncoder(dir_ / "encoder");
  std::filesystem::create_directories(dir_ / "docs");
  EXPECT_TRUE(WriteFileAtomically(dir_ / "docs/good.md", "# Dogs\ngood dog\n# No\nbad\n").ok());
  agent::ScriptedEndpoint endpoint([](const Json& body) {
    const Json& last = body["messages"].back();
    return last["role"] == "tool"
               ? agent::Says("done")
               : agent::Calls("search_passages", DumpJson(Json{{"query", last["content"]}}));
  });
  int tasks = 0;
  const auto found = [&](const std::string& options) {
    const auto outcome = Run(
        absl::StrCat("{name: m, base_url: '", endpoint.base_url(),
                     "'}\ntools: [{retrieval: {path: '", (dir_ / "store.db").string(),
                     "', model: '", (dir_ / "encoder").string(), "', top_k: 1, ", options, "}}]"),
        absl::StrCat("T", ++tasks));
    return outcome.ok() ? endpoint.body(endpoint.count() - 1)["messages"]
                              .back()["content"]
                              .get<std::string>()
                        : Message(outcome.status());
  };
  spec_["data"]["items"] = {"# Dogs good dog"};
  const std::string sources =
      absl::StrCat("sources: ['", (dir_ / "docs").string(), "'], chunking: {by: headings}");
  // A passage's own words are the nearest to it.
  EXPECT_THAT(found(sources), AllOf(HasSubstr("good.md; heading: Dogs; score: 1.000"),
                                    HasSubstr("# Dogs\n\ngood dog")));
  EXPECT_THAT(log_, Contains(HasSubstr("loaded model")));
  EXPECT_THAT(progress_, Contains(testing::Field(&Progress::stage, "embedding passages")));
  // Several texts at once, with the store as it is.
  spec_["data"]["items"] = {"# Dogs good dog", "# No bad", "bad", "dog"};
  EXPECT_THAT(found(""), HasSubstr("[1] source: "));
  EXPECT_THAT(log_, Contains(HasSubstr("is warm")));
  EXPECT_THAT(found("sources: [/nowhere]"),
              HasSubstr("tools[0].retrieval.sources[0]: no such file or folder: /nowhere"));
  std::filesystem::remove_all(dir_ / "encoder");
  EXPECT_THAT(found(""), HasSubstr("tools[0].retrieval.model: "));
}

TEST_F(LocalModelsTest, MistakesNameTheField) {
  const auto error = [&](const std::string& model) { return Message(Run(model).status()); };
  EXPECT_THAT(error("{local: /no/such}"), HasSubstr("model.local: /no/such"));
  EXPECT_THAT(error(absl::StrCat("{local: '", model::ModelGolden("llama").string(), "'}")),
              HasSubstr("the model has no chat template"));
  EXPECT_THAT(error(Local("llama", ", base_url: 'http://127.0.0.1:1'")),
              HasSubstr("model.base_url: cannot stand beside `local`"));
  EXPECT_THAT(error("{chat_template: x}"), HasSubstr("model.chat_template: needs `local`"));
  EXPECT_EQ(failure_["ok"], false);
}

}  // namespace
}  // namespace flowmesh::tasks
