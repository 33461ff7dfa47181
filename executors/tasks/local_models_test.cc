// An agent whose model runs in this process.
#include "executors/tasks/local_models.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/yaml.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/test_task.h"

namespace flowmesh::tasks {
namespace {

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
    AgentRunner runner(env, [this](const auto& settings, const TaskContext& context) {
      return models_.Make(settings, context);
    });
    return runner.Run(Context(id));
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

  LocalModels models_{/*use_cuda=*/false, at::kCPU};
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
