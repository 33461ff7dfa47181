// Text that grows token by token must be the text of all tokens at once, cut between characters.
#include <gtest/gtest.h>

#include "common/strings.h"
#include "executors/text/goldens.h"

namespace flowmesh::text {
namespace {

class IncrementalDecoderTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto tokenizer = LoadTokenizerFromFolder(GoldenPath(GetParam()));
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
    tokenizer_ = *std::move(tokenizer);
  }

  // What Append gave for each of `ids`, joined; every part must be whole characters.
  std::string Stream(const std::vector<TokenId>& prompt, const std::vector<TokenId>& ids) {
    IncrementalDecoder decoder(tokenizer_.get(), prompt);
    std::string text;
    for (const TokenId id : ids) {
      const std::string part = decoder.Append(id);
      EXPECT_TRUE(IsValidUtf8(part)) << part;
      text += part;
    }
    return text;
  }

  // As a prompt is: behind BOS where the family has one, never with EOS behind it.
  std::vector<TokenId> Prompt(const std::string& text) {
    std::vector<TokenId> ids = tokenizer_->Encode(text, /*add_special_tokens=*/false);
    if (tokenizer_->bos_id().has_value()) ids.insert(ids.begin(), *tokenizer_->bos_id());
    return ids;
  }

  std::unique_ptr<Tokenizer> tokenizer_;
};

TEST_P(IncrementalDecoderTest, AfterAPromptEqualsTheWholeText) {
  const std::vector<TokenId> prompt = Prompt("The capital of France is");
  const std::string prompt_text = tokenizer_->Decode(prompt, /*skip_special_tokens=*/true);
  int compared = 0;
  for (const std::string& text : Corpus()) {
    // A real tail: the ids of the joined text, cut after the prompt's.
    std::vector<TokenId> ids = Prompt("The capital of France is" + text);
    if (ids.size() < prompt.size() || !std::equal(prompt.begin(), prompt.end(), ids.begin())) {
      continue;  // the text's start merged into the prompt
    }
    const std::string whole = tokenizer_->Decode(ids, /*skip_special_tokens=*/true);
    if (whole.ends_with("\uFFFD")) continue;  // could be the start of a character: held back
    ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(prompt.size()));
    ASSERT_EQ(prompt_text + Stream(prompt, ids), whole) << Json(text);
    ++compared;
  }
  EXPECT_GT(compared, 1000);
}

TEST_P(IncrementalDecoderTest, ALeadingSpaceSurvives) {
  const std::vector<TokenId> prompt = Prompt("The capital of France is");
  std::vector<TokenId> ids = Prompt("The capital of France is the planet");
  ASSERT_GT(ids.size(), prompt.size());
  ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(prompt.size()));
  EXPECT_EQ(Stream(prompt, ids), " the planet");
}

TEST_P(IncrementalDecoderTest, BytesWaitForTheRestOfTheirCharacter) {
  const std::vector<TokenId> prompt = Prompt("A");
  std::vector<TokenId> ids = tokenizer_->Encode("A𓀀B", false);  // of no token, whatever the family
  const std::vector<TokenId> first = tokenizer_->Encode("A", false);
  ids.erase(ids.begin(), ids.begin() + static_cast<ptrdiff_t>(first.size()));
  ASSERT_EQ(ids.size(), 5u);
  IncrementalDecoder decoder(tokenizer_.get(), prompt);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(decoder.Append(ids[i]), "");
  EXPECT_EQ(decoder.Append(ids[3]), "𓀀");
  EXPECT_EQ(decoder.Append(ids[4]), "B");
}

TEST_P(IncrementalDecoderTest, SpecialTokensAddNothing) {
  const std::vector<TokenId> prompt = Prompt("Hello");
  IncrementalDecoder decoder(tokenizer_.get(), prompt);
  ASSERT_TRUE(tokenizer_->eos_id().has_value());
  EXPECT_EQ(decoder.Append(*tokenizer_->eos_id()), "");
}

TEST_P(IncrementalDecoderTest, InvalidBytesComeOutInTheEnd) {
  const auto byte = [&](const char* stand_in, const char* fallback) {
    const auto id = tokenizer_->TokenToId(stand_in);
    return id.has_value() ? *id : tokenizer_->TokenToId(fallback).value_or(-1);
  };
  const TokenId lead = byte("ä", "<0xE4>");  // the first byte of a character of three
  ASSERT_GE(lead, 0);
  IncrementalDecoder decoder(tokenizer_.get(), Prompt("x"));
  std::string text;
  for (int i = 0; i < 40; ++i) text += decoder.Append(lead);
  EXPECT_TRUE(IsValidUtf8(text));
  EXPECT_NE(text.find("\uFFFD"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Families, IncrementalDecoderTest,
                         testing::Values("gpt2", "llama2", "llama3", "mistral", "qwen2", "gemma"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace flowmesh::text
