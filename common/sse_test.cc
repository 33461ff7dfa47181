#include "common/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace flowmesh {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// `type|id|data` of the events of a stream that comes in pieces of `size` bytes.
std::vector<std::string> Events(std::string_view stream, size_t size) {
  std::vector<std::string> events;
  SseParser parser([&](const SseEvent& event) {
    events.push_back(event.type + "|" + event.id + "|" + event.data);
    return absl::OkStatus();
  });
  for (; !stream.empty(); stream.remove_prefix(std::min(size, stream.size()))) {
    EXPECT_TRUE(parser.Feed(stream.substr(0, size)).ok());
  }
  return events;
}

TEST(SseTest, EventsAreTheSameHoweverTheStreamIsCut) {
  const std::string_view stream =
      "\xEF\xBB\xBF"
      "data: one\n\n"
      ": a comment\nevent: note\nid: 7\ndata:  two\ndata\ndata:{\"a\": 1}\r\n\r\n"
      "event: alone\n\n"
      "retry: 10\ndata: three\r\rdata: lost";
  for (const size_t size : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, stream.size()}) {
    EXPECT_THAT(Events(stream, size),
                ElementsAre("message||one", "note|7| two\n\n{\"a\": 1}", "message|7|three"))
        << size;
  }
}

TEST(SseTest, SaysWhetherTheStreamStopsInsideAnEvent) {
  SseParser parser([](const SseEvent&) { return absl::OkStatus(); });
  EXPECT_FALSE(parser.is_inside_event());
  ASSERT_TRUE(parser.Feed("da").ok());
  EXPECT_TRUE(parser.is_inside_event());
  ASSERT_TRUE(parser.Feed("ta: x\n").ok());
  EXPECT_TRUE(parser.is_inside_event());
  ASSERT_TRUE(parser.Feed("\n").ok());
  EXPECT_FALSE(parser.is_inside_event());
}

TEST(SseTest, AnEventThatIsTooLargeIsRefused) {
  SseParser lines([](const SseEvent&) { return absl::OkStatus(); }, 100);
  absl::Status status;
  for (int i = 0; status.ok() && i < 20; ++i) status = lines.Feed("data: abcde");
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  SseParser events([](const SseEvent&) { return absl::OkStatus(); }, 100);
  status = absl::OkStatus();
  for (int i = 0; status.ok() && i < 30; ++i) status = events.Feed("data: abcde\n");
  EXPECT_THAT(Message(status), HasSubstr("larger than 100 bytes"));
}

TEST(SseTest, TheReceiversErrorEndsIt) {
  int events = 0;
  SseParser parser([&](const SseEvent&) {
    ++events;
    return absl::InternalError("enough");
  });
  EXPECT_EQ(Message(parser.Feed("data: 1\n\ndata: 2\n\n")), "enough");
  EXPECT_EQ(events, 1);
}

}  // namespace
}  // namespace flowmesh
