#include "executors/train/ppo.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <numeric>
#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/strings.h"
#include "executors/train/attention.h"
#include "executors/train/head_loss.h"

namespace flowmesh::train {
namespace {

// The statistics of a pass, in the order in which Pass() gives them.
constexpr std::array kPassMetrics = {"loss/policy_avg",
                                     "loss/value_avg",
                                     "policy/approxkl_avg",
                                     "policy/clipfrac_avg",
                                     "policy/entropy_avg",
                                     "val/clipfrac_avg",
                                     "val/ratio"};

// Fewer rewards than a mini-batch of so many rows has would be whitened to noise.
constexpr int64_t kMinWhitenedRows = 8;

BatchOptions OfRows(BatchOptions options, int64_t rows) {
  options.rows = rows;
  return options;
}

int64_t Size(const Ids& ids) { return static_cast<int64_t>(ids.size()); }

// Cuts a flat tensor into rows of these lengths.
void AppendRows(const at::Tensor& flat, const std::vector<int64_t>& lengths, PlaceRows& rows) {
  const at::Tensor numbers = flat.to(at::kCPU, at::kFloat).contiguous();
  const float* begin = numbers.const_data_ptr<float>();
  for (const int64_t length : lengths) {
    rows.emplace_back(begin, begin + length);
    begin += length;
  }
}

std::vector<int64_t> Piece(const std::vector<int64_t>& all, int64_t begin, int64_t end) {
  return {all.begin() + begin, all.begin() + end};
}

double Sum(const std::vector<float>& numbers) {
  return std::accumulate(numbers.begin(), numbers.end(), 0.0);
}

}  // namespace

struct PpoTrainer::Rollout {
  std::vector<const Ids*> queries;
  std::vector<Ids> responses;
  int64_t longest = 0;  // tokens of the longest response
  RolloutNumbers numbers;
};

// Queries with their responses, ready for a forward pass. A response's places begin with the one
// that predicts its first token.
struct PpoTrainer::Batch {
  FlatBatch flat;                                // its logit_rows are the places
  std::unique_ptr<SequenceAttention> attention;  // the backward pass needs it too
  std::vector<int64_t> tokens, places;           // of each response
  at::Tensor predicting;                         // [tokens] which of the places predict a token
  at::Tensor targets;                            // [tokens] those tokens
};

struct PpoTrainer::Evaluation {
  at::Tensor hidden;     // [places, hidden]
  at::Tensor log_probs;  // [tokens]
  at::Tensor entropy;    // [tokens]; undefined where it was not wanted
};

struct PpoTrainer::Report {
  int64_t update = 0;
  double learning_rate = 0;
  double kl = 0, entropy = 0, score = 0;  // means over the rows of all ranks
  int64_t eos = 0;                        // responses that end with EOS
  int64_t tokens = 0;                     // in passes that train
  int64_t passes = 0;                     // of all ranks, those whose loss was finite
  std::array<double, kPassMetrics.size()> sums = {};
  double grad_norm_sum = 0;
  int64_t good_steps = 0;  // whose gradients were finite

  double Mean(size_t metric) const {
    return sums[metric] / static_cast<double>(std::max<int64_t>(1, passes));
  }
  double Loss(double vf_coef) const { return Mean(0) + vf_coef * Mean(1); }
};

absl::Status CheckPpoOptions(const PpoOptions& options) {
  const int64_t local = options.batches.batch_size * options.batches.accumulation;
  if (local % options.mini_batches != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "num_mini_batches: expected a divisor of the ", local,
        " rows of a local batch (batch size times accumulation), got ", options.mini_batches));
  }
  const int64_t rows = local / options.mini_batches;
  if (options.estimate.whiten_rewards && rows < kMinWhitenedRows) {
    return absl::InvalidArgumentError(
        absl::StrCat("whiten_rewards: expected mini-batches of at least ", kMinWhitenedRows,
                     " rows, got ", rows));
  }
  return absl::OkStatus();
}

PpoTrainer::PpoTrainer(const PpoOptions& options, const PpoModels& models, PpoSeams seams,
                       const std::vector<Ids>* queries, parallel::ProcessGroup* group)
    : options_(options),
      models_(models),
      seams_(std::move(seams)),
      queries_(queries),
      group_(group),
      plan_(OnRank(OfRows(options.batches, static_cast<int64_t>(queries->size())), *group),
            options.steps),
      schedule_(options.schedule),
      optimizer_(options.optimizer, models.weights) {
  schedule_.SetTotalSteps(plan_.total_updates());
}

absl::StatusOr<TrainerState> PpoTrainer::Run(TrainerState state,
                                             const TrainerCallbacks& callbacks) {
  RETURN_IF_ERROR(CheckPpoOptions(options_));
  for (size_t i = 0; i < queries_->size(); ++i) {
    if ((*queries_)[i].empty()) {
      return absl::InvalidArgumentError(absl::StrCat("query ", i + 1, " has no token"));
    }
  }
  if (options_.scale_loss && state.step == 0) state.loss_scale = kFirstLossScale;
  while (state.step < total_steps()) {
    if (callbacks.is_stopped()) return absl::CancelledError("stopped");
    const double begin = MonotonicSeconds();
    ASSIGN_OR_RETURN(const Rollout rollout, MakeRollout(state.step));
    const Estimates estimates = Estimate(rollout.numbers, options_.estimate);
    Report report = {.update = state.step, .learning_rate = schedule_.At(state.step)};
    RETURN_IF_ERROR(Describe(rollout, report));
    RETURN_IF_ERROR(Optimise(rollout, estimates, callbacks, state, report));

    ++state.step;
    state.epoch = plan_.EpochsAfter(state.step);
    state.tokens += report.tokens;
    state.last_loss = report.Loss(options_.vf_coef);
    state.loss_sum += state.last_loss;
    const double speed =
        static_cast<double>(report.tokens) / std::max(MonotonicSeconds() - begin, 1e-9);
    state.log.push_back(Line(state, report, speed));
    if (group_->rank() == 0) {
      callbacks.on_step(state, total_steps(), speed);
      RETURN_IF_ERROR(callbacks.on_line(state.log.back()));
    }
    if (callbacks.wants_checkpoint(state, total_steps())) {
      RETURN_IF_ERROR(callbacks.save_checkpoint(state));
    }
  }
  return state;
}

absl::StatusOr<PpoTrainer::Rollout> PpoTrainer::MakeRollout(int64_t update) {
  const at::NoGradGuard no_grad;
  Rollout rollout;
  for (const int64_t row : plan_.Rows(update)) {
    rollout.queries.push_back(&(*queries_)[static_cast<size_t>(row)]);
  }
  // Ranks may run different numbers of passes here, so no layer may be a collective.
  models_.policy->set_layer_runner(nullptr);
  RETURN_IF_ERROR(models_.weights->BeginUse());
  const absl::Cleanup end_use = [this] { models_.weights->EndUse(); };
  RETURN_IF_ERROR(Answer(update, rollout));
  EvaluateResponses(rollout);
  RETURN_IF_ERROR(Score(update, rollout));
  return rollout;
}

absl::Status PpoTrainer::Answer(int64_t update, Rollout& rollout) {
  ASSIGN_OR_RETURN(rollout.responses, seams_.generate(rollout.queries, update));
  if (rollout.responses.size() != rollout.queries.size()) {
    return absl::InternalError(absl::StrCat(rollout.queries.size(), " queries got ",
                                            rollout.responses.size(), " responses"));
  }
  for (const Ids& response : rollout.responses) {
    if (response.empty()) {
      return absl::FailedPreconditionError(
          absl::StrCat("a response of update ", update + 1, " has no token"));
    }
    rollout.longest = std::max(rollout.longest, Size(response));
  }
  return absl::OkStatus();
}

void PpoTrainer::EvaluateResponses(Rollout& rollout) {
  RolloutNumbers& numbers = rollout.numbers;
  PlaceRows values;
  for (int64_t begin = 0; begin < plan_.local_batch(); begin += options_.batches.batch_size) {
    std::vector<int64_t> rows(static_cast<size_t>(options_.batches.batch_size));
    std::iota(rows.begin(), rows.end(), begin);
    // The place behind the last token counts for the score even where it is beyond the longest.
    const Batch batch = MakeBatch(rollout, rows, rollout.longest + 1);
    const Evaluation policy = Evaluate(*models_.policy, batch, /*with_entropy=*/false);
    AppendRows(policy.log_probs, batch.tokens, numbers.log_probs);
    AppendRows(models_.value_head->Values(policy.hidden), batch.places, values);
    const Evaluation reference = Evaluate(*models_.reference, batch, /*with_entropy=*/false);
    AppendRows(reference.log_probs, batch.tokens, numbers.reference_log_probs);
  }
  for (std::vector<float>& row : values) {
    numbers.scores.push_back(row.back());
    row.resize(std::min(row.size(), static_cast<size_t>(rollout.longest)));
  }
  numbers.values = std::move(values);
}

absl::Status PpoTrainer::Score(int64_t update, Rollout& rollout) {
  std::vector<double>& scores = rollout.numbers.scores;
  if (seams_.score) {
    ASSIGN_OR_RETURN(scores, seams_.score(rollout.queries, rollout.responses));
    if (scores.size() != rollout.responses.size()) {
      return absl::InternalError(
          absl::StrCat(rollout.responses.size(), " responses got ", scores.size(), " scores"));
    }
  }
  for (size_t i = 0; i < scores.size(); ++i) {
    if (!std::isfinite(scores[i])) {
      return absl::FailedPreconditionError(
          absl::StrCat("a score of update ", update + 1, " is not finite"));
    }
    if (!EndsWithEos(rollout.responses[i])) scores[i] -= options_.missing_eos_penalty;
  }
  return absl::OkStatus();
}

absl::Status PpoTrainer::Describe(const Rollout& rollout, Report& report) {
  const RolloutNumbers& numbers = rollout.numbers;
  std::vector<double> sums(4, 0.0);
  for (size_t i = 0; i < rollout.responses.size(); ++i) {
    const double log_prob = Sum(numbers.log_probs[i]);
    sums[0] += log_prob - Sum(numbers.reference_log_probs[i]);
    sums[1] -= log_prob;
    sums[2] += numbers.scores[i];
    sums[3] += EndsWithEos(rollout.responses[i]) ? 1 : 0;
  }
  RETURN_IF_ERROR(group_->SumNumbers(sums));
  const auto rows = static_cast<double>(plan_.global_batch());
  report.kl = sums[0] / rows;
  report.entropy = sums[1] / rows;
  report.score = sums[2] / rows;
  report.eos = std::llround(sums[3]);
  return absl::OkStatus();
}

absl::Status PpoTrainer::Optimise(const Rollout& rollout, const Estimates& estimates,
                                  const TrainerCallbacks& callbacks, TrainerState& state,
                                  Report& report) {
  models_.policy->set_layer_runner(models_.runner);
  const int64_t rows = plan_.local_batch() / options_.mini_batches;
  for (int64_t pass = 0; pass < options_.ppo_epochs; ++pass) {
    const std::vector<int64_t> order = Order(report.update, pass);
    for (int64_t begin = 0; begin < plan_.local_batch(); begin += rows) {
      if (callbacks.is_stopped()) return absl::CancelledError("stopped");
      RETURN_IF_ERROR(Step(rollout, estimates, Piece(order, begin, begin + rows), state, report));
    }
  }
  return absl::OkStatus();
}

absl::Status PpoTrainer::Step(const Rollout& rollout, const Estimates& estimates,
                              const std::vector<int64_t>& rows, TrainerState& state,
                              Report& report) {
  const auto all = static_cast<int64_t>(rows.size()), most = options_.batches.batch_size;
  const int64_t passes = (all + most - 1) / most * group_->world_size();
  std::vector<double> sums(kPassMetrics.size() + 1, 0.0);
  models_.weights->BeginStep();
  for (int64_t begin = 0; begin < all; begin += most) {
    const int64_t end = std::min(all, begin + most);
    RETURN_IF_ERROR(models_.weights->BeginPass(/*is_last=*/end == all));
    const std::vector<double> of_pass = Pass(rollout, estimates, Piece(rows, begin, end),
                                             state.loss_scale / static_cast<double>(passes));
    RETURN_IF_ERROR(models_.weights->EndPass());
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += of_pass[i];
  }
  RETURN_IF_ERROR(group_->SumNumbers(sums));
  const bool is_loss_finite = std::isfinite(sums[0]) && std::isfinite(sums[1]);
  ASSIGN_OR_RETURN(
      const StepReport step,
      StepUnlessOverflowed(is_loss_finite, report.learning_rate, options_.scale_loss,
                           absl::StrCat("update ", report.update + 1), optimizer_, state));

  report.tokens += std::llround(sums.back());
  if (!is_loss_finite) return absl::OkStatus();  // there is no NaN in JSON
  for (size_t i = 0; i < report.sums.size(); ++i) report.sums[i] += sums[i];
  report.passes += passes;
  if (step.is_finite) {
    report.grad_norm_sum += step.grad_norm;
    ++report.good_steps;
  }
  return absl::OkStatus();
}

std::vector<double> PpoTrainer::Pass(const Rollout& rollout, const Estimates& estimates,
                                     const std::vector<int64_t>& rows, double gradient_scale) {
  const Batch batch = MakeBatch(rollout, rows, rollout.longest);
  const Evaluation now = Evaluate(*models_.policy, batch, /*with_entropy=*/true);
  const at::Tensor difference = now.log_probs - Pick(rollout.numbers.log_probs, rows);
  const at::Tensor ratio = difference.exp();
  const ClippedLoss policy =
      PolicyLoss(ratio, Pick(estimates.advantages, rows), options_.cliprange);
  const ClippedLoss value =
      ValueLoss(models_.value_head->Values(now.hidden), Pick(rollout.numbers.values, rows),
                Pick(estimates.returns, rows), options_.cliprange_value);
  ((policy.loss + options_.vf_coef * value.loss) * gradient_scale).backward();

  const at::NoGradGuard no_grad;
  // These two count all places up to the longest response: beyond a response's end nothing changes.
  const auto slots = static_cast<double>(batch.tokens.size()) * rollout.longest;
  const double beyond = slots - static_cast<double>(ratio.numel());
  const at::Tensor statistics =
      at::stack({policy.loss, value.loss, 0.5 * difference.square().sum() / slots,
                 policy.clip_fraction, now.entropy.mean(), value.clip_fraction,
                 (ratio.sum() + beyond) / slots})
          .to(at::kCPU, at::kDouble);
  const double* begin = statistics.const_data_ptr<double>();
  std::vector<double> result(begin, begin + statistics.numel());
  result.push_back(static_cast<double>(batch.flat.tokens));
  return result;
}

PpoTrainer::Batch PpoTrainer::MakeBatch(const Rollout& rollout, const std::vector<int64_t>& rows,
                                        int64_t most_places) const {
  Batch batch;
  std::vector<Ids> sequences;
  std::vector<int64_t> places, predicting, targets;
  int64_t begin = 0;
  for (const int64_t row : rows) {
    const Ids& query = *rollout.queries[static_cast<size_t>(row)];
    const Ids& response = rollout.responses[static_cast<size_t>(row)];
    const int64_t tokens = Size(response), wanted = std::min(tokens + 1, most_places);
    Ids& sequence = sequences.emplace_back(query);
    sequence.insert(sequence.end(), response.begin(), response.end());
    for (int64_t t = 0; t < wanted; ++t) {
      if (t < tokens) {
        predicting.push_back(static_cast<int64_t>(places.size()));
        targets.push_back(response[static_cast<size_t>(t)]);
      }
      places.push_back(begin + Size(query) - 1 + t);
    }
    batch.tokens.push_back(tokens);
    batch.places.push_back(wanted);
    begin += Size(sequence);
  }
  const at::Device device = models_.policy->device();
  std::vector<const Ids*> pointers;
  for (const Ids& sequence : sequences) pointers.push_back(&sequence);
  batch.flat = MakeFlatBatch(pointers, device);
  batch.flat.input.logit_rows = IndexTensor(places, device);
  batch.attention = std::make_unique<SequenceAttention>(batch.flat.lengths);
  batch.predicting = IndexTensor(predicting, device);
  batch.targets = IndexTensor(targets, device);
  return batch;
}

PpoTrainer::Evaluation PpoTrainer::Evaluate(model::Decoder& model, const Batch& batch,
                                            bool with_entropy) const {
  Evaluation result;
  result.hidden = model.Hidden(batch.flat.input, *batch.attention);
  const Head head = {model.head(), model.config().logit_soft_cap, options_.temperature + 1e-7};
  const TokenScores scores =
      LogProbs(result.hidden.index_select(0, batch.predicting), head, batch.targets, with_entropy);
  result.log_probs = scores.log_probs;
  result.entropy = scores.entropy;
  return result;
}

at::Tensor PpoTrainer::Pick(const PlaceRows& numbers, const std::vector<int64_t>& rows) const {
  std::vector<float> picked;
  for (const int64_t row : rows) {
    const std::vector<float>& of_row = numbers[static_cast<size_t>(row)];
    picked.insert(picked.end(), of_row.begin(), of_row.end());
  }
  return at::tensor(picked, at::TensorOptions(at::kFloat)).to(models_.policy->device());
}

std::vector<int64_t> PpoTrainer::Order(int64_t update, int64_t pass) const {
  if (seams_.order) return seams_.order(plan_.local_batch(), update, pass);
  const int64_t number =
      (update * options_.ppo_epochs + pass) * group_->world_size() + group_->rank();
  return RandomOrder(plan_.local_batch(), options_.batches.seed + static_cast<uint64_t>(number));
}

bool PpoTrainer::EndsWithEos(const Ids& response) const {
  return std::find(options_.eos_ids.begin(), options_.eos_ids.end(), response.back()) !=
         options_.eos_ids.end();
}

Json PpoTrainer::Line(const TrainerState& state, const Report& report,
                      double tokens_per_second) const {
  const double non_score_reward = -options_.estimate.kl_coef * report.kl;
  Json line = {{"step", state.step},
               {"epoch", state.epoch},
               {"episode", state.step * plan_.global_batch()},
               {"loss", state.last_loss},
               {"learning_rate", report.learning_rate},
               {"grad_norm", report.grad_norm_sum / std::max<double>(1, report.good_steps)},
               {"tokens_per_second", tokens_per_second},
               {"objective/kl", report.kl},
               {"objective/entropy", report.entropy},
               {"objective/non_score_reward", non_score_reward},
               {"objective/scores", report.score},
               {"objective/rlhf_reward", non_score_reward + report.score},
               {"val/num_eos_tokens", report.eos}};
  for (size_t i = 0; i < kPassMetrics.size(); ++i) line[kPassMetrics[i]] = report.Mean(i);
  return line;
}

}  // namespace flowmesh::train
