#include "sidecar/worker/task_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"

namespace flowmesh::sidecar {
namespace {

using Arrival = TaskTable::Arrival;

v1::TaskRecord Record(const std::string& id) {
  v1::TaskRecord record;
  record.set_task_id(id);
  return record;
}

v1::TaskEvent Progress(uint64_t sequence) {
  v1::TaskEvent event;
  event.set_sequence(sequence);
  event.mutable_progress()->set_done(sequence);
  return event;
}

std::vector<std::string> Ids(const std::vector<v1::TaskRecord>& records) {
  std::vector<std::string> ids;
  for (const v1::TaskRecord& record : records) ids.push_back(record.task_id());
  return ids;
}

TEST(TaskTableTest, AKnownTaskIsADuplicateUntilANewAttemptOfAFinishedOne) {
  TaskTable table;
  EXPECT_EQ(table.Enter(Record("t"), "1"), Arrival::kNew);
  EXPECT_EQ(table.Enter(Record("t"), "1"), Arrival::kDuplicate);
  EXPECT_EQ(table.Enter(Record("t"), "2"), Arrival::kDuplicate);  // it is still queued
  table.SetFinished("t", "", absl::UnixEpoch());
  EXPECT_EQ(table.Find("t")->state(), v1::SUCCEEDED);
  EXPECT_EQ(table.Enter(Record("t"), "1"), Arrival::kDuplicate);
  EXPECT_EQ(table.Enter(Record("t"), "2"), Arrival::kNew);
  EXPECT_EQ(table.Find("t")->state(), v1::QUEUED);
  table.SetFinished("t", "no", absl::UnixEpoch());
  EXPECT_EQ(table.Find("t")->state(), v1::FAILED);
  EXPECT_EQ(table.Find("t")->error(), "no");
  // Without an attempt's name nothing tells a repetition from a new attempt: it runs.
  EXPECT_EQ(table.Enter(Record("t"), ""), Arrival::kNew);
}

TEST(TaskTableTest, ListsNewestFirstAndForgetsTheOldestFinished) {
  TaskTable table({.finished_tasks = 2});
  for (int i = 0; i < 4; ++i) table.Enter(Record(absl::StrCat("t", i)), "1");
  EXPECT_THAT(Ids(table.List(3, v1::TASK_STATE_UNSPECIFIED)),
              ::testing::ElementsAre("t3", "t2", "t1"));
  for (int i = 0; i < 3; ++i) table.SetFinished(absl::StrCat("t", i), "", absl::UnixEpoch());
  EXPECT_FALSE(table.Find("t0"));
  EXPECT_THAT(Ids(table.List(10, v1::SUCCEEDED)), ::testing::ElementsAre("t2", "t1"));
  EXPECT_THAT(Ids(table.List(10, v1::QUEUED)), ::testing::ElementsAre("t3"));
  table.Forget("t3");
  EXPECT_FALSE(table.Find("t3"));
}

TEST(TaskTableTest, AFinishedAttemptThatWasReplacedIsNotForgottenInItsPlace) {
  TaskTable table({.finished_tasks = 1});
  table.Enter(Record("t"), "1");
  table.SetFinished("t", "", absl::UnixEpoch());
  table.Enter(Record("t"), "2");
  table.Enter(Record("u"), "1");
  table.SetFinished("u", "", absl::UnixEpoch());
  EXPECT_TRUE(table.Find("t"));
}

TEST(TaskTableTest, WatchersSeeEveryEventOnceAndTheEnd) {
  TaskTable table;
  EXPECT_FALSE(table.WaitForNews("t", 0, 0, absl::ZeroDuration()));
  table.Enter(Record("t"), "1");
  table.SetRunning("t", "/dir", absl::UnixEpoch());
  table.AddEvent("t", Progress(0));
  table.AddEvent("t", Progress(1));
  auto news = table.WaitForNews("t", 0, 0, absl::ZeroDuration());
  ASSERT_TRUE(news);
  EXPECT_TRUE(news->record_changed);
  EXPECT_EQ(news->record.state(), v1::RUNNING);
  EXPECT_EQ(news->record.progress().done(), 1u);
  ASSERT_EQ(news->events.size(), 2u);
  EXPECT_EQ(news->next_sequence, 2u);

  const auto nothing =
      table.WaitForNews("t", news->version, news->next_sequence, absl::ZeroDuration());
  EXPECT_FALSE(nothing->record_changed);
  EXPECT_TRUE(nothing->events.empty());

  table.AddEvent("t", Progress(2));
  table.SetFinished("t", "", absl::UnixEpoch());
  const auto last =
      table.WaitForNews("t", news->version, news->next_sequence, absl::ZeroDuration());
  ASSERT_EQ(last->events.size(), 1u);
  EXPECT_EQ(last->events[0].sequence(), 2u);
  EXPECT_EQ(last->record.state(), v1::SUCCEEDED);
}

TEST(TaskTableTest, KeepsABoundedNumberOfEvents) {
  TaskTable table({.events_per_task = 3, .events_per_finished_task = 1});
  table.Enter(Record("t"), "1");
  for (int i = 0; i < 10; ++i) table.AddEvent("t", Progress(i));
  EXPECT_EQ(table.WaitForNews("t", 0, 0, absl::ZeroDuration())->events.size(), 3u);
  table.SetFinished("t", "", absl::UnixEpoch());
  EXPECT_EQ(table.WaitForNews("t", 0, 0, absl::ZeroDuration())->events.size(), 1u);
}

}  // namespace
}  // namespace flowmesh::sidecar
