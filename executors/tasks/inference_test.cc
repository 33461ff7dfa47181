// The runner in this process, with small real models and the answers of Transformers.
#include "executors/tasks/inference.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/test_task.h"

namespace flowmesh::tasks {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

class InferenceTest : public TaskTest {
 protected:
  InferenceTest() {
    spec_ = {{"taskType", "inference"},
             {"model", {{"source", {{"identifier", model::ModelGolden("llama").string()}}}}},
             {"data", {{"type", "list"}, {"items", {"one", "two words", "and three words"}}}},
             {"inference", {{"max_tokens", 6}, {"temperature", 0}}}};
  }

  absl::StatusOr<TaskOutcome> Run(Json children = nullptr) {
    TaskContext context = Context();
    if (!children.is_null()) context.document["merge_children"] = std::move(children);
    context.child_dirs["C1"] = dir_ / "C1";
    return runner_.Run(context);
  }
  Json Result() {
    auto outcome = Run();
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.ok() ? outcome->result : Json();
  }
  std::string Error() { return Message(Run().status()); }

  InferenceRunner runner_{false, at::kCPU,
                          [](std::string_view) -> std::optional<std::string> { return "/none"; }};
};

TEST_F(InferenceTest, AnswersWithTheKeysOfTheContract) {
  spec_["inference"]["system_prompt"] = "S";
  spec_["data"]["metadata"] = {{{"topic", "x"}}, nullptr, nullptr};
  const Json result = Result();
  EXPECT_EQ(result["ok"], true);
  EXPECT_EQ(result["model"], spec_["model"]["source"]["identifier"]);
  ASSERT_EQ(result["items"].size(), 3u);
  const Json& first = result["items"][0];
  EXPECT_EQ(first["index"], 0);
  EXPECT_EQ(first["prompt"], "S\none");
  EXPECT_EQ(first["finish_reason"], "length");
  EXPECT_EQ(first["metadata"],
            (Json{{"prompt", "one"}, {"rendered_prompt", "S\none"}, {"topic", "x"}}));
  const Json& usage = result["usage"];
  EXPECT_EQ(usage["num_requests"], 3);
  EXPECT_EQ(usage["completion_tokens"], 18);
  EXPECT_EQ(usage["total_tokens"], usage["prompt_tokens"].get<int>() + 18);
  EXPECT_GT(usage["latency_sec"], 0.0);
  EXPECT_FALSE(result.contains("children"));
  EXPECT_EQ(progress_.front().stage, "loading model");
  EXPECT_EQ(progress_.back().stage, "generating");
  EXPECT_EQ(progress_.back().done, 3u);
}

TEST_F(InferenceTest, ChatTemplatesAreAppliedOnRequest) {
  const std::filesystem::path folder = dir_ / "with_template";
  std::filesystem::copy(model::ModelGolden("llama"), folder);
  ASSERT_TRUE(WriteFileAtomically(folder / "chat_template.jinja",
                                  "{{ bos_token }}{% for m in messages %}{{ m.role }}:"
                                  "{{ m.content }}|{% endfor %}{{ mark }}")
                  .ok());
  spec_["model"]["source"]["identifier"] = folder.string();
  spec_["inference"]["apply_chat_template"] = true;
  spec_["inference"]["chat_template_kwargs"] = {{"mark", "!"}};
  spec_["inference"]["system_prompt"] = "S";
  const Json chat = {{{"role", "user"}, {"content", "two"}}, {{"role", "x"}, {"content", "y"}}};
  spec_["data"]["items"] = {"one", chat};
  const Json result = Result();
  ASSERT_EQ(result["items"].size(), 2u);
  EXPECT_EQ(result["items"][0]["prompt"], "<s>system:S|user:one|!");
  EXPECT_EQ(result["items"][1]["prompt"], "<s>system:S|user:two|x:y|!");
  EXPECT_EQ(result["items"][1]["metadata"]["prompt"], chat);
  EXPECT_EQ(result["items"][1]["metadata"]["rendered_prompt"], "<s>system:S|user:two|x:y|!");
  // The template's own BOS is the only one.
  const auto tokenizer = text::LoadTokenizerFromFolder(folder);
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  size_t tokens = 0;
  for (const Json& item : result["items"]) {
    tokens += (*tokenizer)->Encode(item["prompt"].get<std::string>(), false).size();
  }
  EXPECT_EQ(result["usage"]["prompt_tokens"], tokens);

  spec_["data"]["items"] = Json::array({Json::array({{{"content", "no role"}}})});
  EXPECT_THAT(Error(), HasSubstr("spec.data.items[0][0].role: "));
  spec_["data"]["items"] = Json::array({Json::array()});
  EXPECT_THAT(Error(), HasSubstr("spec.data.items[0]: expected a text or a non-empty list"));
  spec_["inference"]["chat_template_kwargs"] = 3;
  EXPECT_THAT(Error(), HasSubstr("spec.inference.chat_template_kwargs: expected a map, got 3"));
  spec_["inference"].erase("chat_template_kwargs");
  spec_["model"]["source"]["identifier"] = model::ModelGolden("llama").string();
  spec_["data"]["items"] = {"one"};
  EXPECT_THAT(Error(), HasSubstr("apply_chat_template: the model has no chat template"));
}

TEST_F(InferenceTest, ChildrenAreAnsweredAsIfAlone) {
  spec_["inference"] = {{"max_tokens", 6}, {"temperature", 1.2}, {"seed", 5}};
  Json child = spec_;
  child["data"] = {{"type", "list"}, {"items", {"x", "y"}}};
  auto merged = Run({{{"task_id", "C1"}, {"spec", child}}});
  ASSERT_TRUE(merged.ok()) << merged.status();
  const Json& result = merged->result;
  EXPECT_EQ(result["items"].size(), 3u);
  EXPECT_EQ(result["usage"]["num_requests"], 5);
  const Json& c1 = result["children"]["C1"];
  EXPECT_EQ(c1["ok"], true);
  EXPECT_EQ(c1["usage"]["num_requests"], 2);
  EXPECT_EQ(c1["usage"]["latency_sec"], result["usage"]["latency_sec"]);
  EXPECT_EQ(result["items"], Result()["items"]);
  spec_ = child;
  EXPECT_EQ(c1["items"], Result()["items"]);
}

TEST_F(InferenceTest, ExportsOfTaskAndChildGoIntoTheirOwnFolders) {
  spec_["postprocess"] = {
      {"jsonl_export", {{"path", "artifacts/x.jsonl"}, {"fields", {{"p", "prompt"}}}}}};
  auto outcome = Run({{{"task_id", "C1"}, {"spec", spec_}}});
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  ASSERT_EQ(outcome->outputs.size(), 2u);
  EXPECT_EQ(outcome->outputs[0].task_id, "T1");
  EXPECT_EQ(outcome->outputs[1].task_id, "C1");
  EXPECT_EQ(outcome->outputs[1].path, dir_ / "C1" / "artifacts/x.jsonl");
  EXPECT_EQ(outcome->result["children"]["C1"]["jsonl_export"]["record_count"], 3);
  EXPECT_TRUE(std::filesystem::exists(dir_ / "T1" / "artifacts/x.jsonl"));
}

TEST_F(InferenceTest, AModelStaysWarmUntilSomethingOfItChanges) {
  const auto copy = dir_ / "model";
  std::filesystem::copy(model::ModelGolden("llama"), copy);
  spec_["model"]["source"]["identifier"] = copy.string();
  const auto is_warm = HasSubstr("is warm");
  Result();
  EXPECT_THAT(log_, Not(Contains(is_warm)));
  Result();
  EXPECT_THAT(log_, Contains(is_warm));
  spec_["model"]["vllm"] = {{"dtype", "bfloat16"}};
  Result();
  EXPECT_THAT(log_, Not(Contains(is_warm)));
  EXPECT_THAT(log_, Contains(HasSubstr("dtype bfloat16")));
  std::filesystem::last_write_time(copy / "model.safetensors",
                                   std::filesystem::file_time_type::clock::now());
  Result();
  EXPECT_THAT(log_, Not(Contains(is_warm))) << "its files are others now";
  spec_["model"]["source"]["identifier"] = "/no/such/model";
  EXPECT_THAT(Error(), HasSubstr("spec.model.source.identifier: no such model"));
  std::filesystem::create_directories(dir_ / "empty");
  spec_["model"]["source"]["identifier"] = (dir_ / "empty").string();
  EXPECT_THAT(Error(), testing::StartsWith("spec.model.source.identifier: "));
  spec_["model"]["source"]["identifier"] = copy.string();
  Result();
  EXPECT_THAT(log_, Contains(is_warm)) << "a wrong path costs no model";
}

TEST_F(InferenceTest, APromptWithoutRoomIsNamed) {
  spec_["model"]["vllm"] = {{"max_model_len", 3}};
  spec_["data"]["items"] = {"a", "a prompt of many words"};
  EXPECT_THAT(Error(), HasSubstr("spec.data.items[1]: prompt has"));
  EXPECT_THAT(Error(), HasSubstr("limit is 3 (model.vllm.max_model_len)"));
  const auto outcome = Run({{{"task_id", "C1"}, {"spec", spec_}}});
  spec_["data"]["items"] = {"a"};
  Json child = spec_;
  child["data"]["items"] = {"a prompt of many words"};
  EXPECT_THAT(Message(Run({{{"task_id", "C1"}, {"spec", child}}}).status()),
              HasSubstr("merge_children[0] (task C1): spec.data.items[0]: prompt has"));
  spec_["model"]["vllm"] = {{"max_model_len", 100000}};
  EXPECT_THAT(Error(), HasSubstr("spec.model.vllm.max_model_len: expected an integer of at most"));
}

TEST_F(InferenceTest, APromptWithoutTokensIsNamed) {
  spec_["model"]["source"]["identifier"] = model::ModelGolden("gpt2").string();
  spec_["data"]["items"] = {"a", ""};
  EXPECT_EQ(Error(), "spec.data.items[1]: the prompt has no tokens");
}

TEST_F(InferenceTest, ATaskCanBeStopped) {
  stopped_ = true;
  EXPECT_TRUE(absl::IsCancelled(Run().status()));
}

TEST_F(InferenceTest, RowsOfADataSetAreAnswered) {
  std::ofstream(dir_ / "rows.csv") << "id,q\n1,one\n2,two words\n3,and three words\n";
  const Json items = Result()["items"];
  spec_["data"] = {{"type", "dataset"},
                   {"url", (dir_ / "rows.csv").string()},
                   {"column", "q"},
                   {"metadata_columns", {"id"}},
                   {"split", "train[1:]"}};
  const Json rows = Result()["items"];
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["output"], items[1]["output"]);
  EXPECT_EQ(rows[0]["metadata"]["id"], "2");
  EXPECT_EQ(rows[1]["output"], items[2]["output"]);
  EXPECT_THAT(log_, Not(Contains(HasSubstr("ignored field"))));
  // A child's own data set, whose error names the child.
  const Json child = {{"task_id", "C1"}, {"spec", spec_}};
  spec_["data"] = {{"type", "list"}, {"items", {"one"}}};
  const auto merged = Run(Json::array({child}));
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(merged->result["children"]["C1"]["items"][1]["output"], items[2]["output"]);
  Json wrong = child;
  wrong["spec"]["data"]["column"] = "text";
  EXPECT_EQ(Message(Run(Json::array({wrong})).status()),
            "merge_children[0] (task C1): spec.data.column: column 'text' not found; columns are: "
            "id, q");
}

#ifdef FLOWMESH_HAS_ARROW
// Arrow's libraries and libtorch in one process.
TEST_F(InferenceTest, RowsOfParquetAreAnswered) {
  const std::filesystem::path rows =
      std::filesystem::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "tests/goldens/data/zstd.parquet";
  spec_["data"] = {{"type", "dataset"},
                   {"url", rows.string()},
                   {"split", "train[1:3]"},
                   {"metadata_include_all", true}};
  const Json items = Result()["items"];
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0]["prompt"], "Zeile für 1");
  EXPECT_EQ(items[1]["metadata"]["meta"], (Json{{"id", 2}, {"inner", {{"on", false}}}}));
}
#endif

}  // namespace
}  // namespace flowmesh::tasks
