#include "executors/tasks/inference.h"

#include <algorithm>
#include <filesystem>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "executors/engine/engine.h"
#include "executors/model/adapter.h"
#include "executors/tasks/data_context.h"
#include "executors/tasks/model_files.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;

std::string DtypeName(std::optional<at::ScalarType> dtype) {
  if (!dtype) return "auto";
  if (*dtype == at::kFloat) return "float32";
  return *dtype == at::kHalf ? "float16" : "bfloat16";
}

absl::StatusOr<int64_t> ContextLimit(const ModelSpec& spec, int64_t model_limit) {
  if (!spec.max_model_len) return model_limit;
  if (*spec.max_model_len <= model_limit) return *spec.max_model_len;
  return absl::InvalidArgumentError(
      absl::StrCat(spec.max_model_len_path, ": expected an integer of at most ", model_limit,
                   " (the model's limit), got ", *spec.max_model_len));
}

absl::Status CheckLength(const InferenceUnit& unit, const data::Prompt& prompt, size_t tokens,
                         int64_t limit, const ModelSpec& spec) {
  if (tokens == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(unit.label, prompt.path, ": the prompt has no tokens"));
  }
  if (static_cast<int64_t>(tokens) < limit) return absl::OkStatus();
  const std::string source = spec.max_model_len_path.empty()
                                 ? "the model's own"
                                 : spec.max_model_len_path.substr(std::string("spec.").size());
  return absl::InvalidArgumentError(absl::StrCat(
      unit.label, prompt.path, ": prompt has ", tokens, " tokens, limit is ", limit, " (", source,
      ")", static_cast<int64_t>(tokens) == limit ? ", which leaves no room for an answer" : ""));
}

// A tokenizer may know tokens that the model has no row for: one that was added for padding, say.
absl::Status CheckIds(const InferenceUnit& unit, const data::Prompt& prompt,
                      const std::vector<text::TokenId>& ids, const text::Tokenizer& tokenizer,
                      int64_t vocab_size) {
  const auto bad =
      std::find_if(ids.begin(), ids.end(), [&](text::TokenId id) { return id >= vocab_size; });
  if (bad == ids.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(unit.label, prompt.path, ": expected tokens of the model's vocabulary of ",
                   vocab_size, ", got '", tokenizer.TokenText(*bad), "', which is number ", *bad));
}

// One request per prompt of each unit, in their order.
absl::StatusOr<std::vector<engine::GenerationRequest>> MakeRequests(
    const InferenceSpec& spec, const text::Tokenizer& tokenizer, int64_t limit,
    int64_t vocab_size) {
  std::vector<engine::GenerationRequest> requests;
  for (const InferenceUnit& unit : spec.units) {
    for (size_t i = 0; i < unit.prompts.size(); ++i) {
      engine::GenerationRequest request{
          .prompt_ids = tokenizer.Encode(unit.prompts[i].rendered,
                                         /*add_special_tokens=*/!unit.chat.has_value()),
          .params = unit.params,
          .item_index = i};
      RETURN_IF_ERROR(
          CheckLength(unit, unit.prompts[i], request.prompt_ids.size(), limit, spec.model));
      RETURN_IF_ERROR(CheckIds(unit, unit.prompts[i], request.prompt_ids, tokenizer, vocab_size));
      requests.push_back(std::move(request));
    }
  }
  return requests;
}

using Requests = std::span<const engine::GenerationRequest>;
using Completions = std::span<const engine::Completion>;

Json Usage(Requests requests, Completions completions, double seconds) {
  size_t prompt = 0, completion = 0;
  for (const engine::GenerationRequest& r : requests) prompt += r.prompt_ids.size();
  for (const engine::Completion& c : completions) completion += c.token_ids.size();
  return {{"prompt_tokens", prompt},
          {"completion_tokens", completion},
          {"total_tokens", prompt + completion},
          {"latency_sec", seconds},
          {"num_requests", requests.size()}};
}

Json ResultOf(const std::string& model, const InferenceUnit& unit, Completions completions) {
  Json items = Json::array();
  for (size_t i = 0; i < unit.prompts.size(); ++i) {
    items.push_back({{"index", i},
                     {"prompt", unit.prompts[i].rendered},
                     {"output", completions[i].text},
                     {"finish_reason", completions[i].finish_reason},
                     {"metadata", unit.prompts[i].metadata}});
  }
  return {{"ok", true}, {"model", model}, {"items", std::move(items)}};
}

// Writes the unit's export, if it wants one, into `dir` and notes it in `result` and `outputs`.
absl::Status Export(const InferenceUnit& unit, const fs::path& dir, Json& result,
                    std::vector<OutputFile>& outputs) {
  if (!unit.jsonl_export) return absl::OkStatus();
  auto block = data::WriteJsonlExport(*unit.jsonl_export, result["items"], dir, unit.task_id);
  if (!block.ok()) {
    return absl::Status(block.status().code(), absl::StrCat(unit.label, block.status().message()));
  }
  outputs.push_back({.kind = OutputFile::Kind::kJsonlExport,
                     .task_id = unit.task_id,
                     .path = (*block)["worker_path"].get<std::string>()});
  result["jsonl_export"] = *std::move(block);
  return absl::OkStatus();
}

// An adapter as it was found.
struct AdapterFolder {
  std::string field;  // that gave it, for errors
  fs::path path;
  std::string stamp;
  bool merge = false;
  double scale = 1.0;
};

// All that go onto the model, in their order: that of checkpoint.load first.
absl::StatusOr<std::vector<AdapterFolder>> FindAdapters(const ModelSpec& spec,
                                                        const ModelFiles& files,
                                                        const TaskContext& context,
                                                        const EnvLookup& env) {
  std::vector<AdapterFolder> found;
  // Its stamp is among those of the files.
  if (const auto path = files.adapter()) {
    found.push_back({.field = files.overlay_field, .path = *path, .merge = true});
  }
  for (const AdapterSource& adapter : spec.adapters) {
    ASSIGN_OR_RETURN(Fetched fetched,
                     Fetch(adapter.source, AdapterOptions(context, adapter), context, env));
    auto folder = model::FindAdapterFolder(fetched.path);
    if (!folder.ok()) return Annotate(folder.status(), adapter.source.field);
    found.push_back({adapter.source.field, *std::move(folder), std::move(fetched.stamp),
                     adapter.merge, adapter.scale});
    context.on_log(LogLevel::kInfo, absl::StrCat("adapter ", adapter.name, ": ",
                                                 adapter.merge ? "merged" : "at runtime", ", from ",
                                                 found.back().path.string()));
  }
  return found;
}

absl::Status PutOn(const std::vector<AdapterFolder>& adapters, model::Decoder& model,
                   const TaskContext& context) {
  std::set<std::string> whole;  // what adapters have put in the place of the model's own
  for (const AdapterFolder& folder : adapters) {
    if (context.is_stopped()) return absl::CancelledError("stopped");
    const auto adapter = model::ReadAdapter(folder.path, model);
    if (!adapter.ok()) return Annotate(adapter.status(), folder.field);
    for (const auto& [name, tensor] : adapter->whole) {
      if (whole.insert(name).second) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(folder.field, ": ", folder.path.string(), ": has ", name,
                       " whole (modules_to_save, or a bias), and so has an adapter before it"));
    }
    (folder.merge ? model::Merge : model::Attach)(*adapter, folder.scale, model);
  }
  return absl::OkStatus();
}

// Makes the rows of data sets the prompts of their units: before the model is loaded, since it is
// here that most mistakes show.
absl::Status LoadDataSets(InferenceSpec& spec, const TaskContext& context, const EnvLookup& env) {
  for (InferenceUnit& unit : spec.units) {
    if (!unit.data_set) continue;
    context.on_progress({.stage = "loading data"});
    auto prompts = data::LoadPrompts(*unit.data_set, DataContextOf(context, env));
    if (!prompts.ok()) {
      return absl::Status(prompts.status().code(),
                          absl::StrCat(unit.label, prompts.status().message()));
    }
    unit.prompts = *std::move(prompts);
  }
  return absl::OkStatus();
}

// Of the units that ask for the chat template.
absl::Status RenderUnits(InferenceSpec& spec, const text::Tokenizer& tokenizer) {
  for (InferenceUnit& unit : spec.units) {
    if (!unit.chat) continue;
    const absl::Status status = RenderChats(*unit.chat, tokenizer, unit.prompts);
    if (!status.ok()) {
      return absl::Status(status.code(), absl::StrCat(unit.label, status.message()));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status InferenceRunner::Load(const InferenceSpec& spec, const TaskContext& context) {
  ASSIGN_OR_RETURN(const ModelFiles files,
                   FindModel({spec.model.identifier, spec.model.revision, spec.model.download_dir},
                             spec.model.checkpoint,
                             CheckpointOptions(context, /*adapter_first=*/false), context, env_));
  ASSIGN_OR_RETURN(const auto adapters, FindAdapters(spec.model, files, context, env_));
  const at::Device device = spec.use_cuda ? gpu_ : at::Device(at::kCPU);
  std::string key =
      absl::StrCat(spec.model.identifier, "\n", spec.model.revision, "\n",
                   DtypeName(spec.model.dtype), "\n", device.str(), "\n", files.stamp);
  for (const AdapterFolder& adapter : adapters) {
    absl::StrAppend(&key, "\n", adapter.merge ? "merge" : "runtime", " ", adapter.scale, " ",
                    adapter.stamp);
  }
  if (key == model_key_) {
    context.on_log(LogLevel::kInfo, absl::StrCat("model ", spec.model.identifier, " is warm"));
    return absl::OkStatus();
  }
  const double begin = MonotonicSeconds();
  ASSIGN_OR_RETURN(const model::Checkpoint checkpoint, OpenModelFiles(files));
  // The old one goes first: two may not fit.
  model_key_.clear();
  model_ = {};
  bool is_loaded = false;
  auto loaded = model::LoadModel(
      checkpoint,
      {.dtype = spec.model.dtype,
       .device = device,
       .progress =
           [&](uint64_t done, uint64_t total) {
             context.on_progress(
                 {.stage = "loading model", .done = done, .total = total, .unit = "bytes"});
           }},
      [&](model::Decoder& decoder) {
        is_loaded = true;
        return PutOn(adapters, decoder, context);
      });
  if (!loaded.ok()) {
    const bool names_field = is_loaded || !files.overlay.empty();  // or has two that it may be
    return names_field ? loaded.status() : Annotate(loaded.status(), files.field());
  }
  for (const std::string& warning : loaded->warnings) context.on_log(LogLevel::kWarning, warning);
  model_ = *std::move(loaded);
  model_key_ = std::move(key);
  context.on_log(
      LogLevel::kInfo,
      absl::StrFormat("loaded model %s in %.2f s: path %s%s, revision %s, device %s, dtype "
                      "%s, parallel size 1",
                      spec.model.identifier, MonotonicSeconds() - begin, model_.path.string(),
                      files.overlay.empty() ? "" : ", weights of " + files.overlay.string(),
                      spec.model.revision, device.str(), DtypeName(model_.model->dtype())));
  return absl::OkStatus();
}

absl::StatusOr<TaskOutcome> InferenceRunner::Answer(const InferenceSpec& spec,
                                                    const TaskContext& context) {
  ASSIGN_OR_RETURN(const int64_t limit,
                   ContextLimit(spec.model, model_.model->info().max_positions));
  ASSIGN_OR_RETURN(const auto requests,
                   MakeRequests(spec, *model_.tokenizer, limit, model_.model->info().vocab_size));
  const auto engine = engine::Engine::Create(
      &model_,
      {.max_model_len = limit, .gpu_memory_utilization = spec.model.gpu_memory_utilization});
  const double begin = MonotonicSeconds();
  ASSIGN_OR_RETURN(const std::vector<engine::Completion> completions,
                   engine->Generate(requests, [&](const engine::GenerationProgress& progress) {
                     const double tokens = static_cast<double>(progress.completion_tokens);
                     context.on_progress({.stage = "generating",
                                          .done = progress.finished,
                                          .total = progress.total,
                                          .unit = "items",
                                          .tokens_per_second =
                                              tokens / std::max(MonotonicSeconds() - begin, 1e-9)});
                     return !context.is_stopped();
                   }));
  const double seconds = MonotonicSeconds() - begin;

  TaskOutcome outcome;
  size_t first = 0;
  for (const InferenceUnit& unit : spec.units) {
    const size_t count = unit.prompts.size();
    const Completions answers = Completions(completions).subspan(first, count);
    Json result = ResultOf(spec.model.identifier, unit, answers);
    const bool is_parent = &unit == &spec.units.front();
    result["usage"] = is_parent ? Usage(requests, completions, seconds)
                                : Usage(Requests(requests).subspan(first, count), answers, seconds);
    const auto dir = context.child_dirs.find(unit.task_id);
    RETURN_IF_ERROR(
        Export(unit, is_parent || dir == context.child_dirs.end() ? context.task_dir : dir->second,
               result, outcome.outputs));
    context.on_log(LogLevel::kInfo, absl::StrCat("task ", unit.task_id, ": ", count, " prompts"));
    if (is_parent) {
      outcome.result = std::move(result);
    } else {
      outcome.result["children"][unit.task_id] = std::move(result);
    }
    first += count;
  }
  const Json& usage = outcome.result["usage"];
  context.on_log(LogLevel::kInfo,
                 absl::StrFormat("%d completion tokens in %.2f s, %.1f tokens/s",
                                 usage["completion_tokens"].get<int64_t>(), seconds,
                                 usage["completion_tokens"].get<double>() / seconds));
  return outcome;
}

absl::StatusOr<TaskOutcome> InferenceRunner::Run(const TaskContext& context) {
  ASSIGN_OR_RETURN(InferenceSpec spec, ReadInferenceSpec(context.document, use_cuda_, env_,
                                                         [&](const std::string& text) {
                                                           context.on_log(LogLevel::kWarning, text);
                                                         }));
  RETURN_IF_ERROR(LoadDataSets(spec, context, env_));
  RETURN_IF_ERROR(Load(spec, context));
  RETURN_IF_ERROR(RenderUnits(spec, *model_.tokenizer));
  return Answer(spec, context);
}

}  // namespace flowmesh::tasks
