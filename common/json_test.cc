#include "common/json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace flowmesh {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::SizeIs;
using ::testing::StartsWith;

std::string Error(std::string_view text) {
  const absl::StatusOr<Json> json = ParseJson(text);
  EXPECT_TRUE(absl::IsInvalidArgument(json.status())) << text;
  return Message(json.status());
}

std::string Nested(int depth) { return std::string(depth, '[') + std::string(depth, ']'); }

TEST(JsonTest, ObjectsKeepTheOrderOfTheirKeys) {
  constexpr char kText[] = R"({"b":1,"a":{"z":[],"y":null},"c":"ä"})";
  EXPECT_EQ(DumpJson(ParseJson(kText).value()), kText);
}

// Documents hold tokens and passwords, and errors are logged.
TEST(ParseJsonTest, AnErrorTellsThePlaceAndNothingOfTheContent) {
  for (const std::string text :
       {R"({"a":"canary)", R"({"a":canary})", R"({"a":"can'; expected ary" "b"})",
        "{\"a\":\"canary\n\"}", R"({"a":"; last read: 'canary' canary)", R"(["canary\x"])"}) {
    const std::string error = Message(ParseJson(text).status());
    EXPECT_THAT(error, ::testing::StartsWith("not JSON: parse error at line ")) << text;
    EXPECT_EQ(error.find("canary"), std::string::npos) << error;
    EXPECT_EQ(error.find("ary"), std::string::npos) << error;
  }
  EXPECT_THAT(Message(ParseJson("[1 2]").status()), ::testing::EndsWith("; expected ']'"));
}

TEST(JsonTest, NumbersOfPythonPeersThatJsonLacksReadAsNull) {
  EXPECT_EQ(DumpJson(ParseJson(R"([NaN, Infinity,-Infinity,NaN])").value()),
            "[null,null,null,null]");
  EXPECT_EQ(DumpJson(ParseJson(R"({"a":NaN,"b":-Infinity})").value()), R"({"a":null,"b":null})");
  // In strings and keys they are text.
  constexpr char kText[] = R"({"NaN":"Infinity","x\"NaN":"-Infinity \\"})";
  EXPECT_EQ(DumpJson(ParseJson(kText).value()), kText);
  for (const char* bad : {"-NaN", "1Infinity", "NaNNaN", "Inf", "nan", "[Infinity0]"}) Error(bad);
}

TEST(JsonTest, WhatIsNoJsonIsRefusedWithItsPlace) {
  EXPECT_THAT(Error("{\"a\": tru}"), AllOf(StartsWith("not JSON: "), HasSubstr("column")));
  for (const char* bad :
       {"", " ", "{", "[1,]", "{'a':1}", "{\"a\":1} x", "01", "\"\\ud800\"", "\"a\nb\"", "1e999"}) {
    EXPECT_THAT(Error(bad), StartsWith("not JSON: ")) << bad;
  }
  EXPECT_EQ(Error("\"\xff\""), "JSON is not valid UTF-8");
  EXPECT_EQ(Error("\"\xed\xa0\x80\""), "JSON is not valid UTF-8");
}

TEST(JsonTest, NestingIsBounded) {
  EXPECT_TRUE(ParseJson(Nested(kMaxJsonDepth)).ok());
  EXPECT_EQ(Error(Nested(kMaxJsonDepth + 1)), "JSON nested deeper than 256 levels");
  EXPECT_EQ(Error(std::string(10'000'000, '[')), "JSON nested deeper than 256 levels");
  // Brackets in strings do not count.
  EXPECT_TRUE(ParseJson("\"\\\"" + std::string(1000, '[') + "\"").ok());
}

TEST(JsonTest, DumpNeverEmitsWhatJsonLacks) {
  const Json value = {std::nan(""),
                      std::numeric_limits<double>::infinity(),
                      "a\xff"
                      "b",
                      "é",
                      0.1,
                      2.0};
  EXPECT_EQ(DumpJson(value),
            "[null,null,\"a\xef\xbf\xbd"
            "b\",\"é\",0.1,2.0]");
  EXPECT_EQ(DumpJson({{"a", {1}}}, 2), "{\n  \"a\": [\n    1\n  ]\n}");
}

TEST(JsonTest, SpacedIsPythonsForm) {
  EXPECT_EQ(DumpJsonSpaced(
                ParseJson(R"({"a":[1,2.50,1e-5,"ü\n"],"b":{},"c":[],"d":[true,null]})").value()),
            R"({"a": [1, 2.5, 1e-05, "ü\n"], "b": {}, "c": [], "d": [true, null]})");
  EXPECT_EQ(DumpJsonSpaced({std::nan(""), -std::numeric_limits<double>::infinity()}),
            "[null, null]");
}

TEST(JsonTest, TextOfAValue) {
  EXPECT_EQ(JsonToText("as it is \"ü\""), "as it is \"ü\"");
  EXPECT_EQ(JsonToText(nullptr), "");
  EXPECT_EQ(JsonToText(true), "True");
  EXPECT_EQ(JsonToText(false), "False");
  EXPECT_EQ(JsonToText(-7), "-7");
  EXPECT_EQ(JsonToText(std::numeric_limits<uint64_t>::max()), "18446744073709551615");
  EXPECT_EQ(JsonToText(2.0), "2.0");
  EXPECT_EQ(JsonToText(1e16), "1e+16");
  EXPECT_EQ(JsonToText(ParseJson(R"([1,{"a":"b"}])").value()), R"([1, {"a": "b"}])");
}

TEST(JsonTest, ValuesInErrors) {
  EXPECT_EQ(DescribeJson(nullptr), "nothing");
  EXPECT_EQ(DescribeJson(Json::object()), "a map");
  EXPECT_EQ(DescribeJson(Json::array()), "a list");
  EXPECT_EQ(DescribeJson("two"), "\"two\"");
  EXPECT_EQ(DescribeJson(3.5), "3.5");
  EXPECT_EQ(DescribeJson(true), "true");
  const std::string cut = DescribeJson(std::string(1000, 'x'));
  EXPECT_THAT(cut, SizeIs(83));
  // The cut does not fall into a character.
  EXPECT_EQ(DescribeJson(std::string(78, 'x') + "üüü"), "\"" + std::string(78, 'x') + "...");
}

}  // namespace
}  // namespace flowmesh
