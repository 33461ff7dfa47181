#include "common/env.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>

namespace flowmesh {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

EnvReader Reader(std::map<std::string, std::string> values) {
  return EnvReader(
      [values = std::move(values)](std::string_view name) -> std::optional<std::string> {
        const auto value = values.find(std::string(name));
        if (value == values.end()) return std::nullopt;
        return value->second;
      });
}

// The error of reading the variable V as `read` does.
template <typename Read>
std::string Error(const std::string& value, Read read) {
  EnvReader env = Reader({{"V", value}});
  read(env);
  EXPECT_TRUE(absl::IsInvalidArgument(env.status())) << value;
  return Message(env.status());
}

TEST(EnvTest, WhatIsUnsetOrEmptyIsTheDefault) {
  for (EnvReader env : {Reader({}), Reader({{"V", ""}}), Reader({{"V", " \t"}})}) {
    EXPECT_EQ(env.String("V", "d", ""), "d");
    EXPECT_EQ(env.Secret("V", ""), "");
    EXPECT_EQ(env.Int("V", 7, 0, ""), 7);
    EXPECT_EQ(env.Number("V", 0.5, 0, ""), 0.5);
    EXPECT_EQ(env.PositiveNumber("V", ""), std::nullopt);
    EXPECT_TRUE(env.Switch("V", true, ""));
    EXPECT_FALSE(env.Switch("V", false, ""));
    EXPECT_FALSE(env.IsSet("V"));
    EXPECT_TRUE(env.status().ok());
  }
}

TEST(EnvTest, ValuesAreRead) {
  EnvReader env = Reader({{"S", " x "}, {"I", "-3"}, {"N", "1e-3"}, {"P", "2.5"}, {"E", ""}});
  EXPECT_EQ(env.String("S", "", ""), " x ");
  EXPECT_EQ(env.Secret("S", ""), "x");  // a token from a file has a line end
  EXPECT_EQ(env.Int("I", 0, -5, ""), -3);
  EXPECT_EQ(env.Number("N", 0, 0, ""), 1e-3);
  EXPECT_EQ(env.PositiveNumber("P", ""), 2.5);
  EXPECT_TRUE(env.IsSet("S"));
  EXPECT_EQ(env.Raw("E"), "");
  EXPECT_EQ(env.Raw("X"), std::nullopt);
  EXPECT_TRUE(env.status().ok());
}

TEST(EnvTest, ASwitchIsOnUnlessAWordSaysOff) {
  for (const char* off : {"0", "false", "NO", " Off "}) {
    EXPECT_FALSE(Reader({{"V", off}}).Switch("V", true, "")) << off;
  }
  for (const char* on : {"1", "true", "yes", "on"}) {
    EnvReader env = Reader({{"V", on}});
    EXPECT_TRUE(env.Switch("V", false, "")) << on;
    EXPECT_THAT(env.warnings(), IsEmpty());
  }
  EnvReader env = Reader({{"V", "nein"}});
  EXPECT_TRUE(env.Switch("V", false, ""));
  EXPECT_TRUE(env.status().ok());
  EXPECT_THAT(env.warnings(),
              ElementsAre("V: expected 1, true, yes or on, or 0, false, no or off, got \"nein\"; "
                          "taken for on"));
}

TEST(EnvTest, MistakesNameTheVariableWhatWasExpectedAndFound) {
  const auto at_least_one = [](EnvReader& env) { EXPECT_EQ(env.Int("V", 30, 1, ""), 30); };
  for (const char* bad : {"abc", "0", "1.5", "99999999999999999999", "1 2"}) {
    EXPECT_EQ(Error(bad, at_least_one),
              std::string("V: expected an integer of at least 1, got \"") + bad + "\"");
  }
  EXPECT_EQ(Error("10", [](EnvReader& env) { EXPECT_EQ(env.Int("V", 6, 0, "", 9), 6); }),
            "V: expected an integer from 0 to 9, got \"10\"");
  const auto number = [](EnvReader& env) { EXPECT_EQ(env.Number("V", 0.5, 0, ""), 0.5); };
  for (const char* bad : {"x", "-0.1", "inf", "nan"}) {
    EXPECT_EQ(Error(bad, number),
              std::string("V: expected a number of at least 0, got \"") + bad + "\"");
  }
  const auto positive = [](EnvReader& env) {
    EXPECT_EQ(env.PositiveNumber("V", ""), std::nullopt);
  };
  for (const char* bad : {"x", "0", "-1", "inf"}) {
    EXPECT_EQ(Error(bad, positive),
              std::string("V: expected a number greater than 0, got \"") + bad + "\"");
  }
}

TEST(EnvTest, SecretsThatNoHeaderCanHoldAreRefusedUnseen) {
  for (const char* bad : {"can ary", "can\nary",
                          "can\x01"
                          "ary"}) {
    EXPECT_EQ(Error(bad, [](EnvReader& env) { env.Secret("V", ""); }),
              "V: expected no white space or control characters inside, got some");
  }
}

TEST(EnvTest, UrlsAreChecked) {
  EXPECT_EQ(Reader({{"V", " http://h:1// "}}).HttpUrl("V", "", ""), "http://h:1");
  EXPECT_EQ(Reader({}).HttpUrl("V", "", ""), "");
  EXPECT_EQ(Reader({}).HttpUrl("V", "https://h", ""), "https://h");
  EXPECT_EQ(Error("ftp://u:canary@h", [](EnvReader& env) { env.HttpUrl("V", "", ""); }),
            "V: expected an http or https URL, got \"ftp://h\"");
}

TEST(EnvTest, TheFirstMistakeIsKept) {
  EnvReader env = Reader({{"A", "x"}, {"B", "y"}});
  env.Int("A", 1, 0, "");
  env.Int("B", 1, 0, "");
  env.Reject("C", "something", "nothing");
  env.RejectWith("D", "its own words");
  EXPECT_EQ(Message(env.status()), "A: expected an integer of at least 0, got \"x\"");

  EnvReader other = Reader({});
  other.RejectWith("D", "its own words");
  EXPECT_EQ(Message(other.status()), "D: its own words");
}

TEST(EnvTest, WarningsAreNoErrors) {
  EnvReader env = Reader({});
  EXPECT_THAT(env.warnings(), IsEmpty());
  env.Warn("one");
  env.Warn("two");
  EXPECT_THAT(env.warnings(), ElementsAre("one", "two"));
  EXPECT_TRUE(env.status().ok());
}

TEST(EnvTest, HelpListsEveryVariableWithItsDefaultAndNoValue) {
  EnvReader env = Reader({{"TOKEN", "canary"}, {"TOPIC", "canary"}});
  env.String("TOPIC", "tasks", "the channel");
  env.Secret("TOKEN", "the token");
  env.Int("INTERVAL", 30, 1, "seconds");
  env.Number("COST", 1, 0, "USD");
  env.PositiveNumber("RATE", "bytes");
  env.Switch("FLAG", false, "a switch");
  EXPECT_EQ(env.Help(),
            "  TOPIC     the channel [tasks]\n"
            "  TOKEN     the token\n"
            "  INTERVAL  seconds [30]\n"
            "  COST      USD [1.0]\n"
            "  RATE      bytes\n"
            "  FLAG      a switch [off]\n");
}

TEST(EnvTest, TheSystemsEnvironment) {
  ::setenv("FLOWMESH_ENV_TEST", "value", 1);
  ::setenv("FLOWMESH_ENV_TEST_EMPTY", "", 1);
  ::unsetenv("FLOWMESH_ENV_TEST_UNSET");
  const EnvLookup lookup = SystemEnv();
  EXPECT_EQ(lookup("FLOWMESH_ENV_TEST"), "value");
  EXPECT_EQ(lookup("FLOWMESH_ENV_TEST_EMPTY"), "");
  EXPECT_EQ(lookup("FLOWMESH_ENV_TEST_UNSET"), std::nullopt);
  // A view that does not end where the name's buffer ends.
  EXPECT_EQ(lookup(std::string_view("FLOWMESH_ENV_TEST_MORE", 17)), "value");
}

TEST(EnvTest, ALenientIntegerWarnsAndTakesTheDefault) {
  EnvReader env = Reader({{"A", "x"}, {"B", "0"}, {"C", "-5"}, {"D", ""}, {"E", "1.5"}});
  constexpr int64_t kAny = std::numeric_limits<int64_t>::min();
  EXPECT_EQ(env.LenientInt("A", 6, kAny, ""), 6);
  EXPECT_EQ(env.LenientInt("B", 2, 1, ""), 2);
  EXPECT_EQ(env.LenientInt("C", 6, kAny, ""), -5);
  EXPECT_EQ(env.LenientInt("D", 6, 1, ""), 6);
  EXPECT_EQ(env.LenientInt("E", 6, 1, ""), 6);
  EXPECT_TRUE(env.status().ok());
  EXPECT_THAT(env.warnings(),
              ElementsAre("A: expected an integer, got \"x\"; 6 is used",
                          "B: expected an integer of at least 1, got \"0\"; 2 is used",
                          "E: expected an integer of at least 1, got \"1.5\"; 6 is used"));
}

}  // namespace
}  // namespace flowmesh
