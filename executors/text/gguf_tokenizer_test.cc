// GGUF tokenizers against the ids and texts of llama.cpp.
#include "executors/text/gguf_tokenizer.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "executors/model/gguf.h"
#include "executors/text/goldens.h"
#include "executors/text/vocabulary_golden.h"

namespace flowmesh::text {
namespace {

class GgufVocabularyTest : public testing::TestWithParam<const char*> {};

TEST_P(GgufVocabularyTest, EqualsLlamaCpp) {
  const Json golden = ReadGolden("gguf_" + std::string(GetParam()) + ".json");
  const auto tokenizer = MakeGgufTokenizer(ReadVocabulary(golden["vocabulary"]));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->vocab_size(), static_cast<int>(golden["vocabulary"]["tokens"].size()));
  ExpectGolden(**tokenizer, golden);
}

INSTANTIATE_TEST_SUITE_P(All, GgufVocabularyTest,
                         testing::Values("spm", "spm_plain", "gpt2", "llama_bpe", "qwen2",
                                         "default"),
                         [](const auto& info) { return std::string(info.param); });

// The real vocabulary of 262,144 tokens, when its file is there.
class GemmaTokenizerTest : public testing::Test {
 protected:
  void SetUp() override {
    const char* path = std::getenv("FLOWMESH_GEMMA_GGUF");
    if (path == nullptr) GTEST_SKIP() << "FLOWMESH_GEMMA_GGUF is not set (./dev test sets it)";
    const auto file = model::GgufFile::Open(path);
    ASSERT_TRUE(file.ok()) << file.status();
    auto vocabulary = model::ReadGgufVocabulary(**file);
    ASSERT_TRUE(vocabulary.ok()) << vocabulary.status();
    auto made = MakeGgufTokenizer(*std::move(vocabulary));
    ASSERT_TRUE(made.ok()) << made.status();
    tokenizer_ = *std::move(made);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_F(GemmaTokenizerTest, EqualsLlamaCpp) {
  ExpectGolden(*tokenizer_, ReadGolden("gemma_gguf.json"));
  EXPECT_EQ(tokenizer_->vocab_size(), 262144);
  EXPECT_EQ(tokenizer_->bos_id(), 2);
  EXPECT_EQ(tokenizer_->eos_id(), 1);
  EXPECT_TRUE(tokenizer_->IsSpecial(2));
}

TEST_F(GemmaTokenizerTest, EncodesAKnownPrompt) {
  EXPECT_EQ(tokenizer_->Encode("The capital of France is", true),
            (std::vector<TokenId>{2, 818, 5279, 529, 7001, 563}));
}

TEST_F(GemmaTokenizerTest, GrowingTextEqualsTheWhole) {
  const std::vector<TokenId> prompt = {2, 818, 5279, 529, 7001, 563};
  for (const std::string& text : Corpus()) {
    const std::vector<TokenId> ids = tokenizer_->Encode(text, /*add_special_tokens=*/false);
    const std::string whole = tokenizer_->Decode(ids, /*skip_special_tokens=*/true);
    if (whole.ends_with("\uFFFD")) continue;  // could be the start of a character: held back
    IncrementalDecoder decoder(tokenizer_.get(), prompt);
    std::string streamed;
    for (const TokenId id : ids) streamed += decoder.Append(id);
    ASSERT_EQ(streamed, whole) << Json(text);
  }
}

}  // namespace
}  // namespace flowmesh::text
