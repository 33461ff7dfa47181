#include "executors/retrieval/markdown.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/clock.h"

namespace flowmesh::retrieval {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> Titles(const MarkdownText& document) {
  std::vector<std::string> titles;
  for (const Heading& heading : document.headings) {
    EXPECT_EQ(document.text[heading.begin], '#');
    EXPECT_TRUE(heading.begin == 0 || document.text[heading.begin - 1] == '\n');
    titles.push_back(heading.title);
  }
  return titles;
}

TEST(MarkdownTest, HeadingsOfBothKinds) {
  const MarkdownText document = ReadMarkdown(
      "intro\n# One ##\na\n\nTwo *and*\na half\n===\nb\n\n### [Three](http://x) `c++`\n"
      "Four\n---\n#No heading\n#\n");
  EXPECT_THAT(Titles(document), ElementsAre("One", "Two and a half", "Three c++", "Four", ""));
  EXPECT_EQ(
      document.text,
      "intro\n\n# One\n\na\n\n# Two and a half\n\nb\n\n### Three c++\n\n## Four\n\n#No heading\n\n"
      "# ");
}

TEST(MarkdownTest, CodeIsNoHeading) {
  const MarkdownText document = ReadMarkdown(
      "# Use\n\n```sh\n# a comment\n\n  ls -l\n```\n\n    # indented\n    more\n\n~~~\n## not "
      "closed");
  EXPECT_THAT(Titles(document), ElementsAre("Use"));
  EXPECT_EQ(document.text, "# Use\n\n# a comment\n\n  ls -l\n\n# indented\nmore\n\n## not closed");
}

TEST(MarkdownTest, NeitherAreThoseInListsAndQuotes) {
  const MarkdownText document = ReadMarkdown("> # Quoted\n> text\n\n- # Item\n  text\n");
  EXPECT_THAT(Titles(document), IsEmpty());
  EXPECT_EQ(document.text, "# Quoted\n\ntext\n\n- # Item\n  text");
}

TEST(MarkdownTest, LinksEmphasisAndEntitiesAreTheirText) {
  EXPECT_EQ(
      ReadMarkdown("**A** [link *to* it](http://x/y \"t\") and ![a picture](p.png), [ref][r] "
                   "<http://z/> &copy; &amp;lt; \\*star\\* `a  b` two\\\nlines\n\n[r]: http://r\n")
          .text,
      "A link to it and a picture, ref http://z/ \xC2\xA9 &lt; *star* a  b two\nlines");
}

TEST(MarkdownTest, Lists) {
  EXPECT_EQ(
      ReadMarkdown("- a\n- b\n  1. x\n  2. y\n     more\n- c\n\nend\n\n7. s\n\n   t\n\n8. u\n")
          .text,
      "- a\n- b\n  1. x\n  2. y\n     more\n- c\n\nend\n\n7. s\n\n   t\n\n8. u");
  EXPECT_EQ(ReadMarkdown("-\n- - a\n  - b\n").text, "- - a\n  - b");
}

TEST(MarkdownTest, HtmlAndTablesStayAsTheyStand) {
  const std::string text =
      "<div class=\"x\">\n# raw &amp; so\n</div>\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nx "
      "<b>y</b>";
  const MarkdownText document = ReadMarkdown(text + "\n\n***\n");
  EXPECT_EQ(document.text, text);
  EXPECT_THAT(Titles(document), IsEmpty());
}

TEST(MarkdownTest, FrontMatterIsLeftOut) {
  const MarkdownText document = ReadMarkdown("---\ntitle: The handbook\ndate: 2020\n---\n# One\n");
  EXPECT_EQ(document.title, "The handbook");
  EXPECT_EQ(document.text, "# One");
  for (const std::string text :
       {"---\n---\n", "---\nnever ends\n", "---\n[broken\n---\n", "--- x"}) {
    EXPECT_EQ(ReadMarkdown(text).title, "") << text;
  }
  EXPECT_EQ(ReadMarkdown("---\ntext\n---\n").text, "## text") << "no map: a heading between lines";
  EXPECT_EQ(ReadMarkdown("").text, "");
}

// Nesting that makes every line long in other renderings.
TEST(MarkdownTest, DeepNestingEndsWell) {
  std::string marks;
  for (int i = 0; i < 20000; ++i) marks += "- ";
  std::string text = marks + "x\n";
  for (int i = 0; i < 1000; ++i) text += "lazy\n";
  const absl::Duration begin = Clock::Real().Monotonic();
  EXPECT_LT(ReadMarkdown(text).text.size(), 100000u);
  EXPECT_LT(ReadMarkdown(std::string(50000, '>') + "x").text.size(), 100000u);
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(30));
}

}  // namespace
}  // namespace flowmesh::retrieval
