// One trace over everything that a task passes: its document, gRPC, HTTP, the logs.
#include "common/trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/test_http_server.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class TraceTest : public ::testing::Test {
 protected:
  TraceTest() : receiver_([](const httplib::Request&, httplib::Response&) {}) {}

  // Runs an echo task with this metadata; the traceparent that came with its result.
  std::string Run(const Json& metadata) {
    Json envelope = Line::Envelope("", {{"taskType", "echo"}}, "w");
    envelope["task"]["metadata"] = metadata;
    envelope["task"]["spec"]["output"] = {
        {"destination", {{"type", "http"}, {"url", receiver_.url("/results")}}}};
    id_ = line_.Dispatch({}, {{"task", envelope["task"]}});
    EXPECT_EQ(line_.events().WaitForTerminal(id_).value_or(Json())["type"], "TASK_SUCCEEDED");
    return receiver_.requests().back().get_header_value(kTraceparent);
  }

  TestHttpServer receiver_;
  Line line_;
  std::string id_;
};

TEST_F(TraceTest, TheDocumentsTraceGoesAllTheWay) {
  const std::string trace_id = "4bf92f3577b34da6a3ce929d0e0e4736";
  const std::string given = absl::StrCat("00-", trace_id, "-00f067aa0ba902b7-00");
  const std::string sent = Run({{"name", "n"}, {"traceparent", given}});
  ASSERT_TRUE(ParseTraceparent(sent)) << sent;
  EXPECT_EQ(ParseTraceparent(sent)->trace_id, trace_id);
  EXPECT_NE(sent, given) << "the run is a span of its own";
  EXPECT_TRUE(line_.executor("e0").WaitForOutput(absl::StrCat("task ", id_, ", trace ", sent)));
  EXPECT_TRUE(line_.sidecar().WaitForOutput(absl::StrCat("(echo), trace ", sent)));
  EXPECT_THAT(line_.sidecar().Output(),
              AllOf(HasSubstr(absl::StrCat("task ", id_, " started on w (echo), trace ", sent)),
                    HasSubstr(absl::StrCat("task ", id_, " succeeded after "))));
  EXPECT_EQ(ParseTraceparent(Run({{"annotations", {{"traceparent", given}}}}))->trace_id, trace_id);
}

TEST_F(TraceTest, WithoutOneATaskGetsATraceOfItsOwn) {
  const auto first = ParseTraceparent(Run({{"name", "n"}}));
  const auto second = ParseTraceparent(Run({{"traceparent", "nonsense"}}));
  ASSERT_TRUE(first && second);
  EXPECT_NE(first->trace_id, second->trace_id);
}

}  // namespace
}  // namespace flowmesh::testing
