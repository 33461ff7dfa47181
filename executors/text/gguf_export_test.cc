// A GGUF vocabulary written as Hugging Face's files gives the ids that it gives itself.
#include "executors/text/gguf_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "executors/model/gguf.h"
#include "executors/text/gguf_tokenizer.h"
#include "executors/text/goldens.h"
#include "executors/text/vocabulary_golden.h"

namespace flowmesh::text {
namespace {

using ::testing::HasSubstr;

// The tokenizer that the written files make. With FLOWMESH_KEEP_FOLDERS set to a folder, they stay
// there under that name, for tests/goldens/train/check_gguf_folders.py.
std::unique_ptr<Tokenizer> Written(const GgufVocabulary& vocabulary, const std::string& name) {
  const TempDir temp;
  const char* kept = std::getenv("FLOWMESH_KEEP_FOLDERS");
  const std::filesystem::path folder =
      (kept == nullptr ? temp.path() : std::filesystem::path(kept)) / ("tokenizer_" + name);
  EXPECT_TRUE(MakeDirectories(folder).ok());
  const auto files = ExportGgufTokenizer(vocabulary, 77);
  EXPECT_TRUE(files.ok()) << files.status();
  EXPECT_TRUE(WriteFileAtomically(folder / "tokenizer.json", files->tokenizer_json).ok());
  EXPECT_TRUE(
      WriteFileAtomically(folder / "tokenizer_config.json", files->tokenizer_config_json).ok());
  auto loaded = LoadTokenizerFromFolder(folder);
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  return loaded.ok() ? *std::move(loaded) : nullptr;
}

// Ids with and without special tokens, and the texts that they give: but for unused tokens, which
// llama.cpp does not show, and user-defined ones with a U+2581, which it shows as it is.
void ExpectSame(const Tokenizer& written, const Tokenizer& own, const GgufVocabulary& v) {
  const auto is_shown_otherwise = [&](TokenId id) {
    const TokenKind kind = KindOf(v.tokens[id], v.token_types[id]);
    return kind == TokenKind::kUnused ||
           (kind == TokenKind::kUserDefined && v.tokens[id].find("\u2581") != std::string::npos);
  };
  EXPECT_EQ(written.vocab_size(), own.vocab_size());
  EXPECT_EQ(written.bos_id(), own.bos_id());
  EXPECT_EQ(written.eos_id(), own.eos_id());
  EXPECT_EQ(written.pad_id(), own.pad_id());
  EXPECT_EQ(written.unk_id(), own.unk_id());
  EXPECT_EQ(written.chat_template(), own.chat_template());
  EXPECT_EQ(written.tool_template(), own.tool_template());
  int wrong = 0;
  for (const std::string& text : Corpus()) {
    for (const bool special : {false, true}) {
      const auto want = own.Encode(text, special), got = written.Encode(text, special);
      const bool compares = std::none_of(want.begin(), want.end(), is_shown_otherwise);
      const bool is_same_text = written.Decode(want, true) == own.Decode(want, true);
      if (got == want && (is_same_text || !compares)) continue;
      if (++wrong <= 5) {
        ADD_FAILURE() << Json(text) << ": want " << Json(want) << " "
                      << DumpJson(own.Decode(want, true)) << ", got " << Json(got) << " "
                      << DumpJson(written.Decode(want, true));
      }
    }
  }
  EXPECT_EQ(wrong, 0);
}

class ExportTest : public testing::TestWithParam<const char*> {};

TEST_P(ExportTest, GivesTheSameIds) {
  const Json golden = ReadGolden("gguf_" + std::string(GetParam()) + ".json");
  GgufVocabulary vocabulary = ReadVocabulary(golden["vocabulary"]);
  vocabulary.chat_template = "{{ messages }}";
  if (GetParam() == std::string_view("spm")) vocabulary.tool_template = "{{ tools }}";
  const auto own = MakeGgufTokenizer(vocabulary);
  ASSERT_TRUE(own.ok()) << own.status();
  const auto written = Written(vocabulary, GetParam());
  ASSERT_NE(written, nullptr);
  ExpectSame(*written, **own, vocabulary);
  EXPECT_EQ(written->model_max_length(), 77);
}

INSTANTIATE_TEST_SUITE_P(All, ExportTest,
                         testing::Values("spm", "spm_plain", "gpt2", "llama_bpe", "qwen2",
                                         "default"),
                         [](const auto& info) { return std::string(info.param); });

TEST(ExportTest, TheRealVocabularyOfGemma) {
  const char* path = std::getenv("FLOWMESH_GEMMA_GGUF");
  if (path == nullptr) GTEST_SKIP() << "FLOWMESH_GEMMA_GGUF is not set (./dev test sets it)";
  const auto file = model::GgufFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufVocabulary vocabulary = model::ReadGgufVocabulary(**file).value();
  const auto written = Written(vocabulary, "gemma");
  ASSERT_NE(written, nullptr);
  ExpectSame(*written, **MakeGgufTokenizer(vocabulary), vocabulary);
  EXPECT_EQ(written->Encode("The capital of France is", true),
            (std::vector<TokenId>{2, 818, 5279, 529, 7001, 563}));
}

TEST(ExportTest, TextsThatOccurTwiceOrAreNone) {
  GgufVocabulary v;
  v.model = "gpt2";
  v.pre = "gpt-2";
  v.tokens = {"a", "b", "ab", "", "a", "\xff", "[UNUSABLE_0]"};
  v.merges = {"a b", "b b", "nospace"};  // `bb` is no token
  const auto written = Written(v, "odd");
  ASSERT_NE(written, nullptr);
  EXPECT_EQ(written->vocab_size(), 7);
  EXPECT_EQ(written->Encode("ab", false), (std::vector<TokenId>{2}));
  EXPECT_EQ(written->Encode("a", false), (std::vector<TokenId>{4}));
  EXPECT_EQ(written->TokenText(0), "[UNUSABLE_0]_");
  EXPECT_EQ(written->TokenText(3), "[EMPTY_3]");
  EXPECT_EQ(written->TokenText(5), "[UNUSABLE_5]");
}

TEST(ExportTest, AWrongVocabularyIsNamed) {
  GgufVocabulary v;
  v.model = "t5";
  v.tokens = {"a"};
  EXPECT_THAT(Message(ExportGgufTokenizer(v, 1).status()), HasSubstr("tokenizer.ggml.model"));
}

}  // namespace
}  // namespace flowmesh::text
