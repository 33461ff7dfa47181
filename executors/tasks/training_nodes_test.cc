// A training whose ranks stand on several machines, which see folders of their own.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "executors/model/model_goldens.h"
#include "executors/parallel/test_ranks.h"
#include "executors/tasks/test_task.h"
#include "executors/tasks/training.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr char kResults[] = "FLOWMESH_TEST_RESULTS";

// Trains in `results`; `restarts`: of the group before.
std::string Train(const fs::path& results, const char* restarts, int steps) {
  TaskContext context;
  context.task_id = "T1";
  context.document = {
      {"task_id", "T1"},
      {"spec",
       {{"model", {{"source", {{"identifier", model::ModelGolden("llama").string()}}}}},
        {"data", {{"prompts", {"the small world", "and another"}}}},
        {"training",
         {{"max_steps", steps}, {"batch_size", 1}, {"num_train_epochs", 3}, {"save_steps", 2}}}}}};
  context.task_dir = results / "T1";
  context.results_dir = results;
  context.on_progress = [](const Progress&) {};
  context.on_log = [](LogLevel, const std::string&) {};
  context.is_stopped = [] { return false; };
  context.on_failure_record = [](const Json&) {};
  const auto outcome = RunSft(
      context, TrainingDevice(), [restarts](std::string_view name) -> std::optional<std::string> {
        return name == "TORCHELASTIC_RESTART_COUNT" ? restarts : SystemEnv()(name);
      });
  return outcome.ok() ? outcome->result["global_steps"].dump() : Message(outcome.status());
}

const parallel::RankFunctionRegistration kFunction = {
    "restarted", [](const parallel::GroupOptions& options) {
      return Train(fs::path(std::getenv(kResults)) / absl::StrCat(options.rank), "1", 5);
    }};

TEST(TrainingNodesTest, ARestartNeedsTheSameCheckpointOnAllMachines) {
  const TempDir folder;
  ::setenv(kResults, folder.path().c_str(), 1);
  ASSERT_EQ(Train(folder / "0", "0", 2), "2");
  for (const auto& [rank, end] : parallel::RunRanks("restarted", {.world_size = 2})) {
    EXPECT_THAT(end.output,
                HasSubstr("the last checkpoint of rank 1 is that of step 0, and that of "
                          "rank 0 of step 2: checkpoints must be on storage"))
        << rank;
  }
  fs::create_directory_symlink(folder / "0", folder / "1");
  for (const auto& [rank, end] : parallel::RunRanks("restarted", {.world_size = 2})) {
    EXPECT_EQ(end.output, "5") << rank;
  }
}

}  // namespace
}  // namespace flowmesh::tasks
