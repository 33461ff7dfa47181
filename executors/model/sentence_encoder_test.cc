// Embeddings against sentence-transformers, and each way for its layout to be bad.
#include "executors/model/sentence_encoder.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <fstream>

#include "common/files.h"
#include "executors/device/test_device.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

bool GoOn(size_t) { return true; }

const Json& Golden() {
  static const auto& golden = *new Json(ReadModelGolden("../embeddings/cases.json"));
  return golden;
}

// A safetensors file of float32 tensors: {name: {shape, data}}.
void WriteTensors(const fs::path& path, const Json& tensors) {
  Json header = Json::object();
  std::string data;
  for (const auto& [name, tensor] : tensors.items()) {
    const auto values = tensor["data"].get<std::vector<float>>();
    const size_t begin = data.size();
    data.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
    header[name] = {
        {"dtype", "F32"}, {"shape", tensor["shape"]}, {"data_offsets", {begin, data.size()}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::ofstream(path, std::ios::binary)
      .write(reinterpret_cast<const char*>(&length), sizeof(length))
      .write(text.data(), static_cast<std::streamsize>(text.size()))
      .write(data.data(), static_cast<std::streamsize>(data.size()));
}

void WriteFolder(const Json& golden, const fs::path& folder) {
  fs::copy(ModelGolden("../encoders/" + golden["encoder"].get<std::string>()), folder);
  for (const auto& [name, content] : golden["files"].items()) {
    const fs::path path = folder / name;
    fs::create_directories(path.parent_path());
    if (path.extension() == ".safetensors") {
      WriteTensors(path, content);
    } else {
      std::ofstream(path) << content.dump();
    }
  }
}

TEST(SentenceEncoderTest, EmbeddingsEqualSentenceTransformers) {
  const auto texts = Golden()["texts"].get<std::vector<std::string>>();
  ASSERT_EQ(Golden()["cases"].size(), 5u);
  for (const Json& golden : Golden()["cases"]) {
    SCOPED_TRACE(golden["name"].get<std::string>());
    TempDir dir;
    WriteFolder(golden, dir / "model");
    const auto encoder = SentenceEncoder::Load(dir / "model", device::TestDevice());
    ASSERT_TRUE(encoder.ok()) << encoder.status();
    const auto embedded = (*encoder)->Embed(texts, GoOn);
    ASSERT_TRUE(embedded.ok()) << embedded.status();
    ASSERT_EQ(embedded->size(0), static_cast<int64_t>(texts.size()));
    for (size_t i = 0; i < texts.size(); ++i) {
      const at::Tensor want = at::tensor(golden["embeddings"][i].get<std::vector<float>>());
      ASSERT_EQ((*encoder)->dimension(), want.size(0));
      EXPECT_LE(ErrorInTolerances((*embedded)[static_cast<int64_t>(i)], want), 1.0) << "text " << i;
      // In the batch it is what it is alone.
      const auto alone = (*encoder)->Embed({texts[i]}, GoOn);
      ASSERT_TRUE(alone.ok());
      EXPECT_LE(ErrorInTolerances((*alone)[0], want), 1.0) << "text " << i;
    }
  }
}

TEST(SentenceEncoderTest, ABareEncoderGivesTheNormalisedMean) {
  const auto bare =
      SentenceEncoder::Load(ModelGolden("../encoders/bert_bare"), device::TestDevice());
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_EQ((*bare)->dimension(), 32);
  EXPECT_EQ((*bare)->max_tokens(), 40);
  const auto row = (*bare)->Embed({"kind"}, GoOn);
  ASSERT_TRUE(row.ok());
  EXPECT_NEAR((*row)[0].norm().item<double>(), 1.0, 1e-6);
  // "kind" is longer than its first twelve tokens nowhere: the golden with that limit is the same.
  const Json& golden = Golden()["cases"][0];
  const at::Tensor want = at::tensor(golden["embeddings"].back().get<std::vector<float>>());
  EXPECT_LE(ErrorInTolerances((*row)[0], want), 1.0);
}

// What fills up large batches is no text's.
TEST(SentenceEncoderTest, TextsOfLargeBatchesAreWhatTheyAreAlone) {
  const auto encoder =
      SentenceEncoder::Load(ModelGolden("../encoders/bert_bare"), device::TestDevice());
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const auto texts = Golden()["texts"].get<std::vector<std::string>>();
  std::vector<std::string> many;
  for (size_t i = 0; i < 600; ++i) many.push_back(texts[i % texts.size()]);
  size_t batches = 0;
  const auto embedded = (*encoder)->Embed(many, [&](size_t) { return ++batches > 0; });
  ASSERT_TRUE(embedded.ok()) << embedded.status();
  EXPECT_GE(batches, 2u);
  for (size_t i = 0; i < many.size(); ++i) {
    const auto alone = (*encoder)->Embed({many[i]}, GoOn);
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_LE(ErrorInTolerances((*embedded)[static_cast<int64_t>(i)], (*alone)[0]), 1.0) << i;
  }
}

TEST(SentenceEncoderTest, StopsBetweenBatches) {
  const auto encoder =
      SentenceEncoder::Load(ModelGolden("../encoders/bert_bare"), device::TestDevice());
  ASSERT_TRUE(encoder.ok()) << encoder.status();
  const std::vector<std::string> texts(1000, "the quick brown fox");
  std::vector<size_t> seen;
  const auto stopped = (*encoder)->Embed(texts, [&](size_t done) {
    seen.push_back(done);
    return seen.size() < 2;
  });
  EXPECT_EQ(stopped.status().code(), absl::StatusCode::kCancelled);
  ASSERT_EQ(seen.size(), 2u);
  EXPECT_LT(seen[0], seen[1]);
  EXPECT_LT(seen[1], texts.size());
}

class BadLayoutTest : public testing::Test {
 protected:
  // `place` of the golden's cases.
  explicit BadLayoutTest(int place = 2) : folder_(dir_ / "model") {
    WriteFolder(Golden()["cases"][place], folder_);
  }

  void Write(const std::string& name, const Json& content) {
    std::ofstream(folder_ / name) << content.dump();
  }

  std::string Error() {
    const auto loaded = SentenceEncoder::Load(folder_);
    EXPECT_EQ(loaded.status().code(), absl::StatusCode::kInvalidArgument) << loaded.status();
    EXPECT_THAT(Message(loaded.status()), HasSubstr(folder_.string()));
    return Message(loaded.status());
  }

  TempDir dir_;
  const fs::path folder_;
};

TEST_F(BadLayoutTest, Modules) {
  const Json transformer = {{"path", ""}, {"type", "sentence_transformers.models.Transformer"}};
  const Json pooling = {{"path", "1_Pooling"}, {"type", "sentence_transformers.models.Pooling"}};
  Write("modules.json", Json::array({transformer}));
  EXPECT_THAT(Error(), HasSubstr("modules.json: expected a list of a Transformer, a Pooling"));
  Write("modules.json", {pooling, transformer});
  EXPECT_THAT(Error(), HasSubstr("[0].type: expected a Transformer, a Pooling, then others, got "
                                 "\"Pooling\" in place 0"));
  Write("modules.json", {transformer, pooling, {{"path", "2"}, {"type", "models.CNN"}}});
  EXPECT_THAT(Error(), HasSubstr("[2].type: expected a Transformer, Pooling, Dense or Normalize"));
  Json outside = pooling;
  outside["path"] = "../1_Pooling";
  Write("modules.json", {transformer, outside});
  EXPECT_THAT(Error(), HasSubstr("[1].path: expected a path inside the model's folder"));
}

TEST_F(BadLayoutTest, PoolingAndLimit) {
  Write("sentence_bert_config.json", {{"max_seq_length", "many"}});
  EXPECT_THAT(Error(),
              HasSubstr("max_seq_length: expected an integer of at least 1, got \"many\""));
  Write("sentence_bert_config.json", Json::object());
  Write("1_Pooling/config.json", {{"pooling_mode_mean_tokens", false}});
  EXPECT_THAT(Error(), HasSubstr("expected a pooling_mode that is true"));
}

TEST_F(BadLayoutTest, Dense) {
  Json config = Golden()["cases"][2]["files"]["2_Dense/config.json"];
  config["activation_function"] = "torch.nn.modules.activation.Mish";
  Write("2_Dense/config.json", config);
  EXPECT_THAT(Error(), HasSubstr("activation_function: expected Identity, Tanh, ReLU or GELU"));
  config["activation_function"] = "torch.nn.modules.activation.ReLU";
  config["in_features"] = 32;
  Write("2_Dense/config.json", config);
  EXPECT_THAT(Error(),
              HasSubstr("in_features: expected 64, the width of what comes before, got 32"));
  config["in_features"] = 64;
  config["out_features"] = 6;
  Write("2_Dense/config.json", config);
  EXPECT_THAT(Error(), HasSubstr("tensor linear.weight: expected float32 of the shape"));
}

}  // namespace
}  // namespace flowmesh::model
