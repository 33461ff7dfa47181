#include "executors/train/trainer.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/strings.h"

namespace flowmesh::train {
namespace {

constexpr int64_t kGoodStepsToDouble = 2000;

}  // namespace

BatchOptions OnRank(BatchOptions options, const parallel::ProcessGroup& group) {
  options.rank = group.rank();
  options.world_size = group.world_size();
  return options;
}

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

absl::StatusOr<double> Trainer::Merge(const std::vector<PassReport>& reports, TrainerState& state) {
  // One exchange: loss, tokens, and for each pass the sums and counts of its metrics.
  std::vector<double> sums = {0, 0};
  for (const PassReport& report : reports) {
    sums[0] += report.loss;
    sums[1] += static_cast<double>(report.tokens);
    for (const auto& [name, ratio] : report.metrics) {
      sums.push_back(ratio.sum);
      sums.push_back(ratio.count);
    }
  }
  RETURN_IF_ERROR(group_->SumNumbers(sums));
  size_t next = 2;
  for (const PassReport& report : reports) {
    for (const auto& entry : report.metrics) {
      const double sum = sums[next++], count = sums[next++];
      state.window.metrics[entry.first] += count > 0 ? sum / count : 0.0;
    }
  }
  state.window.passes += static_cast<int64_t>(reports.size());
  state.tokens += std::llround(sums[1]);
  return sums[0];
}

absl::Status Trainer::Step(TrainerState& state) {
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
  ASSIGN_OR_RETURN(double loss, Merge(reports, state));
  const double rate = schedule_.At(optimizer_.steps());  // a step left out does not advance it
  ASSIGN_OR_RETURN(const StepReport report,
                   StepUnlessOverflowed(std::isfinite(loss), rate, options_.scale_loss,
                                        absl::StrCat("step ", state.step + 1), optimizer_, state));
  // There is no NaN in JSON, so a loss that overflowed counts as the one before it.
  if (!std::isfinite(loss)) loss = state.last_loss;

  ++state.step;
  state.epoch = batches.epoch;
  state.loss_sum += loss;
  state.last_loss = loss;
  state.window.loss += loss;
  ++state.window.steps;
  state.window.learning_rate = rate;
  if (report.is_finite) state.window.grad_norm = report.grad_norm;
  return absl::OkStatus();
}

Json Trainer::Line(const TrainerState& state, double tokens_per_second) const {
  const MetricsWindow& window = state.window;
  Json line = {{"step", state.step},
               {"epoch", state.epoch},
               {"loss", window.loss / static_cast<double>(window.steps)},
               {"learning_rate", window.learning_rate},
               {"grad_norm", window.grad_norm},
               {"tokens_per_second", tokens_per_second}};
  for (const auto& [name, sum] : window.metrics) {
    line[name] = sum / static_cast<double>(window.passes);
  }
  if (!options_.tokens_metric.empty()) line[options_.tokens_metric] = state.tokens;
  return line;
}

absl::StatusOr<TrainerState> Trainer::Run(TrainerState state, const TrainerCallbacks& callbacks) {
  if (options_.scale_loss && state.step == 0) state.loss_scale = options_.first_loss_scale;
  double begin = MonotonicSeconds();  // of what this process has done of the window
  int64_t tokens = state.tokens;
  while (state.step < total_steps()) {
    if (callbacks.is_stopped()) return absl::CancelledError("stopped");
    RETURN_IF_ERROR(Step(state));
    const double speed =
        static_cast<double>(state.tokens - tokens) / std::max(MonotonicSeconds() - begin, 1e-9);
    if (group_->rank() == 0) callbacks.on_step(state, total_steps(), speed);
    if (state.step % options_.logging_steps == 0 || state.step == total_steps()) {
      state.log.push_back(Line(state, speed));
      if (group_->rank() == 0) RETURN_IF_ERROR(callbacks.on_line(state.log.back()));
      state.window = {};
      begin = MonotonicSeconds();
      tokens = state.tokens;
    }
    if (callbacks.wants_checkpoint(state, total_steps())) {
      RETURN_IF_ERROR(callbacks.save_checkpoint(state));
    }
  }
  return state;
}

}  // namespace flowmesh::train
