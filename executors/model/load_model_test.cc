// What LoadModel says of folders and files: the good ones, and each way to be bad.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "common/files.h"
#include "executors/model/checkpoint.h"
#include "executors/model/model_goldens.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::UnorderedElementsAre;

class LoadModelTest : public testing::Test {
 protected:
  // A copy of a golden folder that a test may spoil.
  fs::path CopyOf(const char* name) {
    const fs::path copy = folder_ / name;
    fs::copy(ModelGolden(name), copy);
    return copy;
  }

  static void Write(const fs::path& path, const std::string& content) {
    std::ofstream(path, std::ios::binary) << content;
  }

  static Json ReadJson(const fs::path& path) { return Json::parse(*ReadFile(path)); }

  // The file's text with the first `from` in it replaced; both of one length, so that no offset
  // moves.
  static void Patch(const fs::path& path, const std::string& from, const std::string& to) {
    ASSERT_EQ(from.size(), to.size());
    std::string text = *ReadFile(path);
    const size_t at = text.find(from);
    ASSERT_NE(at, std::string::npos) << from;
    Write(path, text.replace(at, from.size(), to));
  }

  static absl::Status Load(const fs::path& path) { return LoadModel(path, {}).status(); }

  static std::string ErrorOf(const fs::path& path,
                             absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
    const absl::Status status = Load(path);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(Message(status), HasSubstr(path.string()));
    return Message(status);
  }

  TempDir folder_;
};

TEST_F(LoadModelTest, AFolderGivesModelAndTokenizer) {
  uint64_t last = 0, total = 0;
  LoadOptions options;
  options.progress = [&](uint64_t done, uint64_t all) {
    EXPECT_GT(done, last);
    last = done;
    total = all;
  };
  const auto loaded = LoadModel(ModelGolden("qwen3"), options);  // sharded
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->warnings, IsEmpty());
  EXPECT_EQ(loaded->path, ModelGolden("qwen3"));
  const ModelInfo& info = loaded->model->info();
  EXPECT_EQ(info.family, "qwen3");
  EXPECT_EQ(info.vocab_size, 320);
  EXPECT_EQ(info.num_kv_heads, 2);
  EXPECT_EQ(info.head_dim, 32);
  EXPECT_EQ(info.max_positions, 256);
  EXPECT_EQ(loaded->model->dtype(), at::kFloat);  // auto on the CPU
  EXPECT_EQ(last, total);
  EXPECT_EQ(total, static_cast<uint64_t>(info.num_parameters) * 4);
  EXPECT_EQ(loaded->tokenizer->eos_id(), 2);
}

TEST_F(LoadModelTest, NormsMayBeWiderThanTheOthers) {
  uint64_t last = 0, total = 0;
  LoadOptions options = {.dtype = at::kBFloat16, .autocast = true};
  options.progress = [&](uint64_t done, uint64_t all) {
    last = done;
    total = all;
  };
  for (const char* family : {"qwen3", "gpt2"}) {
    std::vector<std::string> warnings;
    const auto model = LoadDecoder(*OpenCheckpoint(ModelGolden(family)), options, &warnings);
    ASSERT_TRUE(model.ok()) << model.status();
    EXPECT_EQ(last, total);
    int norms = 0;
    for (const Parameter& parameter : (*model)->parameters().all()) {
      const std::string& name = parameter.parts[0].name;
      const bool is_norm =
          name.find("norm") != std::string::npos || name.find("ln_") != std::string::npos;
      EXPECT_EQ(parameter.tensor->scalar_type(), is_norm ? at::kFloat : at::kBFloat16) << name;
      norms += is_norm ? 1 : 0;
    }
    EXPECT_GT(norms, 4);
    const auto exact =
        LoadDecoder(*OpenCheckpoint(ModelGolden(family)), {.dtype = at::kFloat}, &warnings);
    EXPECT_LT(RelativeError(LogitsOf(**model, {{5, 6, 7}}), LogitsOf(**exact, {{5, 6, 7}})), 2e-2);
  }
}

TEST_F(LoadModelTest, TheEosSetIsThatOfAllFiles) {
  const fs::path copy = CopyOf("llama");
  Json config = ReadJson(copy / "config.json");
  config["eos_token_id"] = {5, 6};
  Write(copy / "config.json", config.dump());
  Write(copy / "generation_config.json", R"({"eos_token_id": 7})");
  const auto loaded = LoadModel(copy, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->model->info().eos_ids, UnorderedElementsAre(2, 5, 6, 7));  // 2: tokenizer's
}

TEST_F(LoadModelTest, AGgufFileOrAFolderWithOne) {
  const auto file = LoadModel(ModelGolden("gguf/llama.gguf"), {});
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->model->info().family, "llama");
  EXPECT_EQ(file->tokenizer->bos_id(), 1);
  fs::copy_file(ModelGolden("gguf/llama.gguf"), folder_ / "only.gguf");
  const auto folder = LoadModel(folder_.path(), {});
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_EQ(folder->path, folder_ / "only.gguf");
  fs::copy_file(ModelGolden("gguf/qwen2.gguf"), folder_ / "second.gguf");
  EXPECT_THAT(ErrorOf(folder_.path()), HasSubstr("several GGUF files (only.gguf, second.gguf)"));
}

TEST_F(LoadModelTest, NoModel) {
  EXPECT_THAT(ErrorOf(folder_ / "absent", absl::StatusCode::kNotFound),
              HasSubstr("no such file or folder"));
  EXPECT_THAT(ErrorOf(folder_.path(), absl::StatusCode::kNotFound),
              HasSubstr("looked for model.safetensors, model.safetensors.index.json or one .gguf"));
  Write(folder_ / "pytorch_model.bin", "pickle");
  EXPECT_THAT(ErrorOf(folder_.path()),
              HasSubstr("found pytorch_model.bin, but needed is model.safetensors"));
  EXPECT_THAT(ErrorOf(folder_ / "pytorch_model.bin"),
              HasSubstr("expected a model folder or a .gguf file"));
}

TEST_F(LoadModelTest, ConfigFiles) {
  const fs::path copy = CopyOf("llama");
  Write(copy / "config.json", "{\"model_type\": ");
  EXPECT_THAT(ErrorOf(copy), HasSubstr("config.json: "));
  Write(copy / "config.json", R"({"model_type": "mamba"})");
  EXPECT_THAT(ErrorOf(copy), HasSubstr("model_type: \"mamba\" is not supported; known: gemma2, "
                                       "gemma3, gemma3_text, gpt2, llama, mistral, qwen2, qwen3"));
  Write(copy / "config.json", "{}");
  EXPECT_THAT(ErrorOf(copy), HasSubstr("config.json: model_type: expected"));
  fs::remove(copy / "config.json");
  EXPECT_THAT(ErrorOf(copy, absl::StatusCode::kNotFound), HasSubstr("config.json"));
}

TEST_F(LoadModelTest, AMissingTensorIsNamed) {
  const fs::path copy = CopyOf("llama");
  Patch(copy / "model.safetensors", "model.layers.1.mlp.up_proj.weight",
        "model.layers.1.mlp.up_proi.weight");
  EXPECT_THAT(ErrorOf(copy), HasSubstr("tensor model.layers.1.mlp.up_proj.weight is missing"));
}

TEST_F(LoadModelTest, AnUntiedHeadMustBeThere) {
  const fs::path copy = CopyOf("llama");
  Json config = ReadJson(copy / "config.json");
  config["tie_word_embeddings"] = false;
  Write(copy / "config.json", config.dump());
  EXPECT_THAT(ErrorOf(copy), HasSubstr("tensor lm_head.weight is missing"));
}

TEST_F(LoadModelTest, AWrongShapeSaysBoth) {
  const fs::path copy = CopyOf("llama");
  Json config = ReadJson(copy / "config.json");
  config["intermediate_size"] = 128;
  Write(copy / "config.json", config.dump());
  EXPECT_THAT(ErrorOf(copy), HasSubstr("tensor model.layers.0.mlp.gate_proj.weight: expected shape "
                                       "[128, 64], got [256, 64]"));
}

TEST_F(LoadModelTest, AnUnexpectedTensorIsAWarning) {
  const fs::path copy = CopyOf("llama");
  Json config = ReadJson(copy / "config.json");
  config["num_hidden_layers"] = 2;  // of three in the file
  Write(copy / "config.json", config.dump());
  const auto loaded = LoadModel(copy, {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_THAT(loaded->warnings, ElementsAre(AllOf(HasSubstr("9 unexpected tensors, not used: "),
                                                  HasSubstr("model.layers.2."))));
}

TEST_F(LoadModelTest, CorruptWeights) {
  const fs::path copy = CopyOf("llama");
  const std::string text = *ReadFile(copy / "model.safetensors");
  Write(copy / "model.safetensors", text.substr(0, text.size() / 2));
  EXPECT_THAT(ErrorOf(copy), HasSubstr("truncated"));
  const std::string gguf = *ReadFile(ModelGolden("gguf/llama.gguf"));
  Write(folder_ / "half.gguf", gguf.substr(0, gguf.size() / 2));
  EXPECT_THAT(ErrorOf(folder_ / "half.gguf"), HasSubstr("truncated: tensor "));
}

TEST_F(LoadModelTest, GgufFilesOfOtherModels) {
  const fs::path path = folder_ / "model.gguf";
  fs::copy_file(ModelGolden("gguf/llama.gguf"), path);
  Patch(path, "blk.1.ffn_up.weight", "blk.1.ffn_uq.weight");
  EXPECT_THAT(ErrorOf(path), HasSubstr("tensor blk.1.ffn_up.weight is missing"));
  // The value of general.architecture, the first text `llama` in the file.
  fs::copy_file(ModelGolden("gguf/llama.gguf"), path, fs::copy_options::overwrite_existing);
  Patch(path, "llama", "mamba");
  EXPECT_THAT(ErrorOf(path), HasSubstr("general.architecture: \"mamba\" is not supported; known: "
                                       "gemma2, gemma3, gpt2, llama, qwen2, qwen3"));
}

TEST_F(LoadModelTest, AFolderWithoutATokenizer) {
  const fs::path copy = CopyOf("llama");
  fs::remove(copy / "tokenizer.json");
  EXPECT_THAT(ErrorOf(copy, absl::StatusCode::kNotFound), HasSubstr("no tokenizer.json"));
  std::vector<std::string> warnings;
  EXPECT_TRUE(LoadCausalLm(copy, {}, &warnings).ok());
}

TEST_F(LoadModelTest, DtypeAuto) {
  LoadOptions options;
  std::optional<int> capability;
  const auto dtype_of = [&](const char* name) {
    auto checkpoint = OpenCheckpoint(ModelGolden(name));
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.status();
    return ChooseDtype(*checkpoint, options, capability);
  };
  EXPECT_EQ(dtype_of("llama"), at::kFloat);
  options.device = at::Device(at::kCUDA, 0);
  EXPECT_EQ(dtype_of("llama"), at::kBFloat16);
  EXPECT_EQ(dtype_of("mistral"), at::kHalf);
  EXPECT_EQ(dtype_of("gpt2"), at::kBFloat16);  // stored as float32
  EXPECT_EQ(dtype_of("gguf/llama.gguf"), at::kBFloat16);
  capability = 8;
  EXPECT_EQ(dtype_of("gpt2"), at::kBFloat16);
  capability = 7;
  EXPECT_EQ(dtype_of("gpt2"), at::kHalf);
  EXPECT_EQ(dtype_of("llama"), at::kBFloat16);  // as it is stored
  options.dtype = at::kFloat;
  EXPECT_EQ(dtype_of("gguf/llama.gguf"), at::kFloat);
}

}  // namespace
}  // namespace flowmesh::model
