// Bad tokenizer files: each is refused with the place and what was found there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/escaping.h"
#include "executors/text/goldens.h"

namespace flowmesh::text {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class TokenizerErrorsTest : public testing::Test {
 protected:
  void Write(const char* name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }

  void WriteTokenizer(const Json& document) { Write("tokenizer.json", document.dump()); }

  absl::Status Load() { return LoadTokenizerFromFolder(folder_.path()).status(); }

  // The message for `document` as tokenizer.json, which must be the user's mistake.
  std::string ErrorOf(const Json& document) {
    WriteTokenizer(document);
    const absl::Status status = Load();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    EXPECT_THAT(Message(status), HasSubstr("tokenizer.json"));
    return Message(status);
  }

  const Json good_ = Json::parse(R"({"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2},
    "merges": ["a b"]}, "decoder": {"type": "Fuse"}})");
  TempDir folder_;
};

TEST_F(TokenizerErrorsTest, TheDocumentThatTheyVaryIsGood) {
  WriteTokenizer(good_);
  const auto tokenizer = LoadTokenizerFromFolder(folder_.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("abb", true), (std::vector<TokenId>{2, 1}));
}

TEST_F(TokenizerErrorsTest, NoTokenizerSaysWhatWasLookedFor) {
  absl::Status status = Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), AllOf(HasSubstr(folder_.path().string()),
                                     HasSubstr("tokenizer.json"), HasSubstr("vocab.txt")));
  Write("tokenizer.model", "sentencepiece");
  status = Load();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), HasSubstr("tokenizer.model (SentencePiece)"));
}

TEST_F(TokenizerErrorsTest, NoJson) {
  for (const char* text : {"", "{", "[1, 2", "{\"model\": {\"vocab\": {\"a\": 0,}}}", "\xff\xfe"}) {
    Write("tokenizer.json", text);
    const absl::Status status = Load();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(Message(status), HasSubstr("tokenizer.json: ")) << text;
  }
}

TEST_F(TokenizerErrorsTest, EveryPrefixOfAFileIsRefused) {
  const std::string text = good_.dump();
  for (size_t size = 0; size < text.size(); ++size) {
    Write("tokenizer.json", text.substr(0, size));
    ASSERT_EQ(Load().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, size);
  }
}

TEST_F(TokenizerErrorsTest, NestedTooDeeply) {
  Write("tokenizer.json",
        "{\"normalizer\": " + std::string(5000, '[') + std::string(5000, ']') + "}");
  EXPECT_THAT(Message(Load()), HasSubstr("nested deeper than 256"));
  // A sequence of sequences within the limit is only long.
  Json document = good_;
  Json normalizer = {{"type", "NFC"}};
  for (int i = 0; i < 50; ++i) {
    Json outer = {{"type", "Sequence"}};
    outer["normalizers"] = Json::array({normalizer});
    normalizer = outer;
  }
  document["normalizer"] = normalizer;
  WriteTokenizer(document);
  EXPECT_TRUE(Load().ok()) << Load();
}

TEST_F(TokenizerErrorsTest, UnsupportedComponentsAreNamed) {
  for (const auto& [place, kind] :
       {std::pair{"normalizer", "normalizer"}, std::pair{"pre_tokenizer", "pre-tokenizer"},
        std::pair{"post_processor", "post-processor"}, std::pair{"decoder", "decoder"}}) {
    Json document = good_;
    document[place] = {{"type", "Strange"}};
    EXPECT_THAT(ErrorOf(document), HasSubstr(std::string(place) + ".type: the " + kind +
                                             " \"Strange\" is not supported"));
  }
  Json document = good_;
  document["model"]["type"] = "Strange";
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.type: the model \"Strange\" is not supported"));
}

TEST_F(TokenizerErrorsTest, WithinASequenceThePathLeadsToIt) {
  Json document = good_;
  document["pre_tokenizer"] = Json::parse(
      R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Split",
          "pattern": {"Regex": "("}, "behavior": "Isolated"}]})");
  EXPECT_THAT(ErrorOf(document), HasSubstr("pre_tokenizer.pretokenizers[1].pattern"));
}

TEST_F(TokenizerErrorsTest, PreTokenizers) {
  Json document = good_;
  for (const char* delimiter : {"", "ab"}) {
    document["pre_tokenizer"] = {{"type", "CharDelimiterSplit"}, {"delimiter", delimiter}};
    EXPECT_THAT(ErrorOf(document), HasSubstr("pre_tokenizer.delimiter: expected one character"));
  }
  document["pre_tokenizer"] = {{"type", "FixedLength"}, {"length", 0}};
  EXPECT_THAT(ErrorOf(document), HasSubstr("pre_tokenizer.length: expected "));
}

TEST_F(TokenizerErrorsTest, Models) {
  Json document = good_;
  document.erase("model");
  EXPECT_THAT(ErrorOf(document), HasSubstr("model: expected a map"));
  document = good_;
  document["model"].erase("vocab");
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.vocab: expected a map from token to id"));
  document = good_;
  document["model"].erase("merges");
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.merges: expected a list of merges"));
  document = good_;
  document["model"]["dropout"] = 0.1;
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.dropout"));
  document = good_;
  document["model"]["merges"] = {"a b", "a c"};
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.merges[1]: \"c\" is not in the vocabulary"));
  document = good_;
  document["model"]["merges"] = {"a b", "abc"};
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.merges[1]: expected \"a b\""));
  document = Json::parse(R"({"model": {"type": "WordPiece", "vocab": {"a": 0}}})");
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.unk_token: \"[UNK]\" is not in the vocabulary"));
  document["model"]["type"] = "WordLevel";
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.unk_token: \"<unk>\" is not in the vocabulary"));
}

TEST_F(TokenizerErrorsTest, Unigram) {
  const Json good = Json::parse(
      R"({"model": {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0], ["a", -1.5]]}})");
  WriteTokenizer(good);
  const auto tokenizer = LoadTokenizerFromFolder(folder_.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("axya", true), (std::vector<TokenId>{1, 0, 1}));

  Json document = good;
  for (const int64_t id : {-1, 2}) {
    document["model"]["unk_id"] = id;
    EXPECT_THAT(ErrorOf(document), HasSubstr("model.unk_id: expected an integer"));
  }
  document = good;
  document["model"]["vocab"] = Json::array();
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.vocab: expected at least one piece"));
  document["model"]["vocab"] = {{"a", 0}};
  for (const char* entry : {R"(["b", "one"])", R"(["b"])", R"([1, 2])", R"(["b", 1, 2])",
                            R"(["b", null])", R"("b")", "[[]]", "{}"}) {
    document["model"]["vocab"] = Json::array({good["model"]["vocab"][0], Json::parse(entry)});
    EXPECT_THAT(ErrorOf(document), HasSubstr("model.vocab[1]: expected a piece and its score"))
        << entry;
  }
  document["model"]["vocab"] = Json::object({{"a", 0}});
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.vocab: expected a list of pieces"));
}

TEST_F(TokenizerErrorsTest, Charsmaps) {
  // One rule: a becomes b.
  std::vector<uint32_t> units(256);
  units[0] = 1 << 10;
  units['a' ^ 1] = 'a' | 1 << 8 | 1 << 10;
  units['a'] = uint32_t{1} << 31;
  const auto charsmap = [](uint32_t size, const std::vector<uint32_t>& trie,
                           std::string_view replacements) {
    std::string bytes(reinterpret_cast<const char*>(&size), sizeof(size));
    bytes.append(reinterpret_cast<const char*>(trie.data()), trie.size() * sizeof(uint32_t));
    return absl::Base64Escape(bytes.append(replacements));
  };
  const auto document_of = [&](const Json& value) {
    Json document = good_;
    document["normalizer"] = {{"type", "Precompiled"}, {"precompiled_charsmap", value}};
    return document;
  };
  const std::string_view replacements("b\0", 2);
  WriteTokenizer(document_of(charsmap(1024, units, replacements)));
  const auto tokenizer = LoadTokenizerFromFolder(folder_.path());
  ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
  EXPECT_EQ((*tokenizer)->Encode("aab", true), (std::vector<TokenId>{1, 1, 1}));

  const auto error = [&](const Json& value) { return ErrorOf(document_of(value)); };
  const std::string path = "normalizer.precompiled_charsmap: ";
  EXPECT_THAT(error(nullptr), HasSubstr(path));
  EXPECT_THAT(error("!"), HasSubstr(path + "is not base64"));
  EXPECT_THAT(error("AAA="), HasSubstr(path + "is too short"));
  EXPECT_THAT(error(charsmap(0, {}, replacements)), HasSubstr(path + "has an empty trie"));
  EXPECT_THAT(error(charsmap(2000, units, replacements)),
              HasSubstr(path + "is too short: its trie has 2000 bytes, 1026 are there"));
  EXPECT_THAT(error(charsmap(1024, units, "\xff")), HasSubstr("replacements that are no UTF-8"));
  EXPECT_THAT(error(charsmap(1024, units, "")), HasSubstr("unit 97 names no replacement"));
  units['a'] = uint32_t{1} << 31 | 1;
  EXPECT_THAT(error(charsmap(1024, units, "\u00e9")), HasSubstr("unit 97 names no replacement"));
  units[0] = 300 << 10;
  EXPECT_THAT(error(charsmap(1024, units, replacements)),
              HasSubstr("whose unit 0 leads to unit 300 of 256"));
}

TEST_F(TokenizerErrorsTest, IdsThatWouldAllocateGigabytes) {
  for (const int64_t id : {int64_t{-1}, int64_t{2'000'000'000}, int64_t{1} << 40}) {
    Json document = good_;
    document["model"]["vocab"]["b"] = id;
    EXPECT_THAT(ErrorOf(document), AllOf(HasSubstr("model.vocab[\"b\"]: expected a token id"),
                                         HasSubstr("got " + std::to_string(id))));
  }
  Json document = good_;
  document["model"]["vocab"]["b"] = "one";
  EXPECT_THAT(ErrorOf(document), HasSubstr("model.vocab[\"b\"]: expected a token id"));
}

TEST_F(TokenizerErrorsTest, AddedTokens) {
  Json document = good_;
  document["added_tokens"] = Json::parse(R"([{"id": 3, "content": 7}])");
  EXPECT_THAT(ErrorOf(document), HasSubstr("added_tokens[0].content"));
}

TEST_F(TokenizerErrorsTest, TheConfigurationBesideIt) {
  WriteTokenizer(good_);
  Write("tokenizer_config.json", R"({"bos_token": 5})");
  EXPECT_THAT(Message(Load()), HasSubstr("tokenizer_config.json: bos_token: expected"));
  Write("tokenizer_config.json", R"({"model_max_length": -1})");
  EXPECT_THAT(Message(Load()), HasSubstr("model_max_length: expected a positive integer"));
  Write("tokenizer_config.json", R"({"tokenizer_class": "LlamaTokenizer", "bos_token": null})");
  EXPECT_THAT(Message(Load()), HasSubstr("there is no bos_token"));
  Write("tokenizer_config.json", "{");
  EXPECT_THAT(Message(Load()), HasSubstr("tokenizer_config.json"));
}

TEST_F(TokenizerErrorsTest, Gpt2Files) {
  Write("vocab.json", R"({"a": 0, "b": 1, "ab": 2})");
  Write("merges.txt", "#version: 0.2\na b\nabc\n");
  EXPECT_THAT(Message(Load()), HasSubstr("merges.txt line 3: expected two tokens"));
  Write("merges.txt", "a c\n");
  EXPECT_THAT(Message(Load()), HasSubstr("\"c\" is not in the vocabulary"));
  Write("vocab.json", "[1]");
  EXPECT_THAT(Message(Load()), HasSubstr("vocab.json: expected a map from token to id"));
}

TEST_F(TokenizerErrorsTest, BertFiles) {
  Write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\nword\n");
  EXPECT_THAT(Message(Load()), HasSubstr("sep_token: \"[SEP]\" is not in the vocabulary"));
}

TEST(GgufTokenizerErrorsTest, EachMistakeIsNamed) {
  GgufVocabulary good;
  good.model = "llama";
  good.tokens = {"<unk>", "<s>", "</s>", "a"};
  ASSERT_TRUE(MakeGgufTokenizer(good).ok());
  const auto error = [&](auto change) {
    GgufVocabulary vocabulary = good;
    change(vocabulary);
    const auto made = MakeGgufTokenizer(std::move(vocabulary));
    EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument) << made.status();
    return Message(made.status());
  };
  EXPECT_THAT(error([](auto& v) { v.model = "bert"; }),
              HasSubstr("tokenizer.ggml.model: expected llama or gpt2, got \"bert\""));
  EXPECT_THAT(error([](auto& v) { v.tokens.clear(); }), HasSubstr("tokenizer.ggml.tokens"));
  EXPECT_THAT(error([](auto& v) {
                v.token_types = {1, 2};
              }),
              HasSubstr("tokenizer.ggml.token_type: expected 4 entries, one per token, got 2"));
  EXPECT_THAT(error([](auto& v) {
                v.scores = {1, 2, 3};
              }),
              HasSubstr("tokenizer.ggml.scores: expected 4 entries"));
  EXPECT_THAT(error([](auto& v) {
                v.scores = {0, 0, 0, NAN};
              }),
              HasSubstr("tokenizer.ggml.scores[3]: expected a number, got NaN"));
  for (const int64_t id : {int64_t{-1}, int64_t{4}, int64_t{1} << 40}) {
    EXPECT_THAT(error([&](auto& v) { v.eos_id = id; }), HasSubstr("tokenizer.ggml.eos_token_id"));
    EXPECT_THAT(error([&](auto& v) { v.bos_id = id; }), HasSubstr("tokenizer.ggml.bos_token_id"));
  }
  EXPECT_THAT(error([](auto& v) {
                v.model = "gpt2";
                v.pre = "tekken";
              }),
              HasSubstr("tokenizer.ggml.pre: expected gpt-2, llama-bpe, qwen2 or default, got "
                        "\"tekken\""));
  EXPECT_THAT(error([](auto& v) {
                v.model = "gpt2";
                v.add_eos = true;
              }),
              HasSubstr("add_eos_token: is true, but there is no tokenizer.ggml.eos_token_id"));
}

}  // namespace
}  // namespace flowmesh::text
