#include "executors/retrieval/chunker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace flowmesh::retrieval {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

using By = ChunkOptions::By;

// The lines that begin with `#`.
std::vector<Heading> Headings(std::string_view text) {
  std::vector<Heading> headings;
  for (size_t at = 0; at < text.size(); at = std::min(text.find('\n', at), text.size() - 1) + 1) {
    if (text[at] != '#') continue;
    const std::string_view line = text.substr(at, text.find('\n', at) - at);
    headings.push_back({at, std::string(line.substr(line.find(' ') + 1))});
  }
  return headings;
}

// One token for each character of a word.
std::vector<std::string> Cut(std::string_view text, const ChunkOptions& options) {
  const std::vector<Heading> headings = Headings(text);
  Chunker chunker(text, headings, options,
                  [](std::string_view word) { return static_cast<int64_t>(word.size()); });
  std::vector<std::string> texts;
  while (const auto chunk = chunker.Next()) texts.push_back(chunk->text);
  return texts;
}

TEST(ChunkerTest, WordsFillAPassageAndTheNextRepeatsSome) {
  const std::string text = "aa bb cc\n\ndd  ee";
  EXPECT_THAT(Cut(text, {.size = 4, .overlap = 0}), ElementsAre("aa bb", "cc\n\ndd", "ee"));
  EXPECT_THAT(Cut(text, {.size = 6, .overlap = 2}), ElementsAre("aa bb cc", "cc\n\ndd  ee"));
  EXPECT_THAT(Cut(text, {.size = 5, .overlap = 3}),
              ElementsAre("aa bb", "bb cc", "cc\n\ndd", "dd  ee"));
  EXPECT_THAT(Cut(text, {.size = 100}), ElementsAre(text));
  // What is repeated gives way to what is new.
  EXPECT_THAT(Cut("a b c dddd e", {.size = 5, .overlap = 3}), ElementsAre("a b c", "c dddd", "e"));
  EXPECT_THAT(Cut(" \n\t ", {}), IsEmpty());
}

TEST(ChunkerTest, WordsThatAreTooLongAreCutBetweenCharacters) {
  EXPECT_THAT(Cut("a longest b", {.size = 3, .overlap = 0}), ElementsAre("a", "lon", "ges", "t b"));
  // Three bytes each.
  EXPECT_THAT(Cut("狐狸和狗", {.size = 7, .overlap = 0}), ElementsAre("狐狸", "和狗"));
  // A character of more tokens than a passage has stays whole.
  EXPECT_THAT(Cut("狐狸", {.size = 2, .overlap = 0}), ElementsAre("狐", "狸"));
  EXPECT_THAT(Cut("aaa狐狸", {.by = By::kSentences, .size = 5, .overlap = 0}),
              ElementsAre("aaa", "狐", "狸"));
  // Whole documents without a blank: all of them is in some passage, and none is counted whole.
  const std::string json(300000, '{');
  size_t most = 0, total = 0;
  const std::vector<Heading> none;
  Chunker chunker(json, none, {.size = 200, .overlap = 0}, [&](std::string_view word) {
    most = std::max(most, word.size());
    return static_cast<int64_t>(word.size());
  });
  while (const auto chunk = chunker.Next()) {
    EXPECT_LE(chunk->text.size(), 200u);
    total += chunk->text.size();
  }
  EXPECT_EQ(total, json.size());
  EXPECT_LE(most, 4096u);
}

TEST(ChunkerTest, SentencesStayWhole) {
  const std::string text = "Aa bb. Cc (dd!) Ee\n\nff gg";
  EXPECT_THAT(Cut(text, {.by = By::kSentences, .size = 8, .overlap = 0}),
              ElementsAre("Aa bb.", "Cc (dd!)", "Ee\n\nff gg"));
  EXPECT_THAT(Cut(text, {.by = By::kSentences, .size = 12, .overlap = 7}),
              ElementsAre("Aa bb. Cc (dd!)", "Cc (dd!) Ee", "Ee\n\nff gg"));
  // But one that is too long.
  EXPECT_THAT(Cut("aaa bbb ccc. dd.", {.by = By::kSentences, .size = 7, .overlap = 0}),
              ElementsAre("aaa bbb", "ccc. dd."));
}

TEST(ChunkerTest, SentencesEndAsTheirScriptEndsThem) {
  // Chinese and Japanese put no blank behind a sentence.
  EXPECT_THAT(Cut("狐狸。「狗？！」和猫\n\n好", {.by = By::kSentences, .size = 20, .overlap = 0}),
              ElementsAre("狐狸。", "「狗？！」", "和猫\n\n好"));
  EXPECT_THAT(Cut("狐狸。狗", {.by = By::kSentences, .size = 21, .overlap = 0}),
              ElementsAre("狐狸。狗"));
  // Hindi, Arabic, Urdu; and quotes that are no ASCII.
  EXPECT_THAT(Cut("एक। दो", {.by = By::kSentences, .size = 9, .overlap = 0}),
              ElementsAre("एक।", "दो"));
  EXPECT_THAT(Cut("من؟ هو۔ هي", {.by = By::kSentences, .size = 7, .overlap = 0}),
              ElementsAre("من؟", "هو۔", "هي"));
  EXPECT_THAT(Cut("“Aa.” bb… cc", {.by = By::kSentences, .size = 9, .overlap = 0}),
              ElementsAre("“Aa.”", "bb… cc"));
}

TEST(ChunkerTest, NoPassageReachesIntoTheNextSection) {
  const std::string text = "intro\n# One\naa bb\n## Two\ncc";
  const std::vector<Heading> headings = Headings(text);
  Chunker chunker(text, headings, {.by = By::kHeadings, .size = 100},
                  [](std::string_view) { return int64_t{1}; });
  std::vector<Chunk> chunks;
  while (auto chunk = chunker.Next()) chunks.push_back(*std::move(chunk));
  ASSERT_EQ(chunks.size(), 3u);
  EXPECT_EQ(chunks[0].text, "intro");
  EXPECT_EQ(chunks[0].heading, "");
  EXPECT_EQ(chunks[1].text, "# One\naa bb");
  EXPECT_EQ(chunks[1].heading, "One");
  EXPECT_EQ(chunks[2].text, "## Two\ncc");
  EXPECT_EQ(chunks[2].heading, "Two");
  EXPECT_THAT(Cut(text, {.by = By::kHeadings, .size = 6, .overlap = 0}),
              ElementsAre("intro", "# One\naa", "bb", "## Two", "cc"));
}

}  // namespace
}  // namespace flowmesh::retrieval
