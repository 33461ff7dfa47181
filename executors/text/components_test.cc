// Every normalizer, pre-tokenizer and decoder by itself, against the reference library.
#include <gtest/gtest.h>

#include "executors/text/goldens.h"
#include "executors/text/hf_tokenizer.h"
#include "executors/text/normalizer.h"

namespace flowmesh::text {
namespace {

// A tokenizer.json around one component. Characters are tokens, with ## inside a word, so that the
// ids show where words begin.
Json DocumentOf(const Json& vocabulary) {
  Json vocab = Json::object();
  for (size_t id = 0; id < vocabulary.size(); ++id) vocab[vocabulary[id].get<std::string>()] = id;
  Json document = {{"model", {{"type", "BPE"}, {"continuing_subword_prefix", "##"}}}};
  document["model"]["vocab"] = std::move(vocab);
  document["model"]["merges"] = Json::array();
  return document;
}

std::unique_ptr<Tokenizer> Make(const Json& document) {
  auto parsed = ParseTokenizerDocument(document.dump());
  EXPECT_TRUE(parsed.ok()) << parsed.status();
  if (!parsed.ok()) return nullptr;
  auto made = HfTokenizer::Make(*std::move(parsed), TokenizerConfig());
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

class ComponentsTest : public testing::Test {
 protected:
  const Json golden_ = ReadGolden("components.json");
};

TEST_F(ComponentsTest, NormalizersAndPreTokenizersCutAsTheReference) {
  Json document = DocumentOf(golden_["vocab"]);
  document["model"]["unk_token"] = "<unk>";
  ASSERT_GE(golden_["cases"].size(), 41u);
  for (const Json& golden : golden_["cases"]) {
    document["normalizer"] = golden["normalizer"];
    document["pre_tokenizer"] = golden["pre_tokenizer"];
    // What Transformers overrides stays out of this: ByteLevel's prefix space is the file's.
    TokenizerConfig config;
    config.add_prefix_space = golden["pre_tokenizer"].is_object();
    auto parsed = ParseTokenizerDocument(document.dump());
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    const auto tokenizer = HfTokenizer::Make(*std::move(parsed), config);
    ASSERT_TRUE(tokenizer.ok()) << golden["name"] << ": " << tokenizer.status();
    for (size_t i = 0; i < golden_["texts"].size(); ++i) {
      const std::string& text = Corpus()[golden_["texts"][i].get<size_t>()];
      EXPECT_EQ((*tokenizer)->Encode(text, false), golden["ids"][i].get<std::vector<TokenId>>())
          << golden["name"] << " of " << Json(text);
    }
  }
}

TEST_F(ComponentsTest, WholeWordsAreTokens) {
  const Json& golden = golden_["word_level"];
  const std::unique_ptr<Tokenizer> tokenizer =
      Make({{"pre_tokenizer", golden["pre_tokenizer"]}, {"model", golden["model"]}});
  ASSERT_NE(tokenizer, nullptr);
  for (size_t i = 0; i < golden_["texts"].size(); ++i) {
    const std::string& text = Corpus()[golden_["texts"][i].get<size_t>()];
    EXPECT_EQ(tokenizer->Encode(text, false), golden["ids"][i].get<std::vector<TokenId>>())
        << Json(text);
  }
}

// The reference's own tables are of several Unicode versions, none of them utf8proc's.
TEST(NormalizerTest, NewCharactersAreTreatedAsInTheReference) {
  const Json goldens = ReadGolden("normalized.json");
  ASSERT_EQ(goldens.size(), 6u);
  for (const Json& golden : goldens) {
    const auto normalizer = MakeNormalizer(Field(&golden["normalizer"], "normalizer"));
    ASSERT_TRUE(normalizer.ok()) << normalizer.status();
    for (const Json& pair : golden["texts"]) {
      auto text = pair[0].get<std::string>();
      (*normalizer)->Apply(text);
      EXPECT_EQ(text, pair[1].get<std::string>()) << golden["normalizer"]["type"] << " of " << pair;
    }
  }
}

TEST_F(ComponentsTest, DecodersJoinAsTheReference) {
  Json document = DocumentOf(golden_["decoded_tokens"]);
  ASSERT_GE(golden_["decoders"].size(), 16u);
  for (const Json& golden : golden_["decoders"]) {
    document["decoder"] = golden["decoder"];
    const std::unique_ptr<Tokenizer> tokenizer = Make(document);
    ASSERT_NE(tokenizer, nullptr) << golden["name"];
    for (size_t i = 0; i < golden_["decoded_runs"].size(); ++i) {
      const auto ids = golden_["decoded_runs"][i].get<std::vector<TokenId>>();
      EXPECT_EQ(tokenizer->Decode(ids, false), golden["texts"][i].get<std::string>())
          << golden["name"] << " of " << golden_["decoded_runs"][i];
    }
  }
}

}  // namespace
}  // namespace flowmesh::text
