// Truncation against Transformers' (tests/goldens/encoders: texts longer than the model's limit).
#include "executors/text/truncation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "executors/text/goldens.h"

namespace flowmesh::text {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::SizeIs;

class TruncationTest : public testing::TestWithParam<const char*> {};

TEST_P(TruncationTest, CutIdsEqualTransformers) {
  const std::string folder = std::string("../encoders/") + GetParam();
  const auto tokenizer = LoadTokenizerFromFolder(GoldenPath(folder));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  constexpr int64_t kLimit = 40;
  bool cut = false;
  const Json golden = ReadGolden(folder + "/cases.json");
  for (const Json& item : golden["cases"]) {
    const auto text = item["text"].get<std::string>();
    EXPECT_EQ(EncodeTruncated(**tokenizer, text, kLimit), item["ids"].get<std::vector<TokenId>>())
        << text;
    cut = cut || (*tokenizer)->Encode(text, true).size() > kLimit;
  }
  EXPECT_TRUE(cut);
}

INSTANTIATE_TEST_SUITE_P(All, TruncationTest,
                         testing::Values("bert", "roberta", "distilbert", "llama"),
                         [](const auto& info) { return std::string(info.param); });

TEST(TruncationTest, SpecialTokensStay) {
  const auto tokenizer = LoadTokenizerFromFolder(GoldenPath("../encoders/bert"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  const TokenId cls = *(*tokenizer)->TokenToId("[CLS]"), sep = *(*tokenizer)->TokenToId("[SEP]");
  const std::vector<TokenId> whole = EncodeTruncated(**tokenizer, "dog dog dog", 5);
  EXPECT_THAT(whole, ElementsAre(cls, whole[1], whole[1], whole[1], sep));
  EXPECT_THAT(EncodeTruncated(**tokenizer, "dog dog dog", 4),
              ElementsAre(cls, whole[1], whole[1], sep));
  EXPECT_THAT(EncodeTruncated(**tokenizer, "dog dog dog", 1), ElementsAre(cls, sep));
  // A text may spell them, which are its own then.
  EXPECT_THAT(EncodeTruncated(**tokenizer, "[CLS] dog [SEP]", 4),
              ElementsAre(cls, cls, whole[1], sep));
}

TEST(TruncationTest, WithoutSpecialTokensNothingMayBeLeft) {
  const auto tokenizer = LoadTokenizerFromFolder(GoldenPath("../encoders/llama"));
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_THAT(EncodeTruncated(**tokenizer, "", 5), IsEmpty());
  EXPECT_THAT(EncodeTruncated(**tokenizer, "the lazy dog", 0), IsEmpty());
  EXPECT_THAT(EncodeTruncated(**tokenizer, "the lazy dog", 2), SizeIs(2));
}

}  // namespace
}  // namespace flowmesh::text
