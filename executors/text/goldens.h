// The goldens of tests/goldens/tokenizers, for the tests of this folder.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "common/files.h"
#include "common/json.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {

inline std::filesystem::path GoldenPath(std::string_view name) {
  const char* source = std::getenv("FLOWMESH_SOURCE_DIR");
  if (source == nullptr) throw std::runtime_error("FLOWMESH_SOURCE_DIR is not set (ctest sets it)");
  return std::filesystem::path(source) / "tests/goldens/tokenizers" / name;
}

inline Json ReadGolden(std::string_view name) {
  const absl::StatusOr<std::string> text = ReadFile(GoldenPath(name));
  if (!text.ok()) throw std::runtime_error(text.status().ToString());
  return Json::parse(*text);
}

// The texts that every golden answers for.
inline const std::vector<std::string>& Corpus() {
  static const auto& corpus =
      *new std::vector<std::string>(ReadGolden("corpus.json").get<std::vector<std::string>>());
  return corpus;
}

// Compares a tokenizer with a golden of make_tokenizers.py (its head describes the form): ids with
// and without special tokens, decoded texts, texts of random ids. Reports the first few differences
// of each kind and their count.
inline void ExpectGolden(const Tokenizer& tokenizer, const Json& golden) {
  constexpr int kShown = 5;
  ASSERT_GE(Corpus().size(), 2000u);
  const size_t step = golden.value("step", size_t{1});
  std::vector<std::string> corpus;
  for (size_t i = golden.value("first", size_t{0}); i < Corpus().size(); i += step) {
    corpus.push_back(Corpus()[i]);
  }
  ASSERT_EQ(golden["ids"].size(), corpus.size());
  const auto before = golden["before"].get<std::vector<TokenId>>();
  const auto after = golden["after"].get<std::vector<TokenId>>();
  int wrong_ids = 0, wrong_edges = 0, wrong_texts = 0, wrong_random = 0;
  for (size_t i = 0; i < corpus.size(); ++i) {
    const auto want = golden["ids"][i].get<std::vector<TokenId>>();
    const std::vector<TokenId> got = tokenizer.Encode(corpus[i], /*add_special_tokens=*/false);
    if (got != want && ++wrong_ids <= kShown) {
      ADD_FAILURE() << "ids of " << Json(corpus[i]) << ": want " << Json(want) << ", got "
                    << Json(got);
    }
    std::vector<TokenId> full = before;
    full.insert(full.end(), want.begin(), want.end());
    full.insert(full.end(), after.begin(), after.end());
    const std::vector<TokenId> got_full = tokenizer.Encode(corpus[i], /*add_special_tokens=*/true);
    if (got_full != full && ++wrong_edges <= kShown) {
      ADD_FAILURE() << "ids with special tokens of " << Json(corpus[i]) << ": want " << Json(full)
                    << ", got " << Json(got_full);
    }
    const Json& decoded = golden["decoded"][i];
    const std::string text = decoded.is_null() ? corpus[i] : decoded.get<std::string>();
    const std::string got_text = tokenizer.Decode(want, /*skip_special_tokens=*/false);
    if (got_text != text && ++wrong_texts <= kShown) {
      ADD_FAILURE() << "text of " << Json(want) << ": want " << Json(text) << ", got "
                    << DumpJson(got_text);
    }
  }
  for (const Json& entry : golden["random"]) {
    const auto ids = entry[0].get<std::vector<TokenId>>();
    for (const bool skip : {false, true}) {
      const auto text = entry[skip ? 2 : 1].get<std::string>();
      const std::string got = tokenizer.Decode(ids, skip);
      if (got != text && ++wrong_random <= kShown) {
        ADD_FAILURE() << "text of " << Json(ids) << (skip ? " without special tokens" : "")
                      << ": want " << Json(text) << ", got " << DumpJson(got);
      }
    }
  }
  EXPECT_EQ(wrong_ids, 0);
  EXPECT_EQ(wrong_edges, 0);
  EXPECT_EQ(wrong_texts, 0);
  EXPECT_EQ(wrong_random, 0);
}

}  // namespace flowmesh::text
