// Hugging Face tokenizers against the ids and texts of the reference libraries.
#include "executors/text/hf_tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "common/files.h"
#include "executors/text/goldens.h"

namespace flowmesh::text {
namespace {

std::unique_ptr<Tokenizer> Load(const std::filesystem::path& folder) {
  auto tokenizer = LoadTokenizerFromFolder(folder);
  EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
  return tokenizer.ok() ? *std::move(tokenizer) : nullptr;
}

class FamilyTest : public testing::TestWithParam<const char*> {};

TEST_P(FamilyTest, EqualsTheReference) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(GoldenPath(GetParam()));
  ASSERT_NE(tokenizer, nullptr);
  const Json golden = ReadGolden(std::string(GetParam()) + "/golden.json");
  ExpectGolden(*tokenizer, golden);

  EXPECT_EQ(tokenizer->vocab_size(), golden["vocab_size"].get<int>());
  const auto expect_id = [&](const char* role, std::optional<TokenId> got) {
    const Json& want = golden["special"][role];
    EXPECT_EQ(got.has_value() ? Json(*got) : Json(), want) << role;
    EXPECT_TRUE(!got.has_value() || tokenizer->IsSpecial(*got)) << role;
  };
  expect_id("bos", tokenizer->bos_id());
  expect_id("eos", tokenizer->eos_id());
  expect_id("unk", tokenizer->unk_id());
  expect_id("pad", tokenizer->pad_id());
}

TEST_P(FamilyTest, TextsAndIdsAreInverse) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(GoldenPath(GetParam()));
  ASSERT_NE(tokenizer, nullptr);
  for (TokenId id = 0; id < tokenizer->vocab_size(); ++id) {
    const std::string text = tokenizer->TokenText(id);
    if (text.empty()) continue;  // a gap
    ASSERT_EQ(tokenizer->TokenToId(text), id) << text;
  }
  EXPECT_EQ(tokenizer->TokenText(-1), "");
  EXPECT_EQ(tokenizer->TokenText(tokenizer->vocab_size()), "");
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
  EXPECT_FALSE(tokenizer->IsSpecial(tokenizer->vocab_size()));
  const std::vector<TokenId> ids = tokenizer->Encode("hello", false);
  std::vector<TokenId> with_strangers = {-7, tokenizer->vocab_size() + 3};
  with_strangers.insert(with_strangers.end(), ids.begin(), ids.end());
  EXPECT_EQ(tokenizer->Decode(with_strangers, false), tokenizer->Decode(ids, false));
}

INSTANTIATE_TEST_SUITE_P(All, FamilyTest,
                         testing::Values("gpt2", "llama2", "llama3", "mistral", "qwen2", "gemma",
                                         "bert", "bert_cased", "xlm_roberta", "albert", "t5", "nmt",
                                         "unigram_bytes"),
                         [](const auto& info) { return std::string(info.param); });

TEST(HfTokenizerTest, ByteLevelIdsDecodeToTheTextThatWasEncoded) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(GoldenPath("llama3"));
  ASSERT_NE(tokenizer, nullptr);
  for (const std::string& text : Corpus()) {
    ASSERT_EQ(tokenizer->Decode(tokenizer->Encode(text, false), false), text);
  }
}

TEST(HfTokenizerTest, InvalidUtf8IsReadAsReplacementCharacters) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(GoldenPath("qwen2"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Encode("a\xff\xe4\xbd z", false),
            tokenizer->Encode("a\uFFFD\uFFFD z", false));
}

TEST(HfTokenizerTest, ManyThreadsGetTheSameIds) {
  const std::unique_ptr<Tokenizer> tokenizer = Load(GoldenPath("gpt2"));
  ASSERT_NE(tokenizer, nullptr);
  const auto encode_all = [&] {
    std::vector<std::vector<TokenId>> ids;
    for (const std::string& text : Corpus()) ids.push_back(tokenizer->Encode(text, true));
    return ids;
  };
  std::vector<std::vector<TokenId>> results[4];
  {
    std::vector<std::jthread> threads;
    for (auto& result : results) threads.emplace_back([&] { result = encode_all(); });
  }
  for (const auto& result : results) EXPECT_EQ(result, results[0]);
}

TEST(HfTokenizerTest, ReadsTheConfigurationBesideIt) {
  const std::unique_ptr<Tokenizer> qwen2 = Load(GoldenPath("qwen2"));
  ASSERT_NE(qwen2, nullptr);
  EXPECT_EQ(qwen2->model_max_length(), 32768);
  EXPECT_EQ(qwen2->chat_template(), "{% for m in messages %}{{ m.content }}{% endfor %}");
  // Above 1e15 means no limit.
  EXPECT_EQ(Load(GoldenPath("llama2"))->model_max_length(), std::nullopt);
  EXPECT_EQ(Load(GoldenPath("gpt2"))->chat_template(), "");
}

TEST(HfTokenizerTest, NamedChatTemplates) {
  const TempDir dir;
  std::filesystem::copy(GoldenPath("gpt2"), dir / "t", std::filesystem::copy_options::recursive);
  const auto write = [&](const std::string& name, const std::string& text) {
    ASSERT_TRUE(MakeDirectories((dir / "t" / name).parent_path()).ok());
    ASSERT_TRUE(WriteFileAtomically(dir / "t" / name, text).ok());
  };
  write("tokenizer_config.json", DumpJson(Json{{"tokenizer_class", "GPT2Tokenizer"},
                                               {"chat_template",
                                                {{{"name", "tool_use"}, {"template", "T"}},
                                                 {{"name", "rag"}, {"template", "R"}},
                                                 {{"name", "default"}, {"template", "D"}}}}}));
  EXPECT_EQ(Load(dir / "t")->chat_template(), "D");
  EXPECT_EQ(Load(dir / "t")->tool_template(), "T");
  // Files take the place of all of them.
  write("chat_template.jinja", "file");
  EXPECT_EQ(Load(dir / "t")->chat_template(), "file");
  EXPECT_EQ(Load(dir / "t")->tool_template(), "");
  write("additional_chat_templates/tool_use.jinja", "tools");
  EXPECT_EQ(Load(dir / "t")->tool_template(), "tools");
}

// The files that a folder without tokenizer.json has.
class FallbackTest : public testing::Test {
 protected:
  void Write(const char* name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }

  static std::vector<std::string> TokensById(const Json& vocab) {
    std::vector<std::string> tokens(vocab.size());
    for (const auto& [token, id] : vocab.items()) tokens[id.get<size_t>()] = token;
    return tokens;
  }

  void ExpectIds(const char* kind) {
    const std::unique_ptr<Tokenizer> tokenizer = Load(folder_.path());
    ASSERT_NE(tokenizer, nullptr);
    const Json want = ReadGolden("fallback.json")[kind];
    ASSERT_GE(want.size(), 400u);
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(tokenizer->Encode(Corpus()[i], true), want[i].get<std::vector<TokenId>>())
          << Json(Corpus()[i]);
    }
  }

  TempDir folder_;
};

TEST_F(FallbackTest, VocabJsonAndMergesAreGpt2) {
  const Json model = ReadGolden("gpt2/tokenizer.json")["model"];
  Write("vocab.json", model["vocab"].dump());
  std::string merges = "#version: 0.2\n";
  for (const Json& merge : model["merges"]) {
    merges += merge[0].get<std::string>() + " " + merge[1].get<std::string>() + "\n";
  }
  Write("merges.txt", merges);
  ExpectIds("gpt2");
}

TEST_F(FallbackTest, VocabTxtIsBert) {
  std::string lines;
  for (const std::string& token : TokensById(ReadGolden("bert/tokenizer.json")["model"]["vocab"])) {
    lines += token + "\n";
  }
  Write("vocab.txt", lines);
  ExpectIds("bert");
}

}  // namespace
}  // namespace flowmesh::text
