#include "tests/chaos/history.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class HistoryTest : public ::testing::Test {
 protected:
  // `steps` of the task `a`, a second apart.
  void Go(const std::vector<Step>& steps) {
    for (const Step step : steps) {
      history_.Add(step, "a", step == Step::kDispatched ? "e0" : "");
      clock_.Advance(absl::Seconds(1));
    }
  }
  std::string Violation() const {
    const absl::Status status = history_.Check();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    return Message(status);
  }

  FakeClock clock_;
  History history_{clock_};
};

TEST_F(HistoryTest, AWholeWayIsFine) {
  Go({Step::kPublished, Step::kReceived, Step::kAccepted, Step::kDispatched, Step::kStarted,
      Step::kResultSent, Step::kResultStored, Step::kFinished});
  EXPECT_EQ(history_.Check(), absl::OkStatus());
  EXPECT_EQ(history_.Count(Step::kFinished), 1u);
  EXPECT_THAT(history_.ToString(), HasSubstr("3.0000  dispatched     a on e0\n"));
}

TEST_F(HistoryTest, WhatAnObserverCannotSeeIsNoViolation) {
  Go({Step::kPublished, Step::kStarted, Step::kFinished});
  EXPECT_EQ(history_.Check(), absl::OkStatus());
}

TEST_F(HistoryTest, RepeatedMessagesAndSendsAreFine) {
  Go({Step::kPublished, Step::kPublished, Step::kReceived, Step::kAccepted, Step::kReceived,
      Step::kDispatched, Step::kResultSent, Step::kResultSent, Step::kResultStored, Step::kFinished,
      Step::kPublished, Step::kReceived, Step::kResultSent});
  EXPECT_EQ(history_.Check(), absl::OkStatus());
}

TEST_F(HistoryTest, AnotherExecutorAfterTheFirstIsRidOfIt) {
  Go({Step::kPublished, Step::kDispatched, Step::kHandedBack});
  history_.Add(Step::kDispatched, "a", "e1");
  Go({Step::kFinished});
  EXPECT_EQ(history_.Check(), absl::OkStatus());
}

TEST_F(HistoryTest, PublishedAndNeverTaken) {
  Go({Step::kPublished});
  EXPECT_THAT(Violation(), StartsWith("task a: it was published outside any deaf window and nobody "
                                      "took it\n      0.0000  published"));
}

TEST_F(HistoryTest, InADeafWindowMessagesMayBeMissed) {
  Go({Step::kPublished, Step::kFinished});
  history_.BeginDeaf("redis is killed");
  clock_.Advance(absl::Seconds(1));
  history_.Add(Step::kPublished, "b");
  clock_.Advance(absl::Seconds(1));
  history_.EndDeaf();
  EXPECT_EQ(history_.Check(), absl::OkStatus());
  clock_.Advance(absl::Seconds(1));
  history_.Add(Step::kPublished, "c");
  EXPECT_THAT(Violation(), StartsWith("task c: it was published outside"));
  // What was on its way when the window began is missed like what came after.
  history_.BeginDeaf("once more", absl::Seconds(2));
  EXPECT_EQ(history_.Check(), absl::OkStatus());
  EXPECT_TRUE(history_.IsDeafAtFirst("c"));
  EXPECT_FALSE(history_.IsDeafAtFirst("a"));
  EXPECT_FALSE(history_.IsDeafAtFirst("unknown"));
  history_.EndDeaf();
  // Accepted there, it must be finished all the same.
  history_.BeginDeaf("again");
  history_.Add(Step::kFinished, "c");
  history_.Add(Step::kPublished, "d");
  history_.Add(Step::kAccepted, "d");
  EXPECT_THAT(Violation(), StartsWith("task d: it was accepted and never finished"));
}

TEST_F(HistoryTest, AcceptedAndNeverFinished) {
  Go({Step::kPublished, Step::kAccepted, Step::kDispatched, Step::kStarted});
  EXPECT_THAT(Violation(), StartsWith("task a: it was accepted and never finished"));
}

TEST_F(HistoryTest, FinishedTwice) {
  Go({Step::kPublished, Step::kFinished, Step::kFinished});
  EXPECT_THAT(Violation(), StartsWith("task a: it was finished twice"));
}

TEST_F(HistoryTest, RunAgainAfterItsEnd) {
  Go({Step::kAccepted, Step::kDispatched, Step::kFinished, Step::kDispatched});
  EXPECT_THAT(Violation(), StartsWith("task a: it was dispatched after it was finished"));
}

TEST_F(HistoryTest, WithTwoExecutorsAtOnce) {
  Go({Step::kAccepted, Step::kDispatched});
  history_.Add(Step::kDispatched, "a", "e1");
  EXPECT_THAT(Violation(), StartsWith("task a: it was dispatched while e0 had it"));
}

TEST_F(HistoryTest, TheSameExecutorTwiceIsTwoRunsToo) {
  Go({Step::kAccepted, Step::kDispatched, Step::kDispatched});
  EXPECT_THAT(Violation(), StartsWith("task a: it was dispatched while e0 had it"));
}

TEST_F(HistoryTest, OutOfOrder) {
  Go({Step::kDispatched, Step::kAccepted, Step::kFinished});
  EXPECT_THAT(Violation(), StartsWith("task a: it was accepted after it was dispatched"));
}

TEST_F(HistoryTest, StoredTwice) {
  Go({Step::kResultSent, Step::kResultStored, Step::kResultSent, Step::kResultStored});
  EXPECT_THAT(Violation(), StartsWith("task a: its result was stored twice"));
}

TEST_F(HistoryTest, StoredWithoutHavingBeenSent) {
  Go({Step::kFinished, Step::kResultStored});
  EXPECT_THAT(Violation(), StartsWith("task a: its result was stored but never sent"));
}

TEST_F(HistoryTest, SentAndNeverStored) {
  Go({Step::kResultSent, Step::kFinished});
  EXPECT_THAT(Violation(), StartsWith("task a: its result was sent and never stored"));
}

TEST_F(HistoryTest, TheFirstViolationIsToldWithTheWayOfItsTaskAlone) {
  history_.Add(Step::kPublished, "b");
  Go({Step::kPublished, Step::kFinished, Step::kFinished});
  history_.Add(Step::kFinished, "b");
  history_.Add(Step::kFinished, "b");
  const std::string text = Violation();
  EXPECT_THAT(text, StartsWith("task a: it was finished twice"));
  EXPECT_THAT(text, ::testing::Not(HasSubstr("published      b")));
}

TEST(StepOfTest, ReadsTaskEvents) {
  EXPECT_EQ(StepOf({{"type", "TASK_STARTED"}}), Step::kStarted);
  EXPECT_EQ(StepOf({{"type", "TASK_SUCCEEDED"}}), Step::kFinished);
  EXPECT_EQ(StepOf({{"type", "TASK_FAILED"}}), Step::kFinished);
  EXPECT_EQ(StepOf({{"type", "HEARTBEAT"}}), std::nullopt);
  EXPECT_EQ(StepOf(Json::object()), std::nullopt);
}

}  // namespace
}  // namespace flowmesh::testing
