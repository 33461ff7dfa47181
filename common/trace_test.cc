#include "common/trace.h"

#include <gtest/gtest.h>

namespace flowmesh {
namespace {

constexpr char kGiven[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

TEST(ParseTraceparentTest, ReadsWhatItWrites) {
  const std::optional<Trace> trace = ParseTraceparent(kGiven);
  ASSERT_TRUE(trace);
  EXPECT_EQ(trace->trace_id, "4bf92f3577b34da6a3ce929d0e0e4736");
  EXPECT_EQ(trace->span_id, "00f067aa0ba902b7");
  EXPECT_EQ(trace->flags, "00");
  EXPECT_EQ(trace->ToString(), kGiven);
}

TEST(ParseTraceparentTest, ANewerVersionMayHaveMore) {
  const std::string body = std::string(kGiven).substr(2);
  EXPECT_TRUE(ParseTraceparent("01" + body));
  EXPECT_TRUE(ParseTraceparent("cc" + body + "-more"));
  EXPECT_FALSE(ParseTraceparent("cc" + body + "more"));
}

TEST(ParseTraceparentTest, OthersAreNone) {
  for (const char* text : {"", "00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
                           "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                           "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                           "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
                           "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0\n"}) {
    EXPECT_FALSE(ParseTraceparent(text)) << text;
  }
}

TEST(TraceOfRunTest, StaysInTheTraceOfTheDocument) {
  const Json documents[] = {
      {{"metadata", {{"traceparent", kGiven}}}},
      {{"metadata", {{"annotations", {{"traceparent", kGiven}}}}}},
      {{"metadata", {{"traceparent", "nonsense"}, {"annotations", {{"traceparent", kGiven}}}}}}};
  for (const Json& document : documents) {
    const Trace trace = TraceOfRun(document, "run 1");
    EXPECT_EQ(trace.trace_id, "4bf92f3577b34da6a3ce929d0e0e4736") << document;
    EXPECT_NE(trace.span_id, "00f067aa0ba902b7") << "a span of its own";
    EXPECT_EQ(trace.flags, "00");
    EXPECT_EQ(TraceOfRun(document, "run 1").ToString(), trace.ToString());
    EXPECT_NE(TraceOfRun(document, "run 2").span_id, trace.span_id);
  }
}

TEST(TraceOfRunTest, WithoutOneARunHasATraceOfItsOwn) {
  const Json documents[] = {
      Json(), Json::object(), {{"metadata", 7}}, {{"metadata", {{"traceparent", 7}}}}};
  for (const Json& document : documents) {
    const Trace trace = TraceOfRun(document, "run 1");
    EXPECT_TRUE(ParseTraceparent(trace.ToString())) << trace.ToString();
    EXPECT_EQ(trace.flags, "01");
    EXPECT_EQ(TraceOfRun(document, "run 1").trace_id, trace.trace_id);
    EXPECT_NE(TraceOfRun(document, "run 2").trace_id, trace.trace_id);
  }
}

}  // namespace
}  // namespace flowmesh
