// Training of a model by this project's trainer; peer_trl.py is its peer, on the same rows. Prints
// name<TAB>value: unpadded tokens per second over the steps after the first (ppo: seconds of an
// update after the first), the last loss, and peak memory in MB.
//
// As one of several ranks (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT), whose figures rank 0
// prints: besides, the seconds of a step in which it waited for others, and those that a step's
// exchanges take by themselves. FLOWMESH_BENCH_ZERO_STAGE: how the weights are sharded (0).
//
//   train_bench MODEL sft|lora|dpo|ppo ROWS LENGTH BATCH STEPS THREADS fp32|bf16 [packed LENGTH]
//
// On the CPU, or on the rank's GPU with FLOWMESH_BENCH_DEVICE=cuda; memory is that of the device.
//
// LENGTH: of each row, in tokens; or `8-256` (sft only): log-uniform between the two.
#include <ATen/Parallel.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <sys/resource.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "executors/device/allocator.h"
#include "executors/device/cuda_library.h"
#include "executors/engine/engine.h"
#include "executors/model/checkpoint.h"
#include "executors/train/dpo.h"
#include "executors/train/lora.h"
#include "executors/train/model_weights.h"
#include "executors/train/packing.h"
#include "executors/train/ppo.h"
#include "executors/train/recompute.h"
#include "executors/train/sft.h"

namespace flowmesh::train {
namespace {

struct Arguments {
  std::string model, method;
  int64_t rows, shortest, length, batch, steps;
  at::ScalarType dtype;
  int64_t packed_length;  // 0: not packed
  int zero_stage;
};

// Row i of the data; peer_trl.py makes the same.
Ids Row(int64_t i, int64_t length) {
  Ids ids;
  for (int64_t j = 0; j < length; ++j) {
    ids.push_back(static_cast<text::TokenId>(1000 + (i * 7919 + j * 104729) % 50000));
  }
  return ids;
}

// Of row i; peer_trl.py has the same.
int64_t LengthOf(const Arguments& a, int64_t i) {
  const double place = std::fmod(static_cast<double>(i) * 0.6180339887, 1.0);
  return std::llround(static_cast<double>(a.shortest) *
                      std::pow(static_cast<double>(a.length) / a.shortest, place));
}

std::vector<SftRow> SftRows(const Arguments& a) {
  std::vector<int64_t> lengths;
  for (int64_t i = 0; i < a.rows; ++i) lengths.push_back(LengthOf(a, i));
  std::vector<SftRow> rows;
  if (a.packed_length == 0) {
    for (int64_t i = 0; i < a.rows; ++i) rows.push_back({Row(i, lengths[i])});
    return rows;
  }
  for (const auto& packed : PackBestFit(lengths, a.packed_length)) {
    SftRow& row = rows.emplace_back();
    for (const int64_t i : packed) row.push_back(Row(i, lengths[i]));
  }
  return rows;
}

// Half prompt, half answer.
std::vector<PreferencePair> Pairs(const Arguments& a) {
  std::vector<PreferencePair> pairs;
  for (int64_t i = 0; i < a.rows; ++i) {
    Ids chosen = Row(i, a.length), rejected = Row(i, a.length / 2);
    const Ids other = Row(i + a.rows, a.length - a.length / 2);
    rejected.insert(rejected.end(), other.begin(), other.end());
    pairs.push_back({{std::move(chosen), a.length / 2}, {std::move(rejected), a.length / 2}});
  }
  return pairs;
}

at::Device Device() {
  const char* device = std::getenv("FLOWMESH_BENCH_DEVICE");
  if (device == nullptr || std::string_view(device) != "cuda") return at::kCPU;
  const char* rank = std::getenv("LOCAL_RANK");
  return {at::kCUDA, static_cast<at::DeviceIndex>(rank == nullptr ? 0 : std::atoi(rank))};
}

double PeakMegabytes() {
  if (Device().is_cuda()) {
    const auto stats = at::getDeviceAllocator(at::kCUDA)->getDeviceStats(Device().index());
    return static_cast<double>(stats.allocated_bytes[0].peak) / (1 << 20);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// Callbacks that note when the first step has ended, and after how many tokens.
struct Stopwatch {
  explicit Stopwatch(parallel::ProcessGroup* g) : group(g) {}

  parallel::ProcessGroup* const group;
  double begin = 0;
  absl::Duration waited_before;
  int64_t tokens = 0;

  TrainerCallbacks Callbacks() {
    return {.is_stopped = [] { return false; },
            .on_line = [](const Json&) { return absl::OkStatus(); },
            .on_step =
                [this](const TrainerState& state, int64_t, double) {
                  if (state.step > 1) return;
                  begin = MonotonicSeconds();
                  waited_before = group->waited();
                  tokens = state.tokens;
                },
            .wants_checkpoint = [](const TrainerState&, int64_t) { return false; },
            .save_checkpoint = [](const TrainerState&) { return absl::OkStatus(); }};
  }
  double seconds() const { return MonotonicSeconds() - begin; }
  double waited() const { return absl::ToDoubleSeconds(group->waited() - waited_before); }
};

// What a step's exchanges take when nothing runs beside them: of gradients and, from stage 1 on, of
// weights, in stage 3 for the forward and the backward pass.
double ExchangeSeconds(int zero_stage, TrainedWeights& weights, parallel::ProcessGroup& group) {
  if (group.world_size() == 1) return 0;
  const int gathers = zero_stage == 0 ? 0 : zero_stage == 3 ? 2 : 1;
  double seconds = 0;
  for (const WeightShard& shard : weights.shards()) {
    const at::Tensor piece = at::zeros_like(shard.master);
    const at::Tensor whole =
        at::zeros({piece.numel() * (zero_stage > 0 ? group.world_size() : 1)}, piece.options());
    absl::Status status = group.Barrier();
    const double begin = MonotonicSeconds();
    status.Update(zero_stage < 2 ? group.AllReduceSum(whole).Wait()
                                 : group.ReduceScatterSum(piece, whole).Wait());
    for (int i = 0; i < gathers; ++i) status.Update(group.AllGather(whole, piece).Wait());
    if (!status.ok()) std::abort();
    seconds += MonotonicSeconds() - begin;
  }
  return seconds;
}

// As the task types have it: a full SFT in bf16 has weights of that type.
bool UsesAutocast(const Arguments& a) { return a.method != "sft"; }

std::unique_ptr<model::Decoder> Load(const model::Checkpoint& checkpoint, const Arguments& a,
                                     bool master) {
  std::vector<std::string> warnings;
  return model::LoadDecoder(checkpoint,
                            {.dtype = a.dtype,
                             .device = Device(),
                             .master_weights = master,
                             .autocast = UsesAutocast(a)},
                            &warnings)
      .value();
}

// Updates of one local batch each: answers of 32 tokens, four passes, and scores that cost nothing.
void RunPpo(const Arguments& a) {
  constexpr int64_t kAnswerTokens = 32;
  const auto checkpoint = model::OpenCheckpoint(a.model).value();
  const auto tokenizer = model::LoadTokenizer(checkpoint).value();
  const auto policy = Load(checkpoint, a, /*master=*/true);
  const auto reference = Load(checkpoint, a, /*master=*/false);
  const auto group = parallel::ProcessGroup::Single();
  ValueHead head = ValueHead::Random(policy->info().hidden_size, 42, Device());
  TrainedWeights weights(PolicyWeights(*policy, head), {.compute = a.dtype, .group = group.get()});
  TrainingLayerRunner layers(/*recompute=*/false, weights.hooks());
  std::vector<Ids> queries;
  for (int64_t i = 0; i < a.rows; ++i) queries.push_back(Row(i, a.length));
  PpoOptions options;
  options.batches.batch_size = a.batch;
  options.steps = a.steps;
  options.schedule.learning_rate = 1e-6;
  PpoSeams seams;
  seams.generate = [&](const std::vector<const Ids*>& asked, int64_t update) {
    std::vector<engine::GenerationRequest> requests;
    for (size_t i = 0; i < asked.size(); ++i) {
      requests.push_back({.prompt_ids = *asked[i],
                          .params = {.max_tokens = kAnswerTokens,
                                     .temperature = options.temperature,
                                     .top_p = 1.0,
                                     .seed = static_cast<uint64_t>(update)},
                          .item_index = i});
    }
    const auto engine = engine::Engine::Create(policy.get(), tokenizer.get(), {});
    auto completions = engine->Generate(requests, [](const auto&) { return true; }).value();
    std::vector<Ids> answers;
    for (engine::Completion& completion : completions) {
      answers.push_back(std::move(completion.token_ids));
    }
    return absl::StatusOr<std::vector<Ids>>(std::move(answers));
  };
  seams.score = [](const std::vector<const Ids*>&, const std::vector<Ids>& answers) {
    return absl::StatusOr<std::vector<double>>(std::vector<double>(answers.size(), 0.0));
  };
  PpoTrainer trainer(options, {policy.get(), &head, &layers, &weights, reference.get()}, seams,
                     &queries, group.get());
  Stopwatch watch(group.get());
  const TrainerState state = trainer.Run({}, watch.Callbacks()).value();
  std::printf("seconds per update\t%.2f\nloss\t%.4f\nmemory\t%.0f\n",
              watch.seconds() / static_cast<double>(a.steps - 1), state.last_loss, PeakMegabytes());
}

void Run(const Arguments& a) {
  const bool is_lora = a.method == "lora";
  const auto model = Load(model::OpenCheckpoint(a.model).value(), a, /*master=*/!is_lora);
  const auto group = parallel::ProcessGroup::Join(
                         parallel::ProcessGroup::OptionsFromEnvironment(Device().is_cuda()).value())
                         .value();
  const model::LoraConfig config = {.r = 16,
                                    .alpha = 32,
                                    .dropout = 0,
                                    .target_modules = {"q_proj", "k_proj", "v_proj", "o_proj"}};
  TrainedWeights weights(
      is_lora ? TrainAdapter(MakeAdapter(*model, config, 42).value(), *model) : AllWeights(*model),
      {.compute = is_lora ? at::kFloat : a.dtype,
       .autocast = UsesAutocast(a),
       .zero_stage = a.zero_stage,
       .group = group.get()});
  // As the task types default to.
  TrainingLayerRunner layers(/*recompute=*/!is_lora, weights.hooks());
  model->set_layer_runner(&layers);

  const std::vector<SftRow> rows = SftRows(a);
  const std::vector<PreferencePair> pairs = Pairs(a);
  SftRecipe sft(model.get(), &rows, a.packed_length > 0);
  DpoRecipe dpo(model.get(), &pairs, {});
  const bool is_dpo = a.method == "dpo";
  TrainerOptions options;
  options.batches = {.rows = static_cast<int64_t>(is_dpo ? pairs.size() : rows.size()),
                     .batch_size = a.batch,
                     .max_steps = a.steps};
  options.schedule.learning_rate = 1e-5;
  options.logging_steps = 1000000;
  const auto nothing = [](int64_t, int64_t) { return absl::OkStatus(); };
  if (is_dpo && !dpo.Prepare(a.batch, weights, *group, nothing).ok()) std::abort();
  Trainer trainer(options, is_dpo ? static_cast<Recipe*>(&dpo) : &sft, &weights, group.get());
  Stopwatch watch(group.get());
  const TrainerState state = trainer.Run({}, watch.Callbacks()).value();
  const double seconds = watch.seconds(), waited = watch.waited();
  const double memory = PeakMegabytes();
  const double alone = ExchangeSeconds(a.zero_stage, weights, *group);
  if (group->rank() != 0) return;
  const auto steps = static_cast<double>(a.steps - 1);
  if (group->world_size() > 1) {
    std::printf("waited per step\t%.3f\nexchange alone\t%.3f\nstep\t%.3f\n", waited / steps, alone,
                seconds / steps);
  }
  std::printf("tokens per second\t%.1f\nloss\t%.4f\nmemory\t%.0f\n",
              static_cast<double>(state.tokens - watch.tokens) / seconds, state.last_loss, memory);
}

}  // namespace
}  // namespace flowmesh::train

int main(int argc, char** argv) {
  if (argc != 9 && argc != 11) {
    std::fprintf(
        stderr,
        "usage: train_bench MODEL sft|lora|dpo|ppo ROWS LENGTH BATCH STEPS THREADS fp32|bf16 "
        "[packed LENGTH]\n");
    return 2;
  }
  at::set_num_threads(std::atoi(argv[7]));
  flowmesh::device::KeepFreedMemory();  // as the tasks do
  if (flowmesh::train::Device().is_cuda()) {
    absl::Status status = flowmesh::device::LoadCudaLibrary();
    if (status.ok()) status = flowmesh::device::SelectGpu(flowmesh::train::Device().index());
    if (!status.ok()) {
      std::fprintf(stderr, "%s\n", status.ToString().c_str());
      return 1;
    }
  }
  const std::string length = argv[4];
  const char* stage = std::getenv("FLOWMESH_BENCH_ZERO_STAGE");
  const flowmesh::train::Arguments arguments = {
      .model = argv[1],
      .method = argv[2],
      .rows = std::atoll(argv[3]),
      .shortest = std::atoll(length.c_str()),
      .length = std::atoll(length.substr(length.find('-') + 1).c_str()),
      .batch = std::atoll(argv[5]),
      .steps = std::atoll(argv[6]),
      .dtype = std::string(argv[8]) == "bf16" ? at::kBFloat16 : at::kFloat,
      .packed_length = argc == 11 ? std::atoll(argv[10]) : 0,
      .zero_stage = stage == nullptr ? 0 : std::atoi(stage)};
  (arguments.method == "ppo" ? flowmesh::train::RunPpo : flowmesh::train::Run)(arguments);
  return 0;
}
