// Task type `ppo`: proximal policy optimisation (TASKS.md 3.7, 4.7).
#include "executors/train/ppo.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/data/training_data.h"
#include "executors/engine/engine.h"
#include "executors/tasks/model_files.h"
#include "executors/tasks/training.h"
#include "executors/tasks/unread_keys.h"
#include "executors/train/recompute.h"
#include "executors/train/reward_model.h"

namespace flowmesh::tasks {
namespace {

using train::Ids;

constexpr TrainingDefaults kDefaults = {
    .identifier = "microsoft/DialoGPT-small",
    .learning_rate = 1.41e-5,
    .batch_size = 1,
    .save_steps = 500,
    .save_freq_first = true,
    .per_device_first = true,
    .max_grad_norm = 0,
    .recompute = false,
    .bf16_on_gpu = true,
    .own_keys =
        "cliprange cliprange_value gamma kl_coef lam max_length max_seq_length missing_eos_penalty "
        "num_mini_batches num_ppo_epochs ppo_epochs steps temperature vf_coef whiten_rewards"};
constexpr double kDefaultTemperature = 0.7;

struct RewardSpec {
  std::string identifier;
  train::RewardOptions options;
};

struct PpoSpec {
  train::PpoOptions options;  // without what TrainingSpec holds
  int64_t query_tokens = 512;
  int64_t response_tokens = 64;
  std::optional<RewardSpec> reward;  // none: the value head scores
};

absl::Status ReadGeneration(const Field& spec, const TrainingJob& job, PpoSpec* result) {
  const Field generation = spec["generation"], training = spec["training"];
  RETURN_IF_ERROR(generation.CheckMap());
  WarnOfUnread(generation, {"max_new_tokens", "temperature", "stop", "do_sample"},
               [&job](const std::string& text) { job.Warn(text); });
  const Field length = training.FirstOf({"max_seq_length", "max_length"});
  ASSIGN_OR_RETURN(result->query_tokens, length.IntOr(512, 1));
  ASSIGN_OR_RETURN(const int64_t fallback, length.IntOr(64, 1));
  ASSIGN_OR_RETURN(result->response_tokens, generation["max_new_tokens"].IntOr(fallback, 1));
  const Field temperature =
      generation["temperature"].present() ? generation["temperature"] : training["temperature"];
  ASSIGN_OR_RETURN(result->options.temperature, temperature.NumberOr(kDefaultTemperature));
  if (result->options.temperature <= 0) {
    job.Warn(absl::StrCat(temperature.path(), ": expected a number above 0: ", kDefaultTemperature,
                          " is used"));
    result->options.temperature = kDefaultTemperature;
  }
  ASSIGN_OR_RETURN(const std::string stop, generation["stop"].StringOr("eos"));
  if (ToLower(Trim(stop)) != "eos") return generation["stop"].Expected("eos");
  return absl::OkStatus();
}

// The name of a class, or its index.
absl::StatusOr<std::optional<std::string>> ReadLabel(const Field& field) {
  if (!field.present()) return std::nullopt;
  if (field.json().is_number()) {
    ASSIGN_OR_RETURN(const int64_t index, field.Int(0));
    return absl::StrCat(index);
  }
  ASSIGN_OR_RETURN(std::string name, field.NonEmptyString());
  return name;
}

absl::StatusOr<RewardSpec> ReadReward(const Field& reward, const TrainingJob& job) {
  RETURN_IF_ERROR(reward.CheckMap());
  WarnOfUnread(reward,
               {"identifier", "type", "scale", "max_length", "positive_label", "negative_label"},
               [&job](const std::string& text) { job.Warn(text); });
  RewardSpec result;
  ASSIGN_OR_RETURN(result.identifier, reward["identifier"].NonEmptyString());
  train::RewardOptions& options = result.options;
  ASSIGN_OR_RETURN(const std::string type, reward["type"].StringOr("classification"));
  if (ToLower(Trim(type)) == "sentiment") {
    options.type = train::RewardOptions::Type::kSentiment;
  } else if (ToLower(Trim(type)) != "classification") {
    return reward["type"].Expected("classification or sentiment");
  }
  ASSIGN_OR_RETURN(options.scale, reward["scale"].NumberOr(1.0));
  ASSIGN_OR_RETURN(options.max_length, reward["max_length"].IntOr(options.max_length, 1));
  ASSIGN_OR_RETURN(options.positive_label, ReadLabel(reward["positive_label"]));
  ASSIGN_OR_RETURN(options.negative_label, ReadLabel(reward["negative_label"]));
  return result;
}

absl::Status ReadMethod(const Field& training, const TrainingJob& job, train::PpoOptions* options) {
  ASSIGN_OR_RETURN(options->mini_batches, training["num_mini_batches"].IntOr(1, 1));
  ASSIGN_OR_RETURN(options->ppo_epochs,
                   training.FirstOf({"ppo_epochs", "num_ppo_epochs"}).IntOr(4, 1));
  if (training["steps"].present()) {
    ASSIGN_OR_RETURN(options->steps, training["steps"].Int(1));
  }
  ASSIGN_OR_RETURN(const double kl_coef, training["kl_coef"].NumberOr(0.05, {.at_least = 0}));
  if (kl_coef > 0) {
    options->estimate.kl_coef = kl_coef;
  } else {
    job.Warn(absl::StrCat(training["kl_coef"].path(), ": 0 keeps the default, ",
                          options->estimate.kl_coef));
  }
  ASSIGN_OR_RETURN(
      options->estimate.gamma,
      training["gamma"].NumberOr(options->estimate.gamma, {.at_least = 0, .at_most = 1}));
  ASSIGN_OR_RETURN(options->estimate.lam,
                   training["lam"].NumberOr(options->estimate.lam, {.at_least = 0, .at_most = 1}));
  ASSIGN_OR_RETURN(options->estimate.whiten_rewards, training["whiten_rewards"].BoolOr(false));
  ASSIGN_OR_RETURN(options->cliprange,
                   training["cliprange"].NumberOr(options->cliprange, {.at_least = 0}));
  ASSIGN_OR_RETURN(options->cliprange_value,
                   training["cliprange_value"].NumberOr(options->cliprange_value, {.at_least = 0}));
  ASSIGN_OR_RETURN(options->vf_coef,
                   training["vf_coef"].NumberOr(options->vf_coef, {.at_least = 0}));
  ASSIGN_OR_RETURN(options->missing_eos_penalty, training["missing_eos_penalty"].NumberOr(0));
  return absl::OkStatus();
}

absl::StatusOr<PpoSpec> ReadPpo(const Field& spec, const TrainingJob& job) {
  PpoSpec result;
  RETURN_IF_ERROR(ReadMethod(spec["training"], job, &result.options));
  RETURN_IF_ERROR(ReadGeneration(spec, job, &result));
  if (spec["reward_model"].present()) {
    ASSIGN_OR_RETURN(result.reward, ReadReward(spec["reward_model"], job));
  }
  const train::TrainerOptions& trainer = job.spec().trainer;
  result.options.batches = trainer.batches;
  if (trainer.batches.epochs < 1) {
    job.Warn(
        absl::StrCat("spec.training.num_train_epochs: ", trainer.batches.epochs, " raised to 1"));
    result.options.batches.epochs = 1;
  }
  result.options.schedule = trainer.schedule;
  result.options.optimizer = trainer.optimizer;
  result.options.scale_loss = trainer.scale_loss;
  return result;
}

// The texts as the policy reads them. What the model's limit does not allow is lowered in `ppo`.
absl::StatusOr<std::vector<Ids>> LoadQueries(const data::QueryData& data, PpoSpec& ppo,
                                             TrainingJob& job) {
  std::vector<std::string> texts;
  RETURN_IF_ERROR(job.InTurn([&]() -> absl::Status {
    ASSIGN_OR_RETURN(texts, data::LoadQueryData(data, job.data_context()));
    return absl::OkStatus();
  }));
  job.set_dataset_size(static_cast<int64_t>(texts.size()));
  if (data.is_demo()) job.set_demo_data();
  if (!job.tokenizer().eos_id()) {
    return absl::FailedPreconditionError("the tokenizer has no EOS token, which training needs");
  }
  const int64_t limit = job.base().config.max_positions;
  if (ppo.response_tokens >= limit) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spec.generation.max_new_tokens: expected an integer below the model's limit of ", limit,
        " tokens, got ", ppo.response_tokens));
  }
  if (const int64_t room = limit - ppo.response_tokens; ppo.query_tokens > room) {
    job.Warn(absl::StrCat("spec.training.max_seq_length: queries are cut to ", room,
                          " tokens: the model's limit is ", limit, " with the response"));
    ppo.query_tokens = room;
  }
  std::vector<Ids> queries;
  for (size_t i = 0; i < texts.size(); ++i) {
    Ids ids = job.tokenizer().Encode(texts[i], /*add_special_tokens=*/true);
    if (ids.empty()) {
      return absl::InvalidArgumentError(absl::StrCat("spec.data: query ", i + 1, " has no token"));
    }
    ids.resize(std::min(ids.size(), static_cast<size_t>(ppo.query_tokens)));
    queries.push_back(std::move(ids));
  }
  return queries;
}

absl::StatusOr<std::unique_ptr<train::RewardModel>> LoadReward(const RewardSpec& spec,
                                                               TrainingJob& job) {
  const std::string field = "spec.reward_model.identifier";
  std::filesystem::path folder;
  RETURN_IF_ERROR(job.InTurn([&]() -> absl::Status {
    ASSIGN_OR_RETURN(folder, FindByName({spec.identifier, "main", job.spec().download_dir}, field,
                                        job.context(), job.env()));
    return absl::OkStatus();
  }));
  auto loaded = train::RewardModel::Load(folder, spec.options);
  if (!loaded.ok()) {
    const std::string message(Message(loaded.status()));
    const bool names_field =
        message.starts_with("positive_label") || message.starts_with("negative_label");
    return absl::Status(loaded.status().code(), names_field
                                                    ? absl::StrCat("spec.reward_model.", message)
                                                    : absl::StrCat(field, ": ", message));
  }
  for (const std::string& warning : (*loaded)->warnings()) job.Warn(warning);
  job.Log(absl::StrCat("reward model ", spec.identifier, ", from ", folder.string(), ", on cpu"));
  return loaded;
}

DataSize SizeOf(const std::vector<Ids>& queries) {
  DataSize size = {.rows = static_cast<int64_t>(queries.size())};
  for (const Ids& query : queries) size.tokens += static_cast<int64_t>(query.size());
  return size;
}

// Draws the responses with the policy as it is: no top_k, no top_p and no penalties. The draws
// depend on the seed, the update and a query's place among those of all ranks alone.
absl::StatusOr<std::vector<Ids>> Generate(const std::vector<const Ids*>& queries, int64_t update,
                                          const PpoSpec& ppo, model::Decoder& policy,
                                          TrainingJob& job) {
  const auto first = static_cast<uint64_t>(job.group().rank()) * queries.size();
  std::vector<engine::GenerationRequest> requests;
  for (size_t i = 0; i < queries.size(); ++i) {
    requests.push_back(
        {.prompt_ids = *queries[i],
         .params = {.max_tokens = ppo.response_tokens,
                    .temperature = ppo.options.temperature + 1e-7,
                    .top_p = 1.0,
                    .seed = job.spec().seed + (static_cast<uint64_t>(update + 1) << 32)},
         .item_index = first + i});
  }
  const auto engine = engine::Engine::Create(&policy, &job.tokenizer(), {});
  ASSIGN_OR_RETURN(std::vector<engine::Completion> completions,
                   engine->Generate(requests, [&](const engine::GenerationProgress&) {
                     return !job.context().is_stopped();
                   }));
  std::vector<Ids> responses;
  for (engine::Completion& completion : completions) {
    responses.push_back(std::move(completion.token_ids));
  }
  return responses;
}

absl::StatusOr<std::vector<double>> Score(train::RewardModel& reward,
                                          const text::Tokenizer& tokenizer,
                                          const std::vector<Ids>& responses) {
  std::vector<std::string> texts;
  for (const Ids& response : responses) texts.push_back(train::ResponseText(tokenizer, response));
  return reward.Score(texts);
}

absl::Status Ppo(const Field& spec, TrainingJob& job) {
  ASSIGN_OR_RETURN(const data::QueryData data, data::ReadQueryData(spec));
  ASSIGN_OR_RETURN(PpoSpec ppo, ReadPpo(spec, job));
  RETURN_IF_ERROR(job.Join());
  RETURN_IF_ERROR(job.Open());
  ASSIGN_OR_RETURN(const std::vector<Ids> queries, LoadQueries(data, ppo, job));
  const DataSize size = SizeOf(queries);
  ppo.options.batches.batch_size = std::min(ppo.options.batches.batch_size, size.rows);
  if (const absl::Status fits = train::CheckPpoOptions(ppo.options); !fits.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("spec.training.", fits.message()));
  }
  std::unique_ptr<train::RewardModel> reward;
  if (ppo.reward) {
    ASSIGN_OR_RETURN(reward, LoadReward(*ppo.reward, job));
  } else {
    job.Warn("spec.reward_model: none is given: the untrained value head scores the responses");
  }

  const at::ScalarType compute = job.spec().compute;
  ASSIGN_OR_RETURN(const auto reference, job.LoadModel(WeightsFor::kUse));
  ASSIGN_OR_RETURN(const auto policy, job.LoadModel(WeightsFor::kTraining));
  policy->AddEosIds({*job.tokenizer().eos_id()});
  ppo.options.eos_ids = policy->info().eos_ids;
  train::ValueHead head =
      train::ValueHead::Random(policy->info().hidden_size, job.spec().seed, policy->device());
  train::TrainedWeights weights(
      train::PolicyWeights(*policy, head),
      {.compute = compute, .zero_stage = job.zero_stage(), .group = &job.group()});
  train::TrainingLayerRunner layers(job.spec().recompute, weights.hooks());

  train::PpoSeams seams;
  seams.generate = [&](const std::vector<const Ids*>& batch, int64_t update) {
    return Generate(batch, update, ppo, *policy, job);
  };
  if (reward) {
    seams.score = [&](const std::vector<const Ids*>&, const std::vector<Ids>& responses) {
      return Score(*reward, job.tokenizer(), responses);
    };
  }
  train::PpoTrainer trainer(ppo.options, {policy.get(), &head, &layers, &weights, reference.get()},
                            seams, &queries, &job.group());
  RETURN_IF_ERROR(
      job.Train(trainer, size, *policy, weights, FullModelFiles(job, *policy, at::kFloat)));
  return job.Save(weights, "checkpoints/final_model", OutputFile::Kind::kFinalModel,
                  "final_model_path");
}

}  // namespace

absl::StatusOr<TaskOutcome> RunPpo(const TaskContext& context, const TrainingDevice& device,
                                   const EnvLookup& env) {
  return RunTrainingTask(context, kDefaults, device, env, Ppo);
}

}  // namespace flowmesh::tasks
