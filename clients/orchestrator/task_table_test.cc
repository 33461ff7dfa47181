#include "clients/orchestrator/task_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::orchestrator {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TaskTableTest : public ::testing::Test {
 protected:
  std::vector<std::string> Add(const char* document) {
    return table_.Add(PlanSubmission(ParseJson(document).value()).value(), "yaml", Now()).value();
  }
  std::string AddEcho() { return Add(R"({"spec":{"taskType":"echo"}})").front(); }
  std::string AddInference(const char* prompt) {
    Json document = {{"spec", {{"taskType", "inference"}, {"data", prompt}}}};
    return Add(DumpJson(document).c_str()).front();
  }

  absl::Time Now() { return now_ += absl::Seconds(1); }

  void Dispatch(const std::string& id, const std::string& worker,
                const std::vector<std::string>& children = {}) {
    table_.Take(id, children);
    table_.MarkDispatched(id, worker, children, Now());
  }

  std::vector<std::string> Ready() const {
    std::vector<std::string> ids;
    for (size_t i = 0; i < table_.ready_count(); ++i) ids.push_back(table_.ReadyAt(i).task_id);
    return ids;
  }

  const TaskRecord& Record(const std::string& id) const { return *table_.Find(id); }
  std::string_view Status(const std::string& id) const { return TaskStatusName(Record(id).status); }

  absl::Time now_ = absl::FromUnixSeconds(1762160400);
  TaskTable table_;
};

TEST_F(TaskTableTest, ReadyTasksAreFirstInFirstOut) {
  const std::string a = AddEcho();
  const std::string b = AddEcho();
  EXPECT_THAT(Ready(), ElementsAre(a, b));
  Dispatch(a, "w");
  EXPECT_THAT(Ready(), ElementsAre(b));
  EXPECT_EQ(Status(a), "DISPATCHED");
  EXPECT_EQ(Record(a).assigned_worker, "w");
  EXPECT_THAT(table_.DispatchedTo("w"), ElementsAre(a));
}

TEST_F(TaskTableTest, DependentsAreReleasedWhenAllDependenciesAreDone) {
  const auto ids = Add(R"({"spec":{"graph":{"nodes":[{"name":"a"},{"name":"b"},
                           {"name":"c","dependsOn":["a","b"]}]}}})");
  EXPECT_THAT(Ready(), ElementsAre(ids[0], ids[1]));
  EXPECT_THAT(table_.DependenciesLeft(Record(ids[2])), ElementsAre(ids[0], ids[1]));
  Dispatch(ids[0], "w");
  table_.Succeeded(ids[0], Now());
  EXPECT_THAT(Ready(), ElementsAre(ids[1]));
  Dispatch(ids[1], "w");
  table_.Succeeded(ids[1], Now());
  EXPECT_THAT(Ready(), ElementsAre(ids[2]));
  EXPECT_THAT(Record(ids[0]).dependents, ElementsAre(ids[2]));
  EXPECT_EQ(Record(ids[0]).submission_id, Record(ids[2]).submission_id);
}

TEST_F(TaskTableTest, ADependencyOnADoneTaskIsMetAtOnce) {
  const std::string a = AddEcho();
  Dispatch(a, "w");
  table_.Succeeded(a, Now());
  const Json document = {{"spec", {{"dependsOn", {a}}}}};
  const auto ids = Add(DumpJson(document).c_str());
  EXPECT_THAT(Ready(), ElementsAre(ids[0]));
}

TEST_F(TaskTableTest, UnknownAndFailedDependenciesRegisterNothing) {
  const auto add = [&](const std::string& id) {
    const Json document = {
        {"spec", {{"stages", {{{"name", "x"}}, {{"name", "y"}, {"dependsOn", {id}}}}}}}};
    return table_.Add(PlanSubmission(document).value(), "", Now()).status();
  };
  EXPECT_THAT(Message(add("nobody")), HasSubstr("of \"y\": expected a name of this submission"));
  const std::string failed = AddEcho();
  table_.Fail(failed, "broken", Now());
  EXPECT_THAT(Message(add(failed)), HasSubstr("has failed"));
  EXPECT_EQ(table_.All().size(), 1u);
}

TEST_F(TaskTableTest, TheThirdFailureIsFinalAndFailsEverythingBehind) {
  const auto ids = Add(R"({"spec":{"stages":[{},{},{}]}})");
  const std::string other = AddEcho();
  for (const char* worker : {"w", "v"}) {
    Dispatch(ids[0], worker);
    table_.AttemptFailed(ids[0], worker, "broken", Now());
    EXPECT_EQ(Status(ids[0]), "PENDING");
    EXPECT_EQ(Record(ids[0]).last_failed_worker, worker);
    EXPECT_EQ(Record(ids[0]).assigned_worker, "");
    EXPECT_THAT(Ready(), ElementsAre(ids[0], other));  // at the front
  }
  Dispatch(ids[0], "w");
  table_.AttemptFailed(ids[0], "w", "broken", Now());
  EXPECT_EQ(Status(ids[0]), "FAILED");
  EXPECT_EQ(Record(ids[0]).error, "max_attempts_exceeded");
  EXPECT_EQ(Record(ids[0]).attempts, 3);
  EXPECT_EQ(Record(ids[1]).error, "Dependency " + ids[0] + " failed");
  EXPECT_EQ(Record(ids[2]).error, "Dependency " + ids[1] + " failed");
  EXPECT_THAT(Ready(), ElementsAre(other));
  EXPECT_EQ(table_.counters().failed, 3);
  EXPECT_EQ(table_.counters().requeued, 2);
}

TEST_F(TaskTableTest, NothingMovesAFinishedTask) {
  const std::string id = AddEcho();
  Dispatch(id, "w");
  table_.Succeeded(id, Now());
  const auto finished = Record(id).finished_at;
  table_.AttemptFailed(id, "w", "broken", Now());
  table_.Fail(id, "late", Now());
  table_.Started(id, "v", Now());
  EXPECT_THAT(table_.Succeeded(id, Now()), IsEmpty());
  EXPECT_EQ(Status(id), "DONE");
  EXPECT_EQ(Record(id).assigned_worker, "w");
  EXPECT_EQ(Record(id).finished_at, finished);
  EXPECT_EQ(table_.counters().succeeded, 1);
  table_.Started("nobody", "w", Now());
  table_.AttemptFailed("nobody", "w", "broken", Now());
}

TEST_F(TaskTableTest, ALateSuccessOfARequeuedTaskIsTaken) {
  const std::string id = AddEcho();
  Dispatch(id, "w");
  table_.AttemptFailed(id, "w", "broken", Now());
  table_.Succeeded(id, Now());
  EXPECT_EQ(Status(id), "DONE");
  EXPECT_THAT(Ready(), IsEmpty());
}

// The dispatcher renders without the lock.
TEST_F(TaskTableTest, WhatAnEventHasMovedIsNotTaken) {
  const std::string p = AddInference("p");
  const std::string c1 = AddInference("c1");
  const std::string c2 = AddInference("c2");
  table_.Succeeded(c2, Now());
  EXPECT_FALSE(table_.Take(p, {c1, c2}));
  EXPECT_THAT(Ready(), ElementsAre(p, c1));
  EXPECT_THAT(Record(p).merged_children, IsEmpty());
  table_.Succeeded(p, Now());
  EXPECT_FALSE(table_.Take(p, {c1}));
  EXPECT_EQ(Record(c1).merged_parent_id, "");
  EXPECT_TRUE(table_.Take(c1, {}));
}

TEST_F(TaskTableTest, OnlyTheHolderCanFailATask) {
  const std::string id = AddEcho();
  EXPECT_FALSE(table_.IsRunningOn(Record(id), "w"));
  Dispatch(id, "w");
  EXPECT_TRUE(table_.IsRunningOn(Record(id), "w"));
  EXPECT_FALSE(table_.IsRunningOn(Record(id), "v"));
}

TEST_F(TaskTableTest, MergedChildrenTravelUnderTheirParent) {
  const std::string p = AddInference("p");
  const std::string c1 = AddInference("c1");
  const std::string echo = AddEcho();
  const std::string c2 = AddInference("c2");
  EXPECT_THAT(table_.MergeSiblings(p), ElementsAre(c1, c2));
  EXPECT_THAT(table_.MergeSiblings(echo), IsEmpty());
  Dispatch(p, "w", {c1, c2});
  EXPECT_THAT(Ready(), ElementsAre(echo));
  EXPECT_EQ(Status(c1), "DISPATCHED");
  EXPECT_EQ(Record(c1).merged_parent_id, p);
  EXPECT_THAT(table_.DispatchedTo("w"), ElementsAre(p));
  EXPECT_THAT(table_.Succeeded(p, Now()), ElementsAre(c1, c2));
  table_.Succeeded(c1, Now());
  table_.Fail(c2, "no result", Now());
  EXPECT_EQ(Status(c1), "DONE");
  EXPECT_EQ(Status(c2), "FAILED");
}

TEST_F(TaskTableTest, AFailedParentReleasesItsChildrenBeforeItself) {
  const std::string p = AddInference("p");
  const std::string c1 = AddInference("c1");
  const std::string c2 = AddInference("c2");
  const std::string last = AddEcho();
  Dispatch(p, "w", {c1, c2});
  table_.AttemptFailed(p, "w", "broken", Now());
  EXPECT_THAT(Ready(), ElementsAre(c1, c2, p, last));
  EXPECT_EQ(Record(c1).attempts, 0);
  EXPECT_EQ(Record(c1).last_failed_worker, "");
  EXPECT_EQ(Record(c1).merged_parent_id, "");
  EXPECT_THAT(Record(p).merged_children, IsEmpty());
}

TEST_F(TaskTableTest, ChildrenOutliveAParentThatFailsForGood) {
  const std::string p = AddInference("p");
  const std::string c = AddInference("c");
  for (int i = 0; i < 3; ++i) {
    Dispatch(p, "w", {c});
    table_.AttemptFailed(p, "w", "broken", Now());
  }
  EXPECT_EQ(Status(p), "FAILED");
  EXPECT_EQ(Status(c), "PENDING");
  EXPECT_THAT(Ready(), ElementsAre(c));
}

// The reference marks a record after PUBLISH has returned; the worker may be done by then.
TEST_F(TaskTableTest, AMarkThatComesLateOverwritesDone) {
  const std::string id = AddEcho();
  table_.Take(id, {});
  EXPECT_TRUE(table_.IsRunningOn(Record(id), "w"));
  table_.Started(id, "w", Now());
  table_.Succeeded(id, Now());
  table_.MarkDispatched(id, "w", {}, Now());
  EXPECT_EQ(Status(id), "DISPATCHED");
}

TEST_F(TaskTableTest, RecordsShowEveryField) {
  const auto ids = Add(R"({"spec":{"taskType":"SFT","resources":{"estimatedLoad":"3"},
                           "stages":[{"name":"a"},{"name":"b","spec":{"taskType":"rag"}}]}})");
  Json record = RecordToJson(Record(ids[1]), table_.DependenciesLeft(Record(ids[1])));
  EXPECT_EQ(record["status"], "PENDING");
  EXPECT_EQ(record["category"], "other");
  EXPECT_EQ(record["graph_node_name"], "b");
  EXPECT_EQ(record["load"], 3);
  EXPECT_EQ(record["raw_yaml"], "yaml");
  EXPECT_EQ(record["topic"], nullptr);
  EXPECT_EQ(record["pending_dependencies"], Json({ids[0]}));
  EXPECT_EQ(record["finished_ts"], nullptr);
  EXPECT_EQ(record["submitted_ts"], 1762160401.0);
  Dispatch(ids[0], "w");
  table_.Started(ids[0], "w", Now());
  table_.Succeeded(ids[0], Now());
  record = RecordToJson(Record(ids[0]), {});
  EXPECT_EQ(record["category"], "training");
  EXPECT_EQ(record["topic"], "tasks");
  EXPECT_EQ(record["dependents"], Json({ids[1]}));
  EXPECT_EQ(record["completed"], true);
  EXPECT_EQ(record["failed"], false);
  EXPECT_EQ(record["started_ts"], 1762160403.0);
  const Json submitted = SubmittedToJson(Record(ids[1]), {});
  EXPECT_EQ(submitted["depends_on"], Json({ids[0]}));
  EXPECT_EQ(submitted["max_attempts"], 3);
}

}  // namespace
}  // namespace flowmesh::orchestrator
