#include "common/field.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

class FieldTest : public ::testing::Test {
 protected:
  // The field `spec.v` of a document in which it has this value.
  Field Of(std::string_view value) {
    document_ = {{"v", ParseJson(value).value()}};
    return Field(&document_, "spec")["v"];
  }

  Json document_;
};

template <typename T>
std::string ErrorOf(const absl::StatusOr<T>& result) {
  EXPECT_TRUE(absl::IsInvalidArgument(result.status())) << result.status();
  return Message(result.status());
}

TEST_F(FieldTest, PathsNameEveryStep) {
  document_ = ParseJson(R"({"model":{"adapters":[{"path":"x"}]},"none":null})").value();
  const Field root(&document_, "");
  const Field path = root["model"]["adapters"][size_t{0}]["path"];
  EXPECT_EQ(path.path(), "model.adapters[0].path");
  EXPECT_EQ(path.String().value(), "x");
  EXPECT_EQ(Field(&document_, "spec")["model"].path(), "spec.model");
}

TEST_F(FieldTest, WhatIsAbsentIsAFieldToo) {
  document_ = ParseJson(R"({"model":{"list":[1]},"none":null,"text":"x"})").value();
  const Field root(&document_, "spec");
  for (const Field& field :
       {root["nothing"], root["none"], root["none"]["below"], root["text"]["below"],
        root["model"]["list"]["below"], root["model"]["list"][size_t{1}], root["text"][size_t{0}],
        Field(nullptr, "spec")["x"]}) {
    EXPECT_FALSE(field.present()) << field.path();
    EXPECT_TRUE(field.json().is_null()) << field.path();
    EXPECT_EQ(field.size(), 0u) << field.path();
    EXPECT_TRUE(field.CheckMap().ok()) << field.path();
    EXPECT_TRUE(field.CheckList().ok()) << field.path();
    EXPECT_EQ(field.StringOr("d").value(), "d");
    EXPECT_EQ(field.IntOr(7, 0, 9).value(), 7);
    EXPECT_EQ(field.NumberOr(0.5).value(), 0.5);
    EXPECT_EQ(field.BoolOr(true).value(), true);
  }
  EXPECT_EQ(ErrorOf(root["a"]["b"].String()), "spec.a.b: expected a string, got nothing");
  EXPECT_EQ(ErrorOf(root["model"]["list"][size_t{3}].Int()),
            "spec.model.list[3]: expected an integer, got nothing");
}

TEST_F(FieldTest, TheFirstAliasThatIsPresentWins) {
  document_ = ParseJson(R"({"a":null,"b":2,"c":3})").value();
  const Field root(&document_, "spec");
  EXPECT_EQ(root.FirstOf({"a", "b", "c"}).path(), "spec.b");
  EXPECT_EQ(root.FirstOf({"c", "b"}).Int().value(), 3);
  const Field none = root.FirstOf({"x", "a"});
  EXPECT_FALSE(none.present());
  EXPECT_EQ(none.path(), "spec.x");
}

TEST_F(FieldTest, MapsAndLists) {
  EXPECT_TRUE(Of("{}").CheckMap().ok());
  EXPECT_TRUE(Of("[]").CheckList().ok());
  EXPECT_EQ(Message(Of("[]").CheckMap()), "spec.v: expected a map, got a list");
  EXPECT_EQ(Message(Of("\"x\"").CheckList()), "spec.v: expected a list, got \"x\"");
  EXPECT_EQ(Of("[1,2]").size(), 2u);
  EXPECT_EQ(Of("{\"a\":1}").size(), 0u);
}

TEST_F(FieldTest, Strings) {
  EXPECT_EQ(Of("\" as it is \"").String().value(), " as it is ");
  EXPECT_EQ(Of("\" trimmed\\n\"").NonEmptyString().value(), "trimmed");
  EXPECT_EQ(ErrorOf(Of("5").String()), "spec.v: expected a string, got 5");
  EXPECT_EQ(ErrorOf(Of("5").StringOr("x")), "spec.v: expected a string, got 5");
  EXPECT_EQ(ErrorOf(Of("\"  \"").NonEmptyString()),
            "spec.v: expected a non-empty string, got \"  \"");
  EXPECT_THAT(Of(R"(["a",""])").StringList().value(), ElementsAre("a", ""));
  EXPECT_EQ(ErrorOf(Of("\"a\"").StringList()), "spec.v: expected a list of strings, got \"a\"");
  EXPECT_EQ(ErrorOf(Of(R"(["a",{}])").StringList()), "spec.v[1]: expected a string, got a map");
}

TEST_F(FieldTest, Integers) {
  for (const auto& [text, value] : std::vector<std::pair<std::string, int64_t>>{
           {"5", 5},
           {"-5", -5},
           {"2.0", 2},
           {"\"16\"", 16},
           {"\" 16 \"", 16},
           {"\"1e3\"", 1000},
           {"\"2.0\"", 2},
           {"9223372036854775807", kMax},
           {"\"9223372036854775807\"", kMax},
           {"-9223372036854775808", std::numeric_limits<int64_t>::min()},
           {"9007199254740992.0", int64_t{1} << 53}}) {
    EXPECT_EQ(Of(text).Int().value(), value) << text;
  }
  for (const char* bad : {"2.5", "\"two\"", "\"\"", "true", "[]", "{}", "9223372036854775808",
                          "\"9223372036854775808\"", "1e300", "\"inf\"", "\"nan\"", "\"5 x\""}) {
    EXPECT_FALSE(Of(bad).Int().ok()) << bad;
  }
}

TEST_F(FieldTest, IntegersHaveBounds) {
  EXPECT_EQ(Of("1").Int(1, 3).value(), 1);
  EXPECT_EQ(Of("3").IntOr(2, 1, 3).value(), 3);
  EXPECT_EQ(ErrorOf(Of("0").Int(1)), "spec.v: expected an integer of at least 1, got 0");
  EXPECT_EQ(ErrorOf(Of("\"two\"").IntOr(1, 1)),
            "spec.v: expected an integer of at least 1, got \"two\"");
  EXPECT_EQ(ErrorOf(Of("4").Int(1, 3)), "spec.v: expected an integer from 1 to 3, got 4");
  EXPECT_EQ(ErrorOf(Of("4").Int(std::numeric_limits<int64_t>::min(), 3)),
            "spec.v: expected an integer of at most 3, got 4");
}

TEST_F(FieldTest, Numbers) {
  EXPECT_EQ(Of("\"5e-7\"").Number().value(), 5e-7);
  EXPECT_EQ(Of("3").Number().value(), 3.0);
  EXPECT_EQ(Of("-0.25").NumberOr(1).value(), -0.25);
  for (const char* bad : {"\"inf\"", "\"-Infinity\"", "\"nan\"", "\"x\"", "true", "[1]"}) {
    EXPECT_FALSE(Of(bad).Number().ok()) << bad;
  }
  EXPECT_EQ(ErrorOf(Of("\"1,5\"").Number()), "spec.v: expected a number, got \"1,5\"");
}

TEST_F(FieldTest, NumbersWithinBounds) {
  EXPECT_EQ(Of("0").Number({.at_least = 0, .below = 1}).value(), 0);
  EXPECT_EQ(Of("1").Number({.above = 0, .at_most = 1}).value(), 1);
  EXPECT_EQ(Field(nullptr, "spec.v").NumberOr(-1, {.above = 0}).value(), -1);
  EXPECT_EQ(ErrorOf(Of("1").Number({.at_least = 0, .below = 1})),
            "spec.v: expected a number of at least 0 and below 1, got 1");
  EXPECT_EQ(ErrorOf(Of("0").NumberOr(5, {.above = 0, .at_most = 0.5})),
            "spec.v: expected a number above 0 and at most 0.5, got 0");
}

TEST_F(FieldTest, Booleans) {
  for (const char* yes : {"true", "\"true\"", "\"YES\"", "\" On \"", "\"1\"", "1", "1.0"}) {
    EXPECT_TRUE(Of(yes).Bool().value()) << yes;
  }
  for (const char* no : {"false", "\"False\"", "\"no\"", "\"OFF\"", "\"0\"", "0", "0.0"}) {
    EXPECT_FALSE(Of(no).Bool().value()) << no;
  }
  for (const char* bad : {"2", "\"maybe\"", "\"\"", "[]", "0.5"}) {
    EXPECT_FALSE(Of(bad).BoolOr(true).ok()) << bad;
  }
  EXPECT_EQ(ErrorOf(Of("\"maybe\"").Bool()), "spec.v: expected true or false, got \"maybe\"");
}

TEST_F(FieldTest, ErrorsCarryThePath) {
  EXPECT_EQ(Message(Of("7").Error("is odd")), "spec.v: is odd");
  EXPECT_EQ(Message(Of("7").Expected("an even number")), "spec.v: expected an even number, got 7");
}

}  // namespace
}  // namespace flowmesh
