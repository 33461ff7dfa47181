#include "executors/train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/strings.h"

namespace flowmesh::train {
namespace {

constexpr int64_t kGoodStepsToDouble = 2000;

BatchOptions OnRank(BatchOptions options, const parallel::ProcessGroup& group) {
  options.rank = group.rank();
  options.world_size = group.world_size();
  return options;
}

}  // namespace

bool UpdateLossScale(bool is_finite, TrainerState& state) {
  if (!is_finite) {
    if (state.loss_scale <= 1) return false;
    state.loss_scale /= 2;
    state.good_steps = 0;
  } else if (++state.good_steps == kGoodStepsToDouble) {
    state.loss_scale *= 2;
    state.good_steps = 0;
  }
  return true;
}

absl::StatusOr<StepReport> StepUnlessOverflowed(bool is_loss_finite, double learning_rate,
                                                bool scale_loss, std::string_view where,
                                                AdamW& optimizer, TrainerState& state) {
  StepReport report = {.is_finite = false};
  if (is_loss_finite) {
    ASSIGN_OR_RETURN(report, optimizer.Step(learning_rate, state.loss_scale));
  } else if (!scale_loss) {
    return absl::FailedPreconditionError(
        absl::StrCat("the loss of ", ToAbsl(where), " is not finite"));
  }
  if (scale_loss ? !UpdateLossScale(report.is_finite, state) : !report.is_finite) {
    return absl::FailedPreconditionError(
        absl::StrCat("the gradients of ", ToAbsl(where), " are not finite"));
  }
  return report;
}

struct Trainer::Window {
  double begin = MonotonicSeconds();
  double loss = 0;  // sum over steps
  int64_t steps = 0;
  int64_t tokens = 0;
  int64_t passes = 0;
  std::map<std::string, double> metrics;  // sums over passes of the means over ranks
  double learning_rate = 0;               // of the last step
  double grad_norm = 0;

  double TokensPerSecond() const {
    return static_cast<double>(tokens) / std::max(MonotonicSeconds() - begin, 1e-9);
  }
};

Trainer::Trainer(const TrainerOptions& options, Recipe* recipe, TrainedWeights* weights,
                 parallel::ProcessGroup* group)
    : options_(options),
      recipe_(recipe),
      weights_(weights),
      group_(group),
      plan_(OnRank(options.batches, *group)),
      schedule_(options.schedule),
      optimizer_(options.optimizer, weights) {
  schedule_.SetTotalSteps(plan_.total_steps());
}

absl::StatusOr<double> Trainer::Merge(const std::vector<PassReport>& reports, TrainerState& state,
                                      Window& window) {
  // One exchange: loss, tokens, and for each pass the sums and counts of its metrics.
  std::vector<float> values = {0, 0};
  for (const PassReport& report : reports) {
    values[0] += static_cast<float>(report.loss);
    values[1] += static_cast<float>(report.tokens);
    for (const auto& [name, ratio] : report.metrics) {
      values.push_back(static_cast<float>(ratio.sum));
      values.push_back(static_cast<float>(ratio.count));
    }
  }
  const at::Tensor sums = at::tensor(values);
  if (group_->world_size() > 1) {
    const at::Tensor shared = sums.to(weights_->shards()[0].master.device());
    RETURN_IF_ERROR(group_->AllReduceSum(shared).Wait());
    sums.copy_(shared);
  }
  const float* sum = sums.const_data_ptr<float>();
  const double loss = *sum++;
  const auto tokens = static_cast<int64_t>(*sum++);
  for (const PassReport& report : reports) {
    for (const auto& entry : report.metrics) {
      window.metrics[entry.first] += sum[1] > 0 ? sum[0] / sum[1] : 0.0;
      sum += 2;
    }
  }
  window.passes += static_cast<int64_t>(reports.size());
  window.tokens += tokens;
  state.tokens += tokens;
  return loss;
}

absl::Status Trainer::Step(TrainerState& state, Window& window) {
  const StepBatches batches = plan_.Step(state.step);
  RETURN_IF_ERROR(recipe_->BeginStep(batches, *group_));
  weights_->BeginStep();
  std::vector<PassReport> reports;
  for (size_t i = 0; i < batches.batches.size(); ++i) {
    RETURN_IF_ERROR(weights_->BeginPass(i + 1 == batches.batches.size()));
    ASSIGN_OR_RETURN(PassReport report, recipe_->Pass(batches.batches[i], state.loss_scale));
    reports.push_back(std::move(report));
    RETURN_IF_ERROR(weights_->EndPass());
  }
  ASSIGN_OR_RETURN(double loss, Merge(reports, state, window));
  const double rate = schedule_.At(optimizer_.steps());  // a step left out does not advance it
  ASSIGN_OR_RETURN(const StepReport report,
                   StepUnlessOverflowed(std::isfinite(loss), rate, options_.scale_loss,
                                        absl::StrCat("step ", state.step + 1), optimizer_, state));
  // There is no NaN in JSON, so a loss that overflowed counts as the one before it.
  if (!std::isfinite(loss)) loss = state.last_loss;
  RETURN_IF_ERROR(weights_->EndStep());

  ++state.step;
  state.epoch = batches.epoch;
  state.loss_sum += loss;
  state.last_loss = loss;
  window.loss += loss;
  ++window.steps;
  window.learning_rate = rate;
  if (report.is_finite) window.grad_norm = report.grad_norm;
  return absl::OkStatus();
}

Json Trainer::Line(const TrainerState& state, const Window& window) const {
  Json line = {{"step", state.step},
               {"epoch", state.epoch},
               {"loss", window.loss / static_cast<double>(window.steps)},
               {"learning_rate", window.learning_rate},
               {"grad_norm", window.grad_norm},
               {"tokens_per_second", window.TokensPerSecond()}};
  for (const auto& [name, sum] : window.metrics) {
    line[name] = sum / static_cast<double>(window.passes);
  }
  if (!options_.tokens_metric.empty()) line[options_.tokens_metric] = state.tokens;
  return line;
}

absl::StatusOr<TrainerState> Trainer::Run(TrainerState state, const TrainerCallbacks& callbacks) {
  if (options_.scale_loss && state.step == 0) state.loss_scale = options_.first_loss_scale;
  Window window;
  while (state.step < total_steps()) {
    if (callbacks.is_stopped()) return absl::CancelledError("stopped");
    RETURN_IF_ERROR(Step(state, window));
    if (group_->rank() == 0) callbacks.on_step(state, total_steps(), window.TokensPerSecond());
    if (state.step % options_.logging_steps == 0 || state.step == total_steps()) {
      state.log.push_back(Line(state, window));
      if (group_->rank() == 0) RETURN_IF_ERROR(callbacks.on_line(state.log.back()));
      window = Window();
    }
    if (callbacks.wants_checkpoint(state, total_steps())) {
      RETURN_IF_ERROR(callbacks.save_checkpoint(state));
    }
  }
  return state;
}

}  // namespace flowmesh::train
