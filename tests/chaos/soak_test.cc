// The seeded soak (PROMISES.md): SOAK_SEED repeats a run, SOAK_TASKS sets its size.
#include "tests/chaos/soak.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <iostream>
#include <random>
#include <set>

namespace flowmesh::testing {
namespace {

constexpr int kTasks = 2000;

TEST(Soak, ASeedMakesOnePlan) {
  const std::string plan = MakeSoakPlan(7, kTasks).ToString();
  EXPECT_EQ(MakeSoakPlan(7, kTasks).ToString(), plan);
  EXPECT_NE(MakeSoakPlan(8, kTasks).ToString(), plan);
}

TEST(Soak, APlanHoldsEveryFaultAndEveryKindOfTask) {
  const SoakPlan plan = MakeSoakPlan(7, kTasks);
  EXPECT_EQ(plan.tasks.size(), size_t{kTasks});
  std::set<SoakFault::Kind> faults;
  int after = 0;
  for (const SoakFault& fault : plan.faults) {
    faults.insert(fault.kind);
    EXPECT_GE(fault.after_tasks, after);
    after = fault.after_tasks;
  }
  EXPECT_LE(after, kTasks);
  EXPECT_EQ(faults.size(), static_cast<size_t>(SoakFault::Kind::kCount));
  std::set<SoakTask::Kind> kinds;
  for (const SoakTask& task : plan.tasks) kinds.insert(task.kind);
  EXPECT_EQ(kinds.size(), 6u);
}

TEST(Soak, NothingIsLostAndNothingIsDoubled) {
  const char* seed = std::getenv("SOAK_SEED");
  const char* tasks = std::getenv("SOAK_TASKS");
  const SoakPlan plan =
      MakeSoakPlan(seed == nullptr ? std::random_device{}()
                                   : static_cast<uint32_t>(std::strtoul(seed, nullptr, 10)),
                   tasks == nullptr ? kTasks : std::atoi(tasks));
  std::cout << "seed " << plan.seed << std::endl;
  const SoakReport report = RunSoak(plan);
  std::cout << report.ToString() << std::endl;
  EXPECT_EQ(report.verdict, absl::OkStatus()) << plan.ToString();
}

}  // namespace
}  // namespace flowmesh::testing
