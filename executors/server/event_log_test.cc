#include "executors/server/event_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "absl/strings/str_cat.h"

namespace flowmesh::executor {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr absl::Duration kBound = absl::Seconds(30);

v1::TaskLogLine Line(const std::string& text) {
  v1::TaskLogLine line;
  line.set_level("INFO");
  line.set_text(text);
  return line;
}

v1::TaskProgress Progress(uint64_t done) {
  v1::TaskProgress progress;
  progress.set_done(done);
  return progress;
}

v1::TaskFailed Failed(const std::string& message) {
  v1::TaskFailed failed;
  failed.set_code(v1::TaskFailed::TASK_ERROR);
  failed.set_message(message);
  return failed;
}

std::vector<uint64_t> Sequences(const EventLog::Batch& batch) {
  std::vector<uint64_t> result;
  for (const EventLog::EventPtr& event : batch.events) result.push_back(event->sequence());
  return result;
}

TEST(EventLog, EventsAreNumberedAndStamped) {
  FakeClock clock(absl::FromUnixSeconds(1000) + absl::Nanoseconds(7));
  EventLog log("", clock);
  log.Started();
  log.LogLine(Line("a"));
  log.End(v1::TaskFinished());
  const EventLog::Batch batch = log.Read(0, absl::ZeroDuration());
  EXPECT_THAT(Sequences(batch), ElementsAre(0, 1, 2));
  EXPECT_TRUE(batch.events[0]->has_started());
  EXPECT_EQ(batch.events[1]->log_line().text(), "a");
  EXPECT_TRUE(batch.events[2]->has_finished());
  EXPECT_EQ(batch.events[0]->time().seconds(), 1000);
  EXPECT_EQ(batch.events[0]->time().nanos(), 7);
  EXPECT_TRUE(batch.complete);
  EXPECT_EQ(log.outcome(), "succeeded");
}

TEST(EventLog, ReadingBeginsAnywhere) {
  FakeClock clock;
  EventLog log("", clock);
  for (int i = 0; i < 5; ++i) log.LogLine(Line("x"));
  EXPECT_THAT(Sequences(log.Read(3, absl::ZeroDuration())), ElementsAre(3, 4));
  const EventLog::Batch none = log.Read(9, absl::ZeroDuration());
  EXPECT_TRUE(none.events.empty());
  EXPECT_EQ(none.next, 9u);
  EXPECT_FALSE(none.complete);
  log.End(v1::TaskFinished());
  EXPECT_TRUE(log.Read(9, kBound).complete);  // beyond the end: no wait
}

TEST(EventLog, OnlyTheNewestProgressIsKept) {
  FakeClock clock;
  EventLog log("", clock);
  for (uint64_t i = 0; i < 100; ++i) log.Progress(Progress(i));
  log.LogLine(Line("x"));
  log.Progress(Progress(100));
  const EventLog::Batch batch = log.Read(0, absl::ZeroDuration());
  EXPECT_THAT(Sequences(batch), ElementsAre(100, 101));
  EXPECT_EQ(batch.events[1]->progress().done(), 100u);
}

TEST(EventLog, MemoryForProgressDoesNotGrow) {
  FakeClock clock;
  EventLog log("", clock);
  log.Progress(Progress(1000000));
  const uint64_t before = log.bytes();
  for (int i = 0; i < 100; ++i) log.Progress(Progress(1000000));
  EXPECT_EQ(log.bytes(), before + 2);  // longer sequence numbers
}

TEST(EventLog, AReaderWakesForAnEventAndForTheEnd) {
  EventLog log("", Clock::Real());
  std::thread writer([&] {
    log.LogLine(Line("woke"));
    log.End(Failed("over"));
  });
  EventLog::Batch batch = log.Read(0, kBound);
  ASSERT_FALSE(batch.events.empty());
  EXPECT_EQ(batch.events[0]->log_line().text(), "woke");
  EXPECT_TRUE(log.WaitComplete(kBound));
  writer.join();
  EXPECT_EQ(log.outcome(), "task_error");
}

TEST(EventLog, NothingComesAfterTheEnd) {
  FakeClock clock;
  EventLog log("", clock);
  log.End(v1::TaskFinished());
  log.LogLine(Line("late"));
  log.Progress(Progress(1));
  log.End(Failed("late"));
  EXPECT_EQ(log.Read(0, absl::ZeroDuration()).events.size(), 1u);
}

TEST(EventLog, LogLinesBeyondTheLimitGoToTheFileOnly) {
  const TempDir dir;
  FakeClock clock;
  EventLog log(dir / "task.log", clock, {.log_lines = 3});
  for (int i = 0; i < 10; ++i) log.LogLine(Line(absl::StrCat("line ", i)));
  const EventLog::Batch batch = log.Read(0, absl::ZeroDuration());
  EXPECT_THAT(Sequences(batch), ElementsAre(0, 1, 2));
  EXPECT_EQ(batch.events[2]->log_line().text(), "line 2 [further lines are in logs/task.log only]");
  const std::string text = ReadFile(dir / "task.log").value();
  EXPECT_THAT(text, HasSubstr(" | INFO | line 9\n"));
  EXPECT_THAT(text, HasSubstr(" | INFO | line 2\n"));
}

TEST(EventLog, LogTextInMemoryIsBoundedToo) {
  FakeClock clock;
  EventLog log("", clock, {.log_line_bytes = 1000});
  for (int i = 0; i < 100; ++i) log.LogLine(Line(std::string(300, 'x')));
  EXPECT_EQ(log.Read(0, absl::ZeroDuration()).events.size(), 4u);
}

TEST(EventLog, TheFileIsBoundedAndEndsWithTheError) {
  const TempDir dir;
  FakeClock clock;
  EventLog log(dir / "a.log", clock);
  log.End(Failed("spec.model: required"));
  EXPECT_THAT(ReadFile(dir / "a.log").value(), HasSubstr(" | ERROR | spec.model: required\n"));

  EventLog bounded(dir / "b.log", clock, {.log_file_bytes = 200});
  for (int i = 0; i < 100; ++i) bounded.LogLine(Line("0123456789"));
  const std::string text = ReadFile(dir / "b.log").value();
  EXPECT_LT(text.size(), 300u);
  EXPECT_THAT(text, ::testing::EndsWith("[log lines beyond the limit are lost]\n"));
}

TEST(EventLog, AFileThatCannotBeWrittenCostsOnlyTheFile) {
  FakeClock clock;
  EventLog log("/nonexistent/task.log", clock);
  log.LogLine(Line("a"));
  EXPECT_EQ(log.Read(0, absl::ZeroDuration()).events.size(), 1u);
}

}  // namespace
}  // namespace flowmesh::executor
