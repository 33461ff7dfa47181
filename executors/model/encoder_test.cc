// Encoders' hidden states against Transformers, and each way for a folder to be bad.
#include "executors/model/encoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "common/files.h"
#include "executors/device/test_device.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;
using testing::IsEmpty;

fs::path EncoderGolden(const std::string& name) { return ModelGolden("../encoders/" + name); }

class EncoderTest : public testing::TestWithParam<const char*> {};

TEST_P(EncoderTest, HiddenStatesEqualTransformers) {
  const auto loaded =
      LoadEncoder(EncoderGolden(GetParam()), EncoderHead::kNone, device::TestDevice());
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const std::string name = std::string("../encoders/") + GetParam();
  const GoldenTensors golden(ModelGolden(name + "/hidden.safetensors"));
  TokenRows rows;
  const Json cases = ReadModelGolden(name + "/cases.json")["cases"];
  for (size_t i = 0; i < cases.size(); ++i) {
    rows.push_back(cases[i]["ids"].get<std::vector<text::TokenId>>());
    const at::Tensor got = loaded->model->Forward({rows.back()});
    EXPECT_LE(ErrorInTolerances(got, golden.Get(std::to_string(i))), 1.0) << "case " << i;
  }
  ASSERT_EQ(rows.size(), 6u);  // one of them spells RoBERTa's padding token
  // In one batch a row is what it is alone.
  const at::Tensor together = loaded->model->Forward(rows);
  int64_t begin = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto length = static_cast<int64_t>(rows[i].size());
    EXPECT_LE(ErrorInTolerances(together.narrow(0, begin, length), golden.Get(std::to_string(i))),
              1.0);
    begin += length;
  }
  EXPECT_EQ(begin, together.size(0));
}

INSTANTIATE_TEST_SUITE_P(All, EncoderTest,
                         testing::Values("bert", "bert_bare", "roberta", "xlm_roberta",
                                         "distilbert"),
                         [](const auto& info) { return std::string(info.param); });

TEST(EncoderLoadTest, ABareEncoderHasNothingUnexpected) {
  const auto bare = LoadEncoder(EncoderGolden("bert_bare"), EncoderHead::kNone);
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_THAT(bare->warnings, IsEmpty());
  EXPECT_THAT(bare->labels, IsEmpty());
  EXPECT_EQ(bare->model->max_tokens(), 40);
  // Of a classifier the head is left over.
  const auto classifier = LoadEncoder(EncoderGolden("roberta"), EncoderHead::kNone);
  ASSERT_TRUE(classifier.ok()) << classifier.status();
  ASSERT_EQ(classifier->warnings.size(), 1u);
  EXPECT_THAT(classifier->warnings[0], HasSubstr("classifier.dense.weight"));
  EXPECT_EQ(classifier->model->max_tokens(), 40);  // of 42 places two are the padding's
}

class BadFolderTest : public testing::Test {
 protected:
  BadFolderTest() : copy_(folder_ / "bert") { fs::copy(EncoderGolden("bert"), copy_); }

  void SetConfig(const std::string& key, const Json& value) {
    Json config = Json::parse(*ReadFile(copy_ / "config.json"));
    config[key] = value;
    std::ofstream(copy_ / "config.json") << config.dump();
  }

  std::string Error(EncoderHead head = EncoderHead::kNone) {
    const auto loaded = LoadEncoder(copy_, head);
    EXPECT_FALSE(loaded.ok());
    EXPECT_THAT(Message(loaded.status()), HasSubstr(copy_.string()));
    return Message(loaded.status());
  }

  TempDir folder_;
  const fs::path copy_;
};

TEST_F(BadFolderTest, Configurations) {
  SetConfig("model_type", "electra");
  EXPECT_THAT(Error(), HasSubstr("model_type: \"electra\" is no supported encoder; known: bert, "
                                 "distilbert, roberta"));
  SetConfig("model_type", "bert");
  SetConfig("num_attention_heads", 5);
  EXPECT_THAT(Error(), HasSubstr("num_attention_heads: expected a divisor of the hidden size 32"));
  SetConfig("num_attention_heads", 4);
  SetConfig("position_embedding_type", "relative_key");
  EXPECT_THAT(Error(), HasSubstr("position_embedding_type: expected absolute, got"));
  SetConfig("position_embedding_type", "absolute");
  SetConfig("layer_norm_eps", 0);
  EXPECT_THAT(Error(), HasSubstr("layer_norm_eps: expected a number above 0, got 0"));
  SetConfig("layer_norm_eps", 1e-12);
  SetConfig("hidden_act", "swoosh");
  EXPECT_THAT(Error(), HasSubstr("hidden_act: expected silu, gelu"));
}

TEST_F(BadFolderTest, Labels) {
  SetConfig("id2label", Json::object({{"0", "a"}, {"2", "b"}}));
  EXPECT_THAT(Error(EncoderHead::kClassification),
              HasSubstr("id2label: expected the indices 0 to"));
  SetConfig("id2label", Json::object({{"zero", "a"}}));
  EXPECT_THAT(Error(EncoderHead::kClassification), HasSubstr("id2label: expected numbers as keys"));
  SetConfig("id2label", nullptr);
  SetConfig("label2id", Json::object({{"a", 0}, {"b", "one"}, {"c", 2}}));
  EXPECT_THAT(Error(EncoderHead::kClassification), HasSubstr("label2id.b: expected an integer"));
  SetConfig("label2id", Json::object({{"a", 0}, {"b", 1}}));  // the head has three
  EXPECT_THAT(Error(EncoderHead::kClassification),
              HasSubstr("tensor classifier.weight: expected shape [2, 32], got [3, 32]"));
}

TEST_F(BadFolderTest, Files) {
  SetConfig("vocab_size", 7);
  EXPECT_THAT(Error(), HasSubstr("tensor bert.embeddings.word_embeddings.weight: expected shape "
                                 "[7, 32]"));
  fs::remove(copy_ / "model.safetensors");
  fs::remove(copy_ / "hidden.safetensors");
  EXPECT_THAT(Error(), HasSubstr("no model in this folder: looked for model.safetensors"));
  std::ofstream(copy_ / "pytorch_model.bin") << "pickle";
  EXPECT_THAT(Error(), HasSubstr("found pytorch_model.bin, but needed is model.safetensors"));
  std::ofstream(copy_ / "model.gguf") << "GGUF";
  EXPECT_THAT(Error(), HasSubstr("encoders are read from safetensors only"));
  fs::remove(copy_ / "config.json");
  EXPECT_THAT(Error(), HasSubstr("config.json"));
}

}  // namespace
}  // namespace flowmesh::model
