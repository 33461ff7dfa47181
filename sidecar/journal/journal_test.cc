#include "sidecar/journal/journal.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sqlite3.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/files.h"
#include "tests/integration/eventually.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class JournalTest : public ::testing::Test {
 protected:
  std::unique_ptr<Journal> Open(JournalOptions options = {}) {
    absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(file(), options, clock_);
    EXPECT_TRUE(journal.ok()) << journal.status();
    return *std::move(journal);
  }
  std::filesystem::path file() const { return dir_ / "journal.db"; }

  static JournalTask Task(const std::string& id, const std::string& document = "{}") {
    return {.task_id = id,
            .worker_id = "w",
            .dispatched_at = "then",
            .source = "redis",
            .attempt = id + "#1",
            .fingerprint = "f",
            .document = document,
            .received_at = absl::FromUnixMicros(1762160400123456)};
  }

  // Waits until the write is on disk, or has failed.
  template <typename Call>
  absl::Status Wait(const Call& call) {
    absl::Notification written;
    absl::Status result;
    call([&](const absl::Status& status) {
      result = status;
      written.Notify();
    });
    written.WaitForNotification();
    return result;
  }
  absl::Status Accept(Journal& journal, JournalTask task, int64_t* id = nullptr) {
    return Wait([&](Journal::Done done) {
      const int64_t entry =
          journal.Accept(std::move(task), [done](const absl::Status& s, const auto&) { done(s); });
      if (id != nullptr) *id = entry;
    });
  }
  // What a new attempt of the task is told of earlier ones; it is forgotten again.
  static std::optional<JournalClosed> Earlier(Journal& journal, const std::string& task) {
    std::optional<JournalClosed> earlier;
    JournalTask attempt = Task(task);
    attempt.dispatched_at = "now";
    journal.Forget(journal.Accept(
        attempt, [&](const absl::Status&, std::optional<JournalClosed> e) { earlier = e; }));
    journal.Flush();
    return earlier;
  }
  // From accepted to told.
  int64_t Close(Journal& journal, const std::string& task, const std::string& end,
                JournalKeep keep) {
    JournalTask attempt = Task(task, std::string(1000, 'd'));
    attempt.dispatched_at = absl::StrCat(++attempts_);
    const int64_t id = journal.Accept(std::move(attempt), nullptr);
    journal.Finish(id, end, "/results/" + task, nullptr);
    journal.Conclude(id, "event", keep == JournalKeep::kResult ? "" : "it failed", keep, nullptr);
    journal.Announce(id);
    return id;
  }

  TempDir dir_;
  FakeClock clock_;
  int attempts_ = 0;
};

TEST_F(JournalTest, AnOpenTaskComesBackInTheStateThatItReached) {
  int64_t accepted = 0, dispatched = 0, finished = 0, delivered = 0;
  {
    const std::unique_ptr<Journal> journal = Open();
    EXPECT_THAT(journal->worker_id(), "");
    journal->SetWorkerId("w");
    accepted = journal->Accept(Task("a", R"({"spec":"ü"})"), nullptr);
    dispatched = journal->Accept(Task("b"), nullptr);
    journal->Dispatch(dispatched);
    finished = journal->Accept(Task("c"), nullptr);
    journal->Finish(finished, std::string("\0end", 4), "/results/c", nullptr);
    delivered = journal->Accept(Task("d"), nullptr);
    journal->Conclude(delivered, "{event}", "why", JournalKeep::kDeath, nullptr);
  }
  const std::unique_ptr<Journal> journal = Open();
  EXPECT_EQ(journal->worker_id(), "w");
  const std::vector<JournalEntry> open = journal->OpenTasks().value();
  ASSERT_EQ(open.size(), 4u);
  EXPECT_EQ(open[0].id, accepted);
  EXPECT_EQ(open[0].state, JournalState::kAccepted);
  EXPECT_EQ(open[0].task.task_id, "a");
  EXPECT_EQ(open[0].task.worker_id, "w");
  EXPECT_EQ(open[0].task.dispatched_at, "then");
  EXPECT_EQ(open[0].task.source, "redis");
  EXPECT_EQ(open[0].task.attempt, "a#1");
  EXPECT_EQ(open[0].task.fingerprint, "f");
  EXPECT_EQ(open[0].task.document, R"({"spec":"ü"})");
  EXPECT_EQ(open[0].task.received_at, absl::FromUnixMicros(1762160400123456));
  EXPECT_EQ(open[1].state, JournalState::kDispatched);
  EXPECT_EQ(open[2].state, JournalState::kFinished);
  EXPECT_EQ(open[2].end, std::string("\0end", 4));
  EXPECT_EQ(open[2].task_dir, "/results/c");
  EXPECT_EQ(open[3].state, JournalState::kDelivered);
  EXPECT_EQ(open[3].task.document, "");  // nobody needs it any more
  EXPECT_EQ(open[3].event, "{event}");
  EXPECT_EQ(open[3].error, "why");
  EXPECT_EQ(open[3].keep, JournalKeep::kDeath);
  EXPECT_EQ(journal->stats().open_tasks, 4u);
  EXPECT_EQ(journal->stats().open_bytes, 13u + 3 * 2 + 4 + 7);
  // Ids go on where they were.
  EXPECT_GT(journal->Accept(Task("e"), nullptr), delivered);
}

TEST_F(JournalTest, StatesOnlyGrow) {
  const std::unique_ptr<Journal> journal = Open();
  const int64_t id = journal->Accept(Task("t"), nullptr);
  journal->Conclude(id, "the event", "", JournalKeep::kResult, nullptr);
  journal->Finish(id, "late", "/late", nullptr);
  journal->Dispatch(id);
  journal->Flush();
  const JournalEntry entry = journal->OpenTasks().value().at(0);
  EXPECT_EQ(entry.state, JournalState::kDelivered);
  EXPECT_EQ(entry.end, "");
}

TEST_F(JournalTest, AToldTaskKeepsOnlyWhatANewAttemptMayAskFor) {
  int64_t good = 0, bad = 0;
  {
    const std::unique_ptr<Journal> journal = Open();
    good = Close(*journal, "good", "result", JournalKeep::kResult);
    bad = Close(*journal, "bad", "failure", JournalKeep::kDeath);
    EXPECT_EQ(journal->ReadEnd(good).value(), "result");
    EXPECT_TRUE(absl::IsNotFound(journal->ReadEnd(bad).status()));
  }
  const std::unique_ptr<Journal> journal = Open();
  EXPECT_THAT(journal->OpenTasks().value(), IsEmpty());
  const std::vector<JournalClosed> closed = journal->ClosedTasks(10).value();
  ASSERT_EQ(closed.size(), 2u);
  EXPECT_EQ(closed[0].task.task_id, "good");
  EXPECT_EQ(closed[0].task_dir, "/results/good");
  EXPECT_EQ(closed[0].error, "");
  EXPECT_EQ(closed[0].keep, JournalKeep::kResult);
  EXPECT_EQ(closed[0].closed_at, clock_.Now());
  EXPECT_EQ(closed[1].error, "it failed");
  EXPECT_EQ(closed[1].keep, JournalKeep::kDeath);
  EXPECT_EQ(journal->ClosedTasks(1).value().at(0).task.task_id, "bad");
  EXPECT_EQ(journal->stats().closed_tasks, 2u);
  EXPECT_EQ(journal->stats().closed_bytes, 6u);
  EXPECT_EQ(journal->stats().open_bytes, 0u);
}

TEST_F(JournalTest, WritesThatWaitTogetherShareACommit) {
  const std::unique_ptr<Journal> journal = Open();
  constexpr int kTasks = 2000;
  absl::Mutex mutex;
  std::vector<int> order;
  for (int i = 0; i < kTasks; ++i) {
    journal->Accept(Task(absl::StrCat(i)), [&, i](const absl::Status& status, const auto&) {
      ASSERT_TRUE(status.ok()) << status;
      absl::MutexLock lock(&mutex);
      order.push_back(i);
    });
  }
  journal->Flush();
  absl::MutexLock lock(&mutex);
  ASSERT_EQ(order.size(), kTasks);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  EXPECT_LT(journal->stats().commits, kTasks / 2);
}

// A crash leaves the log as it stands: frames, and behind them the zeros that give it its length.
TEST_F(JournalTest, ALogThatHasItsLengthFromTheStartIsReadToItsLastFrame) {
  const std::filesystem::path log = file().string() + "-wal", crashed = dir_ / "crashed";
  const auto journal = Open();
  ASSERT_TRUE(testing::Eventually([&] { return std::filesystem::file_size(log) == 8 << 20; }));
  ASSERT_TRUE(Accept(*journal, Task("a")).ok());
  ASSERT_TRUE(Accept(*journal, Task("b", std::string(20000, 'd'))).ok());
  EXPECT_EQ(std::filesystem::file_size(log), 8 << 20);
  std::filesystem::create_directory(crashed);
  std::filesystem::copy(file(), crashed / "journal.db");
  std::filesystem::copy(log, crashed / "journal.db-wal");
  const auto next = Journal::Open(crashed / "journal.db", JournalOptions(), clock_);
  ASSERT_TRUE(next.ok()) << next.status();
  const std::vector<JournalEntry> open = (*next)->OpenTasks().value();
  ASSERT_EQ(open.size(), 2u);
  EXPECT_EQ(open[1].task.document, std::string(20000, 'd'));
}

TEST_F(JournalTest, GivenBackIsAsIfItHadNeverCome) {
  const std::unique_ptr<Journal> journal = Open();
  const int64_t one = journal->Accept(Task("one"), nullptr);
  journal->Accept(Task("two"), nullptr);
  JournalTask other = Task("three");
  other.worker_id = "other";
  journal->Accept(other, nullptr);
  JournalTask local = Task("four");
  local.source = "local";
  journal->Accept(local, nullptr);
  const int64_t told = Close(*journal, "told", "result", JournalKeep::kResult);
  journal->Forget(one);
  journal->ForgetWorker("w");
  journal->Flush();
  const std::vector<JournalEntry> open = journal->OpenTasks().value();
  ASSERT_EQ(open.size(), 2u);
  EXPECT_EQ(open[0].task.task_id, "three");
  EXPECT_EQ(open[1].task.task_id, "four");
  EXPECT_EQ(journal->ReadEnd(told).value(), "result");  // it is no open work
}

TEST_F(JournalTest, ToldTasksAreBoundedByAgeNumberAndBytes) {
  const auto kept = [&](Journal& journal) {
    std::vector<std::string> ids;
    const std::vector<JournalClosed> all = journal.ClosedTasks(1000).value();
    for (const JournalClosed& closed : all) {
      ids.push_back(closed.task.task_id);
    }
    return ids;
  };
  {
    const std::unique_ptr<Journal> journal = Open({.keep_tasks = 3});
    for (int i = 0; i < 6; ++i) {
      Close(*journal, absl::StrCat("n", i), "12345", JournalKeep::kResult);
      journal->Flush();
    }
    // Pruning follows the commit that a Flush waits for; the next one is after it.
    journal->Flush();
    EXPECT_THAT(kept(*journal), ElementsAre("n3", "n4", "n5"));
    EXPECT_EQ(journal->stats().closed_tasks, 3u);
    EXPECT_EQ(journal->stats().closed_bytes, 15u);
  }
  {
    const std::unique_ptr<Journal> journal = Open({.keep_bytes = 12});
    journal->Flush();
    journal->Flush();
    EXPECT_THAT(kept(*journal), ElementsAre("n4", "n5"));
  }
  clock_.Advance(absl::Hours(23));
  {
    const std::unique_ptr<Journal> journal = Open();
    Close(*journal, "young", "12345", JournalKeep::kResult);
    clock_.Advance(absl::Hours(2));
    journal->Flush();
    journal->Flush();
    EXPECT_THAT(kept(*journal), ElementsAre("young"));
  }
}

TEST_F(JournalTest, OldTasksGoAtOnceHoweverManyTheyAre) {
  {
    const std::unique_ptr<Journal> journal = Open();
    for (int i = 0; i < 1200; ++i) Close(*journal, absl::StrCat(i), "", JournalKeep::kNothing);
  }
  clock_.Advance(absl::Hours(25));
  const std::unique_ptr<Journal> journal = Open();
  journal->Accept(Task("new"), nullptr);
  EXPECT_TRUE(flowmesh::testing::Eventually([&] { return journal->stats().closed_tasks == 0; }));
}

TEST_F(JournalTest, WhatIsTooLargeGoesAtOnceHoweverFewTheyAre) {
  {
    const std::unique_ptr<Journal> journal = Open();
    for (int i = 0; i < 60; ++i) {
      Close(*journal, absl::StrCat(i), std::string(1000, 'r'), JournalKeep::kResult);
    }
  }
  const std::unique_ptr<Journal> journal = Open({.keep_bytes = 20'000});
  journal->Accept(Task("new"), nullptr);
  EXPECT_TRUE(flowmesh::testing::Eventually([&] { return journal->stats().closed_tasks <= 20; }));
}

TEST_F(JournalTest, AConcludedTaskIsFoundForAsLongAsItIsKept) {
  int64_t second = 0;
  {
    const std::unique_ptr<Journal> journal = Open({.keep_tasks = 3});
    Close(*journal, "again", "1", JournalKeep::kResult);
    second = Close(*journal, "again", "2", JournalKeep::kResult);
    EXPECT_EQ(Earlier(*journal, "again")->id, second);
    EXPECT_EQ(Earlier(*journal, "again")->task.fingerprint, "f");
    EXPECT_FALSE(Earlier(*journal, "unknown"));
    // Its end need not be told yet, only known.
    const int64_t untold = journal->Accept(Task("untold"), nullptr);
    EXPECT_FALSE(Earlier(*journal, "untold"));
    journal->Conclude(untold, "event", "why", JournalKeep::kDeath, nullptr);
    EXPECT_EQ(Earlier(*journal, "untold")->error, "why");
  }
  const std::unique_ptr<Journal> journal = Open({.keep_tasks = 3});
  EXPECT_EQ(Earlier(*journal, "again")->id, second);
  EXPECT_EQ(Earlier(*journal, "untold")->keep, JournalKeep::kDeath);
  for (int i = 0; i < 3; ++i) {
    Close(*journal, absl::StrCat("other", i), "3", JournalKeep::kResult);
    journal->Flush();
  }
  journal->Flush();
  EXPECT_FALSE(Earlier(*journal, "again"));
  EXPECT_TRUE(Earlier(*journal, "untold"));
  EXPECT_TRUE(Earlier(*journal, "other2"));
}

TEST_F(JournalTest, AMessageOfAConcludedRunIsNotWritten) {
  const std::unique_ptr<Journal> journal = Open();
  const int64_t id = journal->Accept(Task("t"), nullptr);
  journal->Conclude(id, "event", "", JournalKeep::kNothing, nullptr);
  journal->Announce(id);
  EXPECT_TRUE(absl::IsAlreadyExists(Accept(*journal, Task("t"))));
  JournalTask undated = Task("t");  // which tells no attempts apart
  undated.dispatched_at = "";
  EXPECT_TRUE(Accept(*journal, undated).ok());
  EXPECT_EQ(journal->stats().open_tasks, 1u);
  EXPECT_EQ(journal->OpenTasks().value().size(), 1u);
}

TEST_F(JournalTest, HoldsWorkTellsAnUnfinishedJournal) {
  EXPECT_FALSE(Journal::HoldsWork(file()));
  int64_t id = 0;
  {
    const std::unique_ptr<Journal> journal = Open();
    id = journal->Accept(Task("t"), nullptr);
  }
  EXPECT_TRUE(Journal::HoldsWork(file()));
  Open()->Forget(id);
  EXPECT_FALSE(Journal::HoldsWork(file()));
  ASSERT_TRUE(
      WriteFileAtomically(file(), "no database at all, but a text that is long enough").ok());
  EXPECT_FALSE(Journal::HoldsWork(file()));
}

TEST_F(JournalTest, AFullDiskRefusesWhatDoesNotFitAndKeepsTheRest) {
  const std::unique_ptr<Journal> journal = Open({.max_file_bytes = 256 << 10});
  const int64_t first = journal->Accept(Task("first"), nullptr);
  const absl::Status status = Accept(*journal, Task("large", std::string(1 << 20, 'x')));
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("journal: cannot write: database or disk is full"));
  EXPECT_EQ(journal->stats().open_tasks, 1u);
  EXPECT_EQ(journal->stats().failures, 1u);
  // In one commit with it, the others still get through.
  absl::Status small;
  absl::Notification done;
  journal->Accept(Task("large", std::string(1 << 20, 'x')), nullptr);
  journal->Finish(first, "end", "", [&](const absl::Status& s) {
    small = s;
    done.Notify();
  });
  done.WaitForNotification();
  EXPECT_TRUE(small.ok()) << small;
  EXPECT_EQ(journal->OpenTasks().value().size(), 1u);
  EXPECT_EQ(journal->OpenTasks().value()[0].end, "end");
}

TEST_F(JournalTest, AFileOfTheFirstVersionIsTakenOver) {
  Close(*Open(), "old", "result", JournalKeep::kResult);
  {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open(file().c_str(), &db), SQLITE_OK);
    const std::unique_ptr<sqlite3, int (*)(sqlite3*)> close(db, sqlite3_close);
    ASSERT_EQ(sqlite3_exec(db, "ALTER TABLE tasks DROP COLUMN task_dir; PRAGMA user_version=1",
                           nullptr, nullptr, nullptr),
              SQLITE_OK)
        << sqlite3_errmsg(db);
  }
  const std::unique_ptr<Journal> journal = Open();
  Close(*journal, "new", "result", JournalKeep::kResult);
  journal->Flush();
  const std::vector<JournalClosed> closed = journal->ClosedTasks(10).value();
  ASSERT_EQ(closed.size(), 2u);
  EXPECT_EQ(closed[0].task_dir, "");
  EXPECT_EQ(closed[1].task_dir, "/results/new");
}

TEST_F(JournalTest, AnotherVersionsFileAndADamagedOneSayWhatToDo) {
  Open();
  {
    std::fstream out(file(), std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(60);  // user_version, big-endian
    out.write("\0\0\0\x09", 4);
  }
  absl::Status status = Journal::Open(file(), {}, clock_).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("expected a file of version 2 at most, got version 9: a newer sidecar"));

  ASSERT_TRUE(WriteFileAtomically(file(), std::string(8192, 'x')).ok());
  status = Journal::Open(file(), {}, clock_).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("is damaged: move it and its -wal file away"));
}

TEST_F(JournalTest, ADamagedPageIsFoundAtStart) {
  {
    const std::unique_ptr<Journal> journal = Open();
    for (int i = 0; i < 200; ++i)
      journal->Accept(Task(absl::StrCat(i), std::string(500, 'd')), nullptr);
  }
  {
    std::fstream out(file(), std::ios::in | std::ios::out | std::ios::binary);
    for (int page = 3; page < 20; ++page) {
      out.seekp(page * 4096);
      out.write(std::string(64, '\xff').data(), 64);
    }
  }
  const absl::StatusOr<std::unique_ptr<Journal>> journal = Journal::Open(file(), {}, clock_);
  const absl::Status status = journal.ok() ? (*journal)->OpenTasks().status() : journal.status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("move it and its -wal file away"));
}

// Of results only the size is read before: a long one is damaged where nobody has looked.
TEST_F(JournalTest, ADamagedResultIsFoundWhenItIsRead) {
  {
    const std::unique_ptr<Journal> journal = Open();
    const int64_t id = journal->Accept(Task("t"), nullptr);
    journal->Finish(id, std::string(1 << 20, 'r'), "/results/t", nullptr);
  }
  std::string bytes = ReadFile(file()).value();
  // Pages of nothing but the result begin with the number of the next one: to nowhere.
  for (size_t page = 100; page < 110; ++page) {
    bytes.replace(page * 4096, 4, "\x7f\xff\xff\xff", 4);
  }
  ASSERT_TRUE(WriteFileAtomically(file(), bytes).ok());
  const std::unique_ptr<Journal> journal = Open();
  const absl::Status status = journal->OpenTasks().status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("move it and its -wal file away"));
}

// It holds task documents with the headers of their destinations (promise P19).
TEST_F(JournalTest, OnlyTheOwnerMayReadIt) {
  ASSERT_TRUE(WriteFileAtomically(file(), "").ok());  // for everybody, as an older version made it
  const std::unique_ptr<Journal> journal = Open();
  ASSERT_TRUE(Accept(*journal, Task("a")).ok());
  int files = 0;
  for (const std::filesystem::directory_entry& entry :
       std::filesystem::directory_iterator(dir_.path())) {
    EXPECT_EQ(entry.status().permissions(),
              std::filesystem::perms::owner_read | std::filesystem::perms::owner_write)
        << entry.path();
    ++files;
  }
  EXPECT_EQ(files, 2) << "the journal and its log";
}

TEST_F(JournalTest, AFolderThatCannotBeWrittenIsAnError) {
  const absl::Status status = Journal::Open(dir_ / "none/journal.db", {}, clock_).status();
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("none/journal.db"));
}

}  // namespace
}  // namespace flowmesh::sidecar
