#include "common/strings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <set>

namespace flowmesh {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;

TEST(StringsTest, TrimAndLower) {
  EXPECT_EQ(Trim(" \t\r\n\v\f a b \n"), "a b");
  EXPECT_EQ(Trim(" \n"), "");
  EXPECT_EQ(Trim(""), "");
  EXPECT_EQ(Trim("\u00a0x"), "\u00a0x");  // no ASCII white space
  EXPECT_EQ(ToLower("AbZ[@`{ÄÖ"), "abz[@`{ÄÖ");
}

TEST(StringsTest, Split) {
  EXPECT_THAT(SplitTrimmed(" a, b c ,,\t,d", ','), ElementsAre("a", "b c", "d"));
  EXPECT_THAT(SplitTrimmed("one", ','), ElementsAre("one"));
  EXPECT_THAT(SplitTrimmed("", ','), IsEmpty());
  EXPECT_THAT(SplitTrimmed(" , ", ','), IsEmpty());
}

TEST(StringsTest, RandomTexts) {
  EXPECT_THAT(RandomHex(8), MatchesRegex("[0-9a-f]{16}"));
  EXPECT_EQ(RandomHex(0), "");
  std::set<std::string> seen;
  for (int i = 0; i < 1000; ++i) {
    const std::string uuid = RandomUuid();
    ASSERT_THAT(
        uuid, MatchesRegex("[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"));
    ASSERT_TRUE(seen.insert(uuid).second) << uuid;
  }
}

TEST(StringsTest, Utf8) {
  for (const char* good :
       {"", "ascii", "\x7f", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
        "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "a\xf0\x9f\x8c\x8d z"}) {
    EXPECT_TRUE(IsValidUtf8(good)) << good;
  }
  EXPECT_TRUE(IsValidUtf8(std::string_view("\0", 1)));
  for (const char* bad :
       {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2z", "\xe0\x9f\xbf", "\xe2\x82",
        "\xe2\x82z", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x8f\xbf\xbf", "\xf0\x9f\x8c",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xfe", "\xff", "a\xff z"}) {
    EXPECT_FALSE(IsValidUtf8(bad)) << bad;
  }
}

TEST(StringsTest, CutsBetweenCharacters) {
  EXPECT_EQ(CutUtf8("ab\xE2\x82\xAC", 10), "ab\xE2\x82\xAC");
  EXPECT_EQ(CutUtf8("ab\xE2\x82\xAC", 4), "ab");
  EXPECT_EQ(CutUtf8("ab\xE2\x82\xAC", 2), "ab");
  EXPECT_EQ(CutUtf8("\xE2\x82\xAC", 1), "");
}

TEST(StringsTest, PlainFileNames) {
  for (const std::string& good : {std::string("a"), std::string("A-z_0.9"), std::string("..."),
                                  std::string(".hidden"), std::string(200, 'x')}) {
    EXPECT_TRUE(IsPlainFileName(good)) << good;
  }
  for (const std::string& bad :
       {std::string(), std::string("."), std::string(".."), std::string("a/b"), std::string("/"),
        std::string("a b"), std::string("ä"), std::string("a\0b", 3), std::string("a\n"),
        std::string("~"), std::string("a:b"), std::string(201, 'x')}) {
    EXPECT_FALSE(IsPlainFileName(bad)) << bad;
  }
}

TEST(StringsTest, Sha256) {  // FIPS 180-2
  EXPECT_EQ(Sha256Hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256Hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

TEST(StringsTest, FloatsAsPythonPrintsThem) {
  for (const auto& [value, text] : std::vector<std::pair<double, std::string>>{
           {0.0, "0.0"},
           {-0.0, "-0.0"},
           {1.0, "1.0"},
           {0.1, "0.1"},
           {-2.5, "-2.5"},
           {1.0 / 3, "0.3333333333333333"},
           {0.0001, "0.0001"},
           {0.00012345678901234567, "0.00012345678901234567"},
           {0.00001, "1e-05"},
           {1.5e-7, "1.5e-07"},
           {5e-324, "5e-324"},
           {9999999999999998.0, "9999999999999998.0"},
           {1e15, "1000000000000000.0"},
           {1e16, "1e+16"},
           {123456789012345680.0, "1.2345678901234568e+17"},
           {std::numeric_limits<double>::max(), "1.7976931348623157e+308"},
           {std::nan(""), "nan"},
           {-std::numeric_limits<double>::infinity(), "-inf"}}) {
    EXPECT_EQ(PythonFloat(value), text);
  }
}

}  // namespace
}  // namespace flowmesh
