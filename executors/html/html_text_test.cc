#include "executors/html/html_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/clock.h"

namespace flowmesh::html {
namespace {

using ::testing::HasSubstr;

std::string Text(std::string_view html, const std::string& url = "") {
  const auto page = ReadHtml(html, {.url = url});
  EXPECT_TRUE(page.ok()) << page.status();
  return page.ok() ? page->text : "";
}

std::string Repeat(std::string_view text, size_t count) {
  std::string all;
  all.reserve(text.size() * count);
  for (size_t i = 0; i < count; ++i) all += text;
  return all;
}

TEST(HtmlTextTest, BlocksHeadingsListsAndTables) {
  const auto page = ReadHtml(R"(<!doctype html><html><head><title> A &amp; B
</title><style>p {color: red}</style></head><body>
<nav><a href="/">Home</a></nav>
<h1>First</h1><p>One   <b>bold</b>
word.</p>Loose<ul><li>x<li>y <i>z</i></ul>
<table><tr><th>k</th><th>v</th></tr><tr><td>a</td><td>1</td></tr></table>
<pre>  keep
 this</pre><script>var x = "<p>no</p>";</script>a<br>b</body></html>)");
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->title, "A & B");
  EXPECT_EQ(page->text,
            "# First\n\nOne bold word.\n\nLoose\n\n- x\n- y z\n\nk | v\na | 1\n\n"
            "  keep\n this\n\na\nb");
}

TEST(HtmlTextTest, HeadingsSayWhereTheyBegin) {
  const auto page =
      ReadHtml("<p>a<h1>One <i>two</i></h1><pre># no heading</pre><h2></h2><li><h3>Three</h3>b");
  ASSERT_TRUE(page.ok()) << page.status();
  EXPECT_EQ(page->text, "a\n\n# One two\n\n# no heading\n\n### Three\n\nb");
  ASSERT_EQ(page->headings.size(), 2u);
  EXPECT_EQ(page->headings[0].title, "One two");
  EXPECT_EQ(page->headings[0].begin, page->text.find("# One"));
  EXPECT_EQ(page->headings[1].title, "Three");
  EXPECT_EQ(page->headings[1].begin, page->text.find("### Three"));
}

TEST(HtmlTextTest, LinksLeadWhereTheyLead) {
  const std::string html =
      R"(See <a href="../b?x=1"><b>the</b> page</a>, <a href="#top">top</a> <a href="mailto:a@b.c">m</a> <a>n</a>
<a href="http://else.test/">  </a>.)";
  EXPECT_EQ(Text(html, "https://a.test/d/e"), "See [the page](https://a.test/b?x=1), top m n .");
  EXPECT_EQ(Text(html), "See the page, top m n .");
}

TEST(HtmlTextTest, BrokenHtmlIsRead) {
  EXPECT_EQ(Text("<p>a<div>b</span></p><b>c<i>d</b>e"), "a\n\nb\n\ncde");
  EXPECT_EQ(Text(""), "");
  EXPECT_EQ(Text("plain &lt; text"), "plain < text");
  EXPECT_EQ(Text(std::string_view("a\0b", 3)), "ab");
}

TEST(HtmlTextTest, DeepNestingEndsWell) { EXPECT_EQ(Text(Repeat("<div>", 20000) + "x"), "x"); }

// Formatting elements are opened again in each paragraph: a page of a few kilobytes asks for
// gigabytes.
TEST(HtmlTextTest, APageMadeToTakeMemoryIsRefused) {
  std::string html = "<p>";
  for (int i = 0; i < 2000; ++i) html += "<b a=" + std::to_string(i) + ">";
  const auto page = ReadHtml(html + Repeat("<p>x", 5000), {.max_tree = 16u << 20});
  EXPECT_TRUE(absl::IsResourceExhausted(page.status())) << page.status();
}

// Each end tag looks through everything that is open.
TEST(HtmlTextTest, APageMadeToTakeTimeIsRefused) {
  const std::string html = "<svg>" + Repeat("<td>", 300000) + Repeat("</x>", 300000);
  const absl::Duration begin = Clock::Real().Monotonic();
  const auto page = ReadHtml(html, {.max_time = absl::Milliseconds(200)});
  EXPECT_THAT(Message(page.status()), HasSubstr("200ms"));
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(10));
}

}  // namespace
}  // namespace flowmesh::html
