// Checkpoints: a disk that is full when one is written (a file may grow to a limit only), and what
// an earlier attempt has left.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include "executors/model/model_folder.h"
#include "executors/model/model_goldens.h"
#include "executors/tasks/test_task.h"
#include "executors/tasks/training.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

// While it lives, a write beyond `bytes` of a file fails (EFBIG) as one to a full disk does.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit = {.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  }
  ~FullDisk() {
    EXPECT_EQ(::setrlimit(RLIMIT_FSIZE, &before_), 0);
    ::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  sighandler_t handler_;
};

class TrainingFaultsTest : public TaskTest {
 protected:
  TrainingFaultsTest() {
    spec_ = {{"model", {{"source", {{"identifier", model::ModelGolden("llama").string()}}}}},
             {"data", {{"prompts", {"the small world", "and another"}}}},
             {"lora", {{"r", 2}}},
             {"training",
              {{"max_steps", 3}, {"batch_size", 1}, {"num_train_epochs", 2}, {"save_steps", 1}}}};
  }

  // Runs `task` on a disk that is full from the second step on, where that is `full`.
  template <typename Task>
  absl::StatusOr<TaskOutcome> Run(Task task, bool full) {
    std::optional<FullDisk> disk;
    TaskContext context = Context();
    progress_.clear();
    context.on_progress = [&](const Progress& progress) {
      progress_.push_back(progress);
      if (full && progress.stage == "training" && progress.done == 2) disk.emplace(2048);
    };
    return task(context, TrainingDevice(),
                [](std::string_view) -> std::optional<std::string> { return std::nullopt; });
  }
  fs::path Checkpoint(int step) {
    return dir_ / "T1/checkpoints" / ("checkpoint-" + std::to_string(step));
  }
};

TEST_F(TrainingFaultsTest, TheLastGoodCheckpointSurvivesAFullDisk) {
  const absl::Status status = Run(RunSft, /*full=*/true).status();
  EXPECT_THAT(Message(status), AllOf(HasSubstr("checkpoint-2"), HasSubstr("File too large")));
  EXPECT_EQ(failure_["error_message"], Message(status));
  EXPECT_EQ(failure_["dataset_size"], 2);
  // Of the second one nothing is left, and the first one is whole.
  int folders = 0;
  for ([[maybe_unused]] const auto& entry : fs::directory_iterator(dir_ / "T1/checkpoints")) {
    ++folders;
  }
  EXPECT_EQ(folders, 1);
  EXPECT_TRUE(fs::exists(Checkpoint(1) / "trainer_state.json"));
  EXPECT_FALSE(fs::exists(dir_ / "T1/final_model"));
  const auto loaded = model::LoadModel(Checkpoint(1), {.dtype = at::kFloat});
  EXPECT_TRUE(loaded.ok()) << loaded.status();
  // With room again the same task goes through.
  const auto outcome = Run(RunSft, /*full=*/false);
  ASSERT_TRUE(outcome.ok()) << outcome.status();
  EXPECT_TRUE(fs::exists(Checkpoint(3)));
  // Whoever watches sees what takes its time: checkpoints as parts of the training, then the model.
  std::vector<std::string> stages;
  for (const Progress& progress : progress_) {
    if (progress.stage == "saving checkpoint") {
      EXPECT_TRUE(progress.loss.has_value());
      EXPECT_EQ(progress.total, 3u);
    }
    if (stages.empty() || stages.back() != progress.stage) stages.push_back(progress.stage);
  }
  ASSERT_GE(stages.size(), 3u);
  EXPECT_THAT(std::vector<std::string>(stages.end() - 3, stages.end()),
              testing::ElementsAre("training", "saving checkpoint", "saving model"));
}

TEST_F(TrainingFaultsTest, CheckpointsOfAnEarlierAttemptAreNotThisOnes) {
  const auto run = [&](const Json& training) {
    spec_["training"].update(training);
    const auto outcome = Run(RunSft, /*full=*/false);
    EXPECT_TRUE(outcome.ok()) << outcome.status();
  };
  const auto steps = [&] {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(dir_ / "T1/checkpoints")) {
      names.push_back(entry.path().filename());
    }
    return names;
  };
  run({{"max_steps", 4}});
  EXPECT_THAT(steps(),
              UnorderedElementsAre("checkpoint-1", "checkpoint-2", "checkpoint-3", "checkpoint-4"));
  run({{"max_steps", 3}, {"save_total_limit", 1}});
  EXPECT_THAT(steps(), UnorderedElementsAre("checkpoint-3"));
  // Two steps an epoch, and the end.
  run({{"max_steps", nullptr},
       {"num_train_epochs", 2.5},
       {"save_strategy", "epoch"},
       {"save_total_limit", nullptr}});
  EXPECT_THAT(steps(), UnorderedElementsAre("checkpoint-2", "checkpoint-4", "checkpoint-5"));
  run({{"save_total_limit", 2}});
  EXPECT_THAT(steps(), UnorderedElementsAre("checkpoint-4", "checkpoint-5"));
  // What it begins with stays, and is none of its own.
  run({{"max_steps", 2},
       {"save_total_limit", 1},
       {"save_strategy", "steps"},
       {"resume_from_path", Checkpoint(5).string()}});
  EXPECT_THAT(steps(), UnorderedElementsAre("checkpoint-2", "checkpoint-5"));
}

TEST_F(TrainingFaultsTest, AnAdapterThatCannotBeSavedFailsItsTask) {
  spec_["training"]["save_strategy"] = false;  // what YAML makes of a plain `no`
  EXPECT_THAT(Message(Run(RunLoraSft, /*full=*/true).status()),
              AllOf(HasSubstr("final_lora"), HasSubstr("File too large")));
  EXPECT_FALSE(fs::exists(dir_ / "T1/final_lora"));
  EXPECT_TRUE(Run(RunLoraSft, /*full=*/false).ok());
}

}  // namespace
}  // namespace flowmesh::tasks
