#include "executors/train/state.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/ops/empty.h>

#include <mutex>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/files.h"
#include "executors/model/safetensors.h"
#include "executors/model/safetensors_writer.h"

namespace flowmesh::train {
namespace {

constexpr char kStateFile[] = "trainer_state.json";
constexpr char kTensorsFile[] = "training_state.safetensors";
constexpr char kRandom[] = "random";

struct Part {
  const char* prefix;
  at::Tensor WeightShard::*tensor;
};
constexpr Part kParts[] = {{"master.", &WeightShard::master},
                           {"exp_avg.", &WeightShard::exp_avg},
                           {"exp_avg_sq.", &WeightShard::exp_avg_sq}};

at::Device DeviceOf(TrainedWeights& weights) { return weights.shards()[0].master.device(); }

// What dropout draws from.
at::Generator GeneratorOf(TrainedWeights& weights) {
  return at::globalContext().defaultGenerator(DeviceOf(weights));
}

// The generators' states of all ranks: [ranks, bytes].
absl::StatusOr<at::Tensor> CollectRandom(TrainedWeights& weights, parallel::ProcessGroup& group) {
  at::Generator generator = GeneratorOf(weights);
  at::Tensor own;
  {
    const std::lock_guard<std::mutex> lock(generator.mutex());
    own = generator.get_state();
  }
  if (group.world_size() == 1) return own.unsqueeze(0);
  own = own.to(DeviceOf(weights));
  at::Tensor all = at::empty({group.world_size() * own.numel()}, own.options());
  RETURN_IF_ERROR(group.AllGather(all, own).Wait());
  return all.view({group.world_size(), -1}).to(at::kCPU);
}

void RestoreRandom(const at::Tensor& states, TrainedWeights& weights,
                   const parallel::ProcessGroup& group) {
  if (states.size(0) != group.world_size()) return;
  at::Generator generator = GeneratorOf(weights);
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(states[group.rank()].clone());  // it reads from the storage's begin
}

absl::StatusOr<TrainerState> ParseState(const Field& root, AdamW& optimizer) {
  TrainerState state;
  ASSIGN_OR_RETURN(state.step, root["global_step"].Int(0));
  ASSIGN_OR_RETURN(state.epoch, root["epoch"].Number());
  ASSIGN_OR_RETURN(state.tokens, root["num_tokens"].Int(0));
  ASSIGN_OR_RETURN(state.loss_sum, root["loss_sum"].Number());
  ASSIGN_OR_RETURN(state.last_loss, root["last_loss"].Number());
  ASSIGN_OR_RETURN(state.loss_scale, root["loss_scale"].Number());
  ASSIGN_OR_RETURN(state.good_steps, root["good_steps"].Int(0));
  ASSIGN_OR_RETURN(const int64_t steps, root["optimizer_steps"].Int(0));
  optimizer.set_steps(steps);
  const Field window = root["window"];
  ASSIGN_OR_RETURN(state.window.loss, window["loss"].Number());
  ASSIGN_OR_RETURN(state.window.steps, window["steps"].Int(0));
  ASSIGN_OR_RETURN(state.window.passes, window["passes"].Int(0));
  ASSIGN_OR_RETURN(state.window.learning_rate, window["learning_rate"].Number());
  ASSIGN_OR_RETURN(state.window.grad_norm, window["grad_norm"].Number());
  RETURN_IF_ERROR(window["metrics"].CheckMap());
  for (const auto& [name, sum] : window["metrics"].json().items()) {
    ASSIGN_OR_RETURN(state.window.metrics[name], window["metrics"][name].Number());
  }
  RETURN_IF_ERROR(root["log_history"].CheckList());
  for (const Json& line : root["log_history"].json()) state.log.push_back(line);
  return state;
}

}  // namespace

absl::Status WriteState(const std::filesystem::path& folder, const TrainerState& state,
                        const AdamW& optimizer, TrainedWeights& weights,
                        parallel::ProcessGroup& group) {
  std::vector<model::NamedTensor> tensors;
  for (const Part& part : kParts) {
    ASSIGN_OR_RETURN(const auto named,
                     weights.Collect([&](WeightShard& shard) { return shard.*part.tensor; }));
    for (const TrainedWeights::Named& one : named) {
      tensors.push_back({part.prefix + one.name, one.tensor});
    }
  }
  ASSIGN_OR_RETURN(at::Tensor random, CollectRandom(weights, group));
  if (group.rank() != 0) return absl::OkStatus();
  tensors.push_back({kRandom, std::move(random)});
  RETURN_IF_ERROR(model::WriteSafetensors(folder / kTensorsFile, tensors));
  const MetricsWindow& window = state.window;
  const Json document = {{"global_step", state.step},
                         {"epoch", state.epoch},
                         {"num_tokens", state.tokens},
                         {"loss_sum", state.loss_sum},
                         {"last_loss", state.last_loss},
                         {"loss_scale", state.loss_scale},
                         {"good_steps", state.good_steps},
                         {"optimizer_steps", optimizer.steps()},
                         {"log_history", state.log},
                         {"window",
                          {{"loss", window.loss},
                           {"steps", window.steps},
                           {"passes", window.passes},
                           {"metrics", Json(window.metrics)},
                           {"learning_rate", window.learning_rate},
                           {"grad_norm", window.grad_norm}}}};
  return WriteFileAtomically(folder / kStateFile, DumpJson(document, 2) + "\n");
}

absl::StatusOr<TrainerState> ReadState(const std::filesystem::path& folder, AdamW& optimizer,
                                       TrainedWeights& weights, parallel::ProcessGroup& group) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(folder / kStateFile));
  const absl::StatusOr<Json> document = ParseJson(text);
  if (!document.ok()) return Annotate(document.status(), (folder / kStateFile).string());
  auto state = ParseState(Field(&*document, ""), optimizer);
  if (!state.ok()) return Annotate(state.status(), (folder / kStateFile).string());
  ASSIGN_OR_RETURN(const auto file, model::Safetensors::OpenFile(folder / kTensorsFile));
  for (const Part& part : kParts) {
    at::Tensor found;
    const absl::Status placed = weights.Distribute(
        [&](const std::string& name) -> const at::Tensor* {
          const model::SafetensorsTensor* tensor = file->Find(part.prefix + name);
          if (tensor == nullptr) return nullptr;
          found = tensor->Copy();
          return &found;
        },
        [&](WeightShard& shard) { return shard.*part.tensor; });
    if (!placed.ok()) return Annotate(placed, (folder / kTensorsFile).string());
  }
  if (const model::SafetensorsTensor* random = file->Find(kRandom)) {
    RestoreRandom(random->Copy(), weights, group);
  }
  RETURN_IF_ERROR(weights.RefreshCompute());
  return state;
}

}  // namespace flowmesh::train
