#include "sidecar/delivery/output_spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::Pair;
using ::testing::StartsWith;
using Destination = OutputSpec::Destination;

absl::StatusOr<OutputSpec> TryParse(std::string_view spec) {
  const Json document = ParseJson(spec).value();
  return ParseOutputSpec(Field(&document, "spec"));
}

OutputSpec Parse(std::string_view spec) {
  absl::StatusOr<OutputSpec> output = TryParse(spec);
  EXPECT_TRUE(output.ok()) << spec << ": " << output.status();
  return output.ok() ? *output : OutputSpec();
}

OutputSpec ParseDestination(const std::string& destination) {
  return Parse(R"({"output":{"destination":)" + destination + "}}");
}

std::string DestinationError(const std::string& destination) {
  const absl::StatusOr<OutputSpec> output =
      TryParse(R"({"output":{"destination":)" + destination + "}}");
  EXPECT_TRUE(absl::IsInvalidArgument(output.status())) << destination;
  return Message(output.status());
}

TEST(OutputSpecTest, NothingGivenStaysLocal) {
  for (const char* spec : {"{}", R"({"output":null})", R"({"output":{}})",
                           R"({"output":{"destination":null,"artifacts":null}})",
                           R"({"output":{"destination":{"type":null}}})",
                           R"({"output":{"destination":{"type":" "}}})"}) {
    const OutputSpec output = Parse(spec);
    EXPECT_EQ(output.destination, Destination::kLocal) << spec;
    EXPECT_FALSE(output.delivers()) << spec;
    EXPECT_THAT(output.path, IsEmpty()) << spec;
    EXPECT_THAT(output.artifacts, IsEmpty()) << spec;
  }
}

TEST(OutputSpecTest, Local) {
  EXPECT_EQ(ParseDestination(R"({"type":"LOCAL","path":" out/x "})").path, "out/x");
  EXPECT_EQ(ParseDestination(R"({"type":"local","path":"/srv/results"})").path, "/srv/results");
  EXPECT_EQ(ParseDestination(R"({"path":"./"})").path, "./");
  EXPECT_EQ(ParseDestination(R"({"path":"a/../b"})").path, "a/../b");
  // Fields of the other destination are not looked at.
  EXPECT_EQ(ParseDestination(R"({"type":"local","url":5,"timeoutSec":"x"})").destination,
            Destination::kLocal);
}

TEST(OutputSpecTest, ALocalPathStaysInsideOrIsAbsolute) {
  for (const char* path : {"..", "../x", "a/../../x", "./.."}) {
    EXPECT_EQ(
        DestinationError(absl::StrCat(R"({"path":")", path, "\"}")),
        absl::StrCat("spec.output.destination.path: expected a path inside RESULTS_DIR, or an "
                     "absolute one, got \"",
                     path, "\""));
  }
}

TEST(OutputSpecTest, HttpDefaults) {
  const OutputSpec output = ParseDestination(R"({"type":" Http ","path":"../ignored"})");
  EXPECT_EQ(output.destination, Destination::kHttp);
  EXPECT_TRUE(output.delivers());
  EXPECT_EQ(output.url, "");
  EXPECT_EQ(output.method, "POST");
  EXPECT_THAT(output.headers, IsEmpty());
  EXPECT_EQ(output.timeout, std::nullopt);
}

TEST(OutputSpecTest, Http) {
  const OutputSpec output = ParseDestination(
      R"({"type":"http","url":" https://host/r ","method":"put","timeoutSec":"2.5",
          "headers":{"X-B":"text","X-A":7,"X-C":1.5,"X-D":true,"X-E":null}})");
  EXPECT_EQ(output.url, "https://host/r");
  EXPECT_EQ(output.method, "PUT");
  EXPECT_EQ(output.timeout, absl::Seconds(2.5));
  EXPECT_THAT(output.headers, ElementsAre(Pair("X-B", "text"), Pair("X-A", "7"), Pair("X-C", "1.5"),
                                          Pair("X-D", "True"), Pair("X-E", "")));
}

TEST(OutputSpecTest, ATimeOutOfZeroIsTheDefault) {
  for (const char* seconds : {"0", "null", "\"0\""}) {
    EXPECT_EQ(
        ParseDestination(absl::StrCat(R"({"type":"http","timeoutSec":)", seconds, "}")).timeout,
        std::nullopt);
  }
}

TEST(OutputSpecTest, AnUnknownTypeDeliversNothing) {
  const OutputSpec output = ParseDestination(R"({"type":"s3","path":"../x","url":5})");
  EXPECT_EQ(output.destination, Destination::kUnknown);
  EXPECT_EQ(output.type, "s3");
  EXPECT_FALSE(output.delivers());
  EXPECT_THAT(output.path, IsEmpty());
}

TEST(OutputSpecTest, ArtifactsLoseLeadingDotsAndTrailingSlashes) {
  EXPECT_THAT(
      Parse(R"({"output":{"artifacts":[" ./a ","././b/","c//","../up","/abs","","./"," . "]}})")
          .artifacts,
      ElementsAre("a", "b", "c", "../up", "/abs"));
}

TEST(OutputSpecTest, MistakesNameTheFieldAndWhatWasFound) {
  const auto error = [](std::string_view spec) { return Message(TryParse(spec).status()); };
  EXPECT_EQ(error(R"({"output":[]})"), "spec.output: expected a map, got a list");
  EXPECT_EQ(error(R"({"output":{"destination":"http"}})"),
            "spec.output.destination: expected a map, got a text");
  EXPECT_EQ(error(R"({"output":{"artifacts":"a"}})"),
            "spec.output.artifacts: expected a list, got \"a\"");
  EXPECT_EQ(error(R"({"output":{"artifacts":["a",5]}})"),
            "spec.output.artifacts[1]: expected a string, got 5");
  EXPECT_EQ(DestinationError(R"({"type":3})"),
            "spec.output.destination.type: expected a string, got 3");
  EXPECT_EQ(DestinationError(R"({"type":"http","url":3})"),
            "spec.output.destination.url: expected a string, got 3");
  EXPECT_EQ(DestinationError(R"({"type":"http","timeoutSec":"soon"})"),
            "spec.output.destination.timeoutSec: expected a number of at least 0, got \"soon\"");
  EXPECT_EQ(DestinationError(R"({"type":"http","timeoutSec":-1})"),
            "spec.output.destination.timeoutSec: expected a number of at least 0, got -1");
  EXPECT_EQ(DestinationError(R"({"type":"http","method":"GET /"})"),
            "spec.output.destination.method: expected an HTTP method, got \"GET /\"");
  EXPECT_EQ(DestinationError(R"({"type":"http","headers":["a"]})"),
            "spec.output.destination.headers: expected a map, got a list");
}

TEST(OutputSpecTest, AUrlThatNoRequestCanGoToIsFoundBeforeTheTaskRuns) {
  for (const char* url :
       {"ftp://user:canary@host/x", "host/path?canary", "file:///canary", "http://user:canary@"}) {
    EXPECT_THAT(
        DestinationError(absl::StrCat(R"({"type":"http","url":")", url, "\"}")),
        AllOf(StartsWith("spec.output.destination.url: expected an http:// or https:// URL"),
              Not(HasSubstr("canary"))))
        << url;
  }
}

TEST(OutputSpecTest, HeaderErrorsShowNoValue) {
  for (const char* headers :
       {R"({"X-Key":{"canary":1}})", R"({"X-Key":["canary"]})", R"({"X-Key":"canary\r\nHost: x"})",
        R"({"X-Key":"canary\n"})", R"({"X:Key":"canary"})", R"({"X\nKey":"canary"})",
        R"({"":"canary"})", R"("Authorization: canary")"}) {
    EXPECT_THAT(DestinationError(absl::StrCat(R"({"type":"http","headers":)", headers, "}")),
                AllOf(StartsWith("spec.output.destination.headers"), HasSubstr("expected"),
                      Not(HasSubstr("canary"))))
        << headers;
  }
}

}  // namespace
}  // namespace flowmesh::sidecar
