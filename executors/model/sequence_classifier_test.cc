// Class logits against Transformers.
#include "executors/model/sequence_classifier.h"

#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/files.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

fs::path EncoderGolden(const std::string& name) { return ModelGolden("../encoders/" + name); }

class ClassifierTest : public testing::TestWithParam<const char*> {};

TEST_P(ClassifierTest, LogitsAndLabelsEqualTransformers) {
  const auto loaded = LoadSequenceClassifier(EncoderGolden(GetParam()));
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->warnings, IsEmpty());
  const Json golden = ReadModelGolden(std::string("../encoders/") + GetParam() + "/cases.json");
  EXPECT_EQ(loaded->labels, golden["labels"].get<std::vector<std::string>>());
  TokenRows rows;
  std::vector<at::Tensor> wanted;
  for (const Json& item : golden["cases"]) {
    if (!item.contains("logits")) continue;  // a text without a token
    rows.push_back(item["ids"].get<std::vector<text::TokenId>>());
    wanted.push_back(at::tensor(item["logits"].get<std::vector<double>>()));
    const at::Tensor got = loaded->model->Logits({rows.back()});
    ASSERT_EQ(got.sizes(), (std::vector<int64_t>{1, wanted.back().size(0)}));
    EXPECT_LE(ErrorInTolerances(got[0], wanted.back()), 1.0) << item["text"];
  }
  ASSERT_GE(rows.size(), 3u);
  const at::Tensor together = loaded->model->Logits(rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    EXPECT_LE(ErrorInTolerances(together[i], wanted[i]), 1.0) << "row " << i << " of a batch";
  }
}

INSTANTIATE_TEST_SUITE_P(All, ClassifierTest,
                         testing::Values("bert", "roberta", "distilbert", "llama", "gpt2"),
                         [](const auto& info) { return std::string(info.param); });

std::string ErrorOf(const fs::path& folder) {
  const auto loaded = LoadSequenceClassifier(folder);
  EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(loaded.status()), HasSubstr(folder.string()));
  return Message(loaded.status());
}

TEST(ClassifierErrorTest, NoClassifier) {
  EXPECT_THAT(ErrorOf(ModelGolden("llama")), HasSubstr("tensor score.weight is missing"));
  EXPECT_THAT(ErrorOf(EncoderGolden("bert_bare")),
              HasSubstr("no sequence classifier: tensor classifier.bias is missing"));
  TempDir folder;
  std::ofstream(folder / "config.json") << R"({"model_type": "t5"})";
  EXPECT_THAT(ErrorOf(folder.path()),
              HasSubstr("model_type: \"t5\" is not supported; known: bert, distilbert, roberta, "
                        "xlm-roberta, gemma2"));
  EXPECT_EQ(LoadSequenceClassifier(folder / "absent").status().code(), absl::StatusCode::kNotFound);
}

TEST(ClassifierErrorTest, LabelsThatAreNotThoseOfTheHead) {
  TempDir folder;
  const fs::path copy = folder / "gpt2";
  fs::copy(EncoderGolden("gpt2"), copy);
  Json config = Json::parse(*ReadFile(copy / "config.json"));
  config["id2label"] = Json::object({{"0", "only"}});
  std::ofstream(copy / "config.json") << config.dump();
  EXPECT_THAT(ErrorOf(copy), HasSubstr("tensor score.weight: expected shape [1, 32], got [3, 32]"));
}

}  // namespace
}  // namespace flowmesh::model
