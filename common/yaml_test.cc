#include "common/yaml.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

// The document as one line of JSON.
std::string Read(std::string_view text) {
  const absl::StatusOr<Json> json = ParseYaml(text);
  EXPECT_TRUE(json.ok()) << text << ": " << json.status();
  return json.ok() ? DumpJson(*json) : "";
}

std::string Error(std::string_view text) {
  const absl::StatusOr<Json> json = ParseYaml(text);
  EXPECT_TRUE(absl::IsInvalidArgument(json.status())) << text.substr(0, 100);
  return Message(json.status());
}

TEST(YamlTest, AWorkflow) {
  EXPECT_EQ(Read("# a comment\n"
                 "apiVersion: flowmesh/v1\n"
                 "spec:\n"
                 "  items: [a, \"b\"]\n"
                 "  text: |\n"
                 "    one\n"
                 "    two\n"
                 "  folded: >-\n"
                 "    one\n"
                 "    two\n"
                 "  empty:\n"),
            R"({"apiVersion":"flowmesh/v1","spec":{"items":["a","b"],"text":"one\ntwo\n",)"
            R"("folded":"one two","empty":null}})");
}

TEST(YamlTest, JsonIsYaml) {
  EXPECT_EQ(Read(R"({"b": [1, 2.5, "x", true, null], "a": {}})"),
            R"({"b":[1,2.5,"x",true,null],"a":{}})");
}

TEST(YamlTest, ScalarsAreThoseOfYaml11) {
  for (const auto& [text, json] : std::vector<std::pair<std::string, std::string>>{
           {"yes", "true"},
           {"Off", "false"},
           {"TRUE", "true"},
           {"yEs", "\"yEs\""},
           {"y", "\"y\""},
           {"~", "null"},
           {"NULL", "null"},
           {"nil", "\"nil\""},
           {"0", "0"},
           {"-17", "-17"},
           {"+5", "5"},
           {"1_000", "1000"},
           {"0x1F", "31"},
           {"-0b101", "-5"},
           {"017", "15"},
           {"0o17", "\"0o17\""},
           {"089", "\"089\""},
           {"190:20:30", "685230"},
           {"-1000000000000000000:0:0", "-3.6e+21"},
           {"18446744073709551615", "18446744073709551615"},
           {"-9223372036854775808", "-9223372036854775808"},
           {"100000000000000000000", "1e+20"},
           {"1.5", "1.5"},
           {"-1.", "-1.0"},
           {".5", "0.5"},
           {"1.5e+3", "1500.0"},
           {"1.5e3", "\"1.5e3\""},  // as PyYAML: an exponent needs a sign,
           {"5e-7", "\"5e-7\""},    // and a float a dot
           {"190:20:30.15", "685230.15"},
           {".inf", "null"},
           {"-.INF", "null"},
           {".NaN", "null"},
           {"1.2.3", "\"1.2.3\""},
           {"text with spaces", "\"text with spaces\""}}) {
    EXPECT_EQ(Read("v: " + text), "{\"v\":" + json + "}") << text;
  }
}

TEST(YamlTest, QuotedScalarsAreText) {
  EXPECT_EQ(Read("['yes', \"5\", '~', !!str 7, '']"), R"(["yes","5","~","7",""])");
}

TEST(YamlTest, DatesAreTextInIsoForm) {
  for (const auto& [text, iso] : std::vector<std::pair<std::string, std::string>>{
           {"2001-12-14", "2001-12-14"},
           {"2001-12-14t21:59:43.10-05:00", "2001-12-14T21:59:43.100000-05:00"},
           {"2001-12-14 21:59:43.1 -5", "2001-12-14T21:59:43.100000-05:00"},
           {"2001-12-15 2:59:43", "2001-12-15T02:59:43"},
           {"2001-12-15T02:59:43Z", "2001-12-15T02:59:43+00:00"}}) {
    EXPECT_EQ(Read(text), "\"" + iso + "\"") << text;
  }
}

TEST(YamlTest, AnchorsAndMergeKeys) {
  EXPECT_EQ(Read("base: &b {x: 1, y: 2}\ncopy: *b\nmore:\n  <<: *b\n  y: 3\n"),
            R"({"base":{"x":1,"y":2},"copy":{"x":1,"y":2},"more":{"y":3,"x":1}})");
  EXPECT_EQ(Read("v: {<<: [{x: 1}, {x: 2, z: 3}]}"), R"({"v":{"x":1,"z":3}})");
  EXPECT_EQ(Read("'<<': 5"), R"({"<<":5})");
  EXPECT_THAT(Error("v:\n  <<: 5\n"), HasSubstr("line 2, column"));
}

TEST(YamlTest, KeysBecomeText) {
  EXPECT_EQ(Read("{1: a, 2.50: b, yes: c, ~: d, 'x': e}"),
            R"({"1":"a","2.5":"b","true":"c","null":"d","x":"e"})");
  EXPECT_EQ(Error("a:\n  x: 1\n  y: 2\n  x: 3\n"),
            "line 4, column 3: the key \"x\" stands on line 2 already");
  EXPECT_EQ(Error("{1: a, '1': b}"), "line 1, column 8: the key \"1\" stands on line 1 already");
  EXPECT_EQ(DumpJson(ParseYaml("{a: 1, a: 2}", DoubledKeys::kLastWins).value()), R"({"a":2})");
  EXPECT_THAT(Error("v:\n  ? [a, b]\n  : c\n"),
              AllOf(StartsWith("line 2, column"), HasSubstr("a key must be a single value")));
}

TEST(YamlTest, DocumentsAreOne) {
  EXPECT_EQ(Read(""), "null");
  EXPECT_EQ(Read("--- 5\n...\n"), "5");
  EXPECT_EQ(Error("--- 1\n--- 2\n--- 3\n"), "expected one YAML document, got several");
  // yaml-cpp reads empty documents without end from this.
  EXPECT_EQ(Error(", b\n"), "expected one YAML document, got several");
}

TEST(YamlTest, MistakesHaveLineAndColumn) {
  EXPECT_THAT(Error("a: 1\nb: [1, 2\n"), StartsWith("line "));
  EXPECT_THAT(Error("a: 1\n b: 2\n"), StartsWith("line 2, column 3: "));
  EXPECT_THAT(Error("a: *nothing\n"), StartsWith("line 1, column "));
  EXPECT_THAT(Error("a:\n\t- 1\n"), StartsWith("line "));
  EXPECT_EQ(Error("a: \xff"), "YAML is not valid UTF-8");
}

TEST(YamlTest, AnAliasBombIsRefused) {
  std::string laughs = "a0: &a0 ['', '', '', '', '', '', '', '', '', '']\n";
  for (int i = 1; i < 10; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [";
    for (int k = 0; k < 10; ++k) laughs += (k > 0 ? ", " : "") + last;
    laughs += "]\n";
  }
  EXPECT_THAT(Error(laughs), StartsWith("more than 1000000 values"));
}

TEST(YamlTest, NestingIsBounded) {
  EXPECT_THAT(Error(std::string(300, '[') + std::string(300, ']')),
              HasSubstr("nested deeper than 256 levels"));
  Error(std::string(100'000, '['));
}

// The patterns of numbers recurse with the length of a text: long ones never meet them.
TEST(YamlTest, ALongScalarIsText) {
  const std::string digits(1'000'000, '7');
  EXPECT_EQ(Read(digits), "\"" + digits + "\"");
}

}  // namespace
}  // namespace flowmesh
