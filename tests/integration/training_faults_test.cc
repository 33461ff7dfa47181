// Trainings that go wrong, through the whole line: each fails with its cause and its record in
// responses.json, leaves no process, and the executor serves the next task.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <cstring>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class TrainingFaultsTest : public ::testing::Test {
 protected:
  Json Spec() {
    return {{"taskType", "sft"},
            {"enforce_cpu", true},
            {"model", {{"source", {{"identifier", GoldenModel("llama").string()}}}}},
            {"data", {{"prompts", {"one text", "another text", "a third one", "and the last"}}}},
            {"training", {{"max_steps", 1}, {"batch_size", 1}}}};
  }
  // Two ranks for so many steps that there is time to disturb them.
  Json LongSpec() {
    Json spec = Spec();
    spec["training"] = {{"max_steps", 120},      {"num_train_epochs", 60},  {"batch_size", 1},
                        {"learning_rate", 1e-3}, {"save_steps", 20},        {"bf16", false},
                        {"nproc_per_node", 2},   {"allow_multi_gpu", true}, {"logging_steps", 40},
                        {"save_total_limit", 2}};
    return spec;
  }

  Json EndOf(const std::string& id) {
    const auto end = line_.events().WaitForTerminal(id, absl::Seconds(60));
    EXPECT_TRUE(end) << id;
    return end.value_or(Json::object());
  }
  void ExpectDone(const std::string& id) {
    const Json end = EndOf(id);
    EXPECT_EQ(end["type"], "TASK_SUCCEEDED") << DumpJson(end);
  }
  // The error of a task that fails, which its record holds too.
  std::string ErrorOf(const std::string& id) {
    const Json end = EndOf(id);
    EXPECT_EQ(end["type"], "TASK_FAILED") << DumpJson(end);
    const Json record = line_.ResultFile(id);
    EXPECT_EQ(record["task_id"], id);
    EXPECT_EQ(record["training_successful"], false);
    EXPECT_GE(record["training_time_seconds"], 0.0);
    EXPECT_TRUE(record["model_name"].is_string());
    EXPECT_TRUE(record["dataset_size"].is_number_integer());
    EXPECT_EQ(record["output_dir"], (line_.results() / id).string());
    EXPECT_EQ(record["checkpoints_dir"], (line_.results() / id / "checkpoints").string());
    EXPECT_TRUE(record.contains("resume_from_path"));
    EXPECT_THAT(end["error"].get<std::string>(), HasSubstr(record["error_message"]));
    return record["error_message"];
  }
  std::string ErrorOf(const Json& spec) { return ErrorOf(line_.Dispatch(spec)); }

  // Kills rank 1 once the task has the checkpoint of step 20; the pids of its ranks.
  std::vector<pid_t> KillARankOf(const std::string& id) {
    const fs::path checkpoint = line_.results() / id / "checkpoints/checkpoint-20";
    EXPECT_TRUE(Eventually([&] { return fs::exists(checkpoint); }, absl::Seconds(30)));
    const std::vector<pid_t> ranks = line_.executor("e0").Children();
    EXPECT_EQ(ranks.size(), 2u);
    for (const pid_t rank : ranks) {
      const std::string env = ReadFile(absl::StrCat("/proc/", rank, "/environ")).value_or("");
      if (absl::StrContains(env, std::string("\0RANK=1\0", 8))) {
        EXPECT_EQ(::kill(rank, SIGKILL), 0);
      }
    }
    return ranks;
  }

  // A training whose rank 1 is killed goes on from its last checkpoint, to the same end; its log
  // says `stage`.
  void ExpectToGoOn(Json spec, const std::string& stage) {
    const std::string calm = line_.Dispatch(spec);
    ExpectDone(calm);
    spec["training"]["max_restarts"] = 1;
    const std::string killed = line_.Dispatch(spec);
    KillARankOf(killed);
    ExpectDone(killed);
    const std::string log = ReadFile(line_.results() / killed / "logs/task.log").value();
    EXPECT_THAT(log, HasSubstr("start 1 of at most 1 anew, from the last checkpoint, after: rank 1 "
                               "died: signal 9 (Killed)"));
    EXPECT_THAT(log, AllOf(HasSubstr("restart 1: going on after step "), HasSubstr(stage)));
    const Json want = line_.ResultFile(calm), got = line_.ResultFile(killed);
    for (const char* key : {"train_loss", "train_loss_final", "global_steps", "num_tokens"}) {
      EXPECT_EQ(got[key], want[key]) << key;
    }
    const auto weights = [&](const std::string& id) {
      return ReadFile(line_.results() / id / "final_model/model.safetensors").value();
    };
    EXPECT_TRUE(weights(killed) == weights(calm));
    EXPECT_THAT(line_.executor("e0").Children(), IsEmpty());
  }

  std::string Write(const std::string& name, const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(line_.dir() / name, text).ok());
    return line_.dir() / name;
  }

  Line line_;
};

TEST_F(TrainingFaultsTest, ARankThatIsKilledGoesOnFromTheLastCheckpointWithTheSameResult) {
  ExpectToGoOn(LongSpec(), "ZeRO stage 2");
}

// No rank has all weights: those of the checkpoint come from both, and the other one waits for the
// dead one's in the midst of a pass.
TEST_F(TrainingFaultsTest, SoItDoesWhereWeightsAreShared) {
  Json spec = LongSpec();
  spec["training"]["auto_deepspeed_stage"] = 3;
  ExpectToGoOn(spec, "ZeRO stage 3");
}

TEST_F(TrainingFaultsTest, ARankThatIsKilledFailsItsTaskWithRankAndSignal) {
  const std::string id = line_.Dispatch(LongSpec());
  const std::vector<pid_t> ranks = KillARankOf(id);
  EXPECT_THAT(ErrorOf(id), HasSubstr("rank 1 died: signal 9 (Killed)"));
  for (const pid_t rank : ranks) EXPECT_NE(::kill(rank, 0), 0) << "rank " << rank << " lives";
  EXPECT_THAT(line_.executor("e0").Children(), IsEmpty());
  EXPECT_TRUE(fs::exists(line_.results() / id / "checkpoints/checkpoint-20"));
  ExpectDone(line_.Dispatch(Spec()));
}

TEST_F(TrainingFaultsTest, DataThatCannotBeTrainedOn) {
  const auto with_file = [&](const std::string& path, const Json& more = Json::object()) {
    Json spec = Spec();
    spec["data"] = {{"jsonl", {{"path", path}}}};
    spec["data"]["jsonl"].update(more);
    return spec;
  };
  EXPECT_THAT(
      ErrorOf(with_file(Write("empty.jsonl", "\n\n"))),
      AllOf(HasSubstr("spec.data.jsonl"), HasSubstr("expected at least one row, got none")));
  EXPECT_EQ(ErrorOf(with_file(Write("rows.jsonl", "{\"text\": \"a\"}\n{\"body\": \"b\"}\n"))),
            "spec.data.jsonl.text_field: line 2 of rows.jsonl has no 'text'; it has: body");
  EXPECT_THAT(ErrorOf(with_file(Write("cut.jsonl", "{\"text\": \"a\"}\n{\"text\": \"b\"}\n{\"te"))),
              AllOf(HasSubstr("spec.data.jsonl.path: "), HasSubstr("line 3")));
  EXPECT_THAT(ErrorOf(with_file("/no/such.jsonl")),
              AllOf(HasSubstr("spec.data.jsonl.path: "), HasSubstr("no such file")));
  Json set = Spec();
  set["data"] = {{"dataset_name", Write("set.csv", "question,answer\na,b\n")}};
  EXPECT_EQ(ErrorOf(set),
            "spec.data.text_field: column 'text' not found; columns are: question, answer");
  set["data"]["split"] = "train[:0]";
  EXPECT_THAT(ErrorOf(set), HasSubstr("spec.data"));
  ExpectDone(line_.Dispatch(Spec()));
}

TEST_F(TrainingFaultsTest, AdaptersPlansAndModelsThatCannotBe) {
  Json lora = Spec();
  lora["taskType"] = "lora_sft";
  lora["lora"] = {{"target_modules", {"query"}}};
  EXPECT_THAT(ErrorOf(lora), AllOf(HasSubstr("spec.lora.target_modules: "), HasSubstr("query"),
                                   HasSubstr("q_proj"), HasSubstr("down_proj")));
  Json plan = Spec();
  plan["training"]["nproc_per_node"] = 0;
  EXPECT_EQ(ErrorOf(plan),
            "spec.training.nproc_per_node: expected an integer from 1 to 1024, got 0");
  Json model = Spec();
  model["model"]["source"]["identifier"] = "/no/such/model";
  EXPECT_THAT(ErrorOf(model), HasSubstr("/no/such/model"));
  ExpectDone(line_.Dispatch(Spec()));
}

// Puts infinity in the place of a tensor's first value.
void Spoil(const fs::path& file, const std::string& tensor) {
  std::string bytes = ReadFile(file).value();
  uint64_t header_size = 0;
  std::memcpy(&header_size, bytes.data(), sizeof(header_size));
  const Json header = ParseJson(bytes.substr(8, header_size)).value();
  const std::string infinity = header[tensor]["dtype"] == "F32"    ? std::string("\0\0\x80\x7f", 4)
                               : header[tensor]["dtype"] == "BF16" ? "\x80\x7f"
                                                                   : std::string("\0\x7c", 2);
  const size_t place = 8 + header_size + header[tensor]["data_offsets"][0].get<size_t>();
  bytes.replace(place, infinity.size(), infinity);
  fs::permissions(file, fs::perms::owner_write, fs::perm_options::add);
  ASSERT_TRUE(WriteFileAtomically(file, bytes).ok());
}

TEST_F(TrainingFaultsTest, ALossThatIsNotFinite) {
  const fs::path model = line_.dir() / "model";
  fs::copy(GoldenModel("llama"), model);
  Spoil(model / "model.safetensors", "model.norm.weight");
  for (const char* type : {"sft", "lora_sft", "dpo"}) {
    Json spec = Spec();
    spec["taskType"] = type;
    spec["model"]["source"]["identifier"] = model.string();
    if (spec["taskType"] == "dpo") {
      spec["data"] = {{"preferences", {{{"prompt", "a"}, {"chosen", "b"}, {"rejected", "c"}}}}};
    }
    EXPECT_THAT(ErrorOf(spec), AllOf(HasSubstr("step 1"), HasSubstr("not finite"))) << type;
  }
  ExpectDone(line_.Dispatch(Spec()));
}

}  // namespace
}  // namespace flowmesh::testing
