#include "executors/tasks/inference_spec.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/strings.h"
#include "executors/tasks/unread_keys.h"

namespace flowmesh::tasks {
namespace {

using Warn = std::function<void(const std::string&)>;

// `model.vllm` and `model.transformers`: the running engine's own block first (TASKS.md 1.5).
class EngineBlocks {
 public:
  EngineBlocks(const Field& model, bool use_cuda)
      : own_(model[use_cuda ? "vllm" : "transformers"]),
        other_(model[use_cuda ? "transformers" : "vllm"]) {}

  absl::Status Check() const {
    RETURN_IF_ERROR(own_.CheckMap());
    return other_.CheckMap();
  }
  Field operator[](std::string_view key) const {
    return !own_[key].present() && other_[key].present() ? other_[key] : own_[key];
  }

 private:
  const Field own_, other_;
};

absl::StatusOr<std::optional<c10::ScalarType>> ReadDtype(const Field& field) {
  ASSIGN_OR_RETURN(const std::string given, field.StringOr("auto"));
  const std::string name = ToLower(Trim(given));
  if (name.empty() || name == "auto") return std::nullopt;
  if (name == "float32" || name == "fp32" || name == "float") return c10::ScalarType::Float;
  if (name == "bfloat16" || name == "bf16") return c10::ScalarType::BFloat16;
  if (name == "float16" || name == "fp16" || name == "half") return c10::ScalarType::Half;
  return field.Expected("auto, float16, bfloat16 or float32");
}

absl::Status CheckDeviceMap(const Field& field, bool has_cuda, bool enforce_cpu) {
  ASSIGN_OR_RETURN(const std::string given, field.StringOr("auto"));
  const std::string map = ToLower(Trim(given));
  if (map == "cuda" && enforce_cpu) {
    return field.Error("cuda contradicts spec.enforce_cpu");
  }
  if (map == "cuda" && !has_cuda) return field.Error("cuda: this worker has no GPU");
  for (const char* known : {"", "auto", "balanced", "balanced_low_0", "cpu", "cuda"}) {
    if (map == known) return absl::OkStatus();
  }
  return field.Expected("auto, balanced, balanced_low_0, cpu or cuda");
}

absl::Status RefuseQuantised(const EngineBlocks& blocks, bool use_cuda) {
  for (const char* key : {"load_in_8bit", "load_in_4bit"}) {
    ASSIGN_OR_RETURN(const bool wanted, blocks[key].BoolOr(false));
    if (!wanted) continue;
    return blocks[key].Error(
        absl::StrCat("quantised loading is not supported on ", use_cuda ? "a GPU" : "the CPU",
                     " by this version of the worker; a quantised GGUF file is"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadIdentifier(const Field& field, bool use_cuda,
                                           const EnvLookup& env) {
  if (field.present()) {
    ASSIGN_OR_RETURN(const std::string given, field.String());
    if (!Trim(given).empty()) return std::string(Trim(given));
  }
  for (const char* name :
       {use_cuda ? "VLLM_MODEL" : "HF_MODEL", use_cuda ? "HF_MODEL" : "VLLM_MODEL"}) {
    const std::string value(Trim(env(name).value_or("")));
    if (!value.empty()) return value;
  }
  return field.Error("required (or set VLLM_MODEL or HF_MODEL)");
}

absl::StatusOr<ModelSpec> ReadModel(const Field& spec, bool has_cuda, bool enforce_cpu,
                                    const EnvLookup& env, const Warn& warn) {
  const bool use_cuda = has_cuda && !enforce_cpu;
  const Field model = spec["model"], source = model["source"];
  RETURN_IF_ERROR(model.CheckMap());
  RETURN_IF_ERROR(source.CheckMap());
  const EngineBlocks blocks(model, use_cuda);
  RETURN_IF_ERROR(blocks.Check());
  ModelSpec result;
  ASSIGN_OR_RETURN(result.identifier, ReadIdentifier(source["identifier"], use_cuda, env));
  ASSIGN_OR_RETURN(const std::string revision, source["revision"].StringOr("main"));
  result.revision = Trim(revision).empty() ? "main" : std::string(Trim(revision));
  ASSIGN_OR_RETURN(result.dtype, ReadDtype(blocks["dtype"]));
  ASSIGN_OR_RETURN(const std::string download_dir, blocks["download_dir"].StringOr(""));
  result.download_dir = std::string(Trim(download_dir));
  if (const Field limit = blocks["max_model_len"]; limit.present()) {
    ASSIGN_OR_RETURN(result.max_model_len, limit.Int(1));
    result.max_model_len_path = limit.path();
  }
  const Field share = blocks["gpu_memory_utilization"];
  ASSIGN_OR_RETURN(result.gpu_memory_utilization, share.NumberOr(0.9, {.above = 0, .at_most = 1}));
  const Field parallel = blocks["tensor_parallel_size"];
  ASSIGN_OR_RETURN(const int64_t devices, parallel.IntOr(1, 1));
  if (devices > 1) {
    warn(absl::StrCat(parallel.path(), ": lowered from ", devices,
                      " to 1: this version of the worker runs a model on one device"));
  }
  RETURN_IF_ERROR(CheckDeviceMap(blocks["device_map"], has_cuda, enforce_cpu));
  RETURN_IF_ERROR(RefuseQuantised(blocks, use_cuda));
  ASSIGN_OR_RETURN(result.adapters, ReadAdapters(model["adapters"], warn));
  ASSIGN_OR_RETURN(result.checkpoint, ReadCheckpointLoad(spec));
  return result;
}

absl::StatusOr<std::vector<std::string>> ReadStop(const Field& field) {
  std::vector<std::string> stop;
  if (field.present() && field.json().is_string()) {
    stop.push_back(field.json().get<std::string>());
  } else if (field.present() && field.json().is_array()) {
    ASSIGN_OR_RETURN(stop, field.StringList());
  } else if (field.present()) {
    return field.Expected("a string or a list of strings");
  }
  std::erase(stop, "");
  return stop;
}

absl::StatusOr<engine::SamplingParams> ReadSampling(const Field& spec, bool use_cuda) {
  const Field block = spec["inference"];
  RETURN_IF_ERROR(block.CheckMap());
  engine::SamplingParams params;
  const Field max_tokens = use_cuda ? block.FirstOf({"max_tokens", "max_new_tokens"})
                                    : block.FirstOf({"max_new_tokens", "max_tokens"});
  ASSIGN_OR_RETURN(params.max_tokens, max_tokens.IntOr(512, 1));
  ASSIGN_OR_RETURN(params.temperature, block["temperature"].NumberOr(0.7, {.at_least = 0}));
  ASSIGN_OR_RETURN(params.top_p, block["top_p"].NumberOr(0.95, {.above = 0, .at_most = 1}));
  ASSIGN_OR_RETURN(params.top_k, block["top_k"].IntOr(use_cuda ? -1 : 50));
  ASSIGN_OR_RETURN(params.repetition_penalty,
                   block["repetition_penalty"].NumberOr(1.0, {.above = 0}));
  ASSIGN_OR_RETURN(params.presence_penalty, block["presence_penalty"].NumberOr(0.0));
  ASSIGN_OR_RETURN(params.frequency_penalty, block["frequency_penalty"].NumberOr(0.0));
  ASSIGN_OR_RETURN(const bool do_sample, block["do_sample"].BoolOr(true));
  params.greedy = !do_sample;
  ASSIGN_OR_RETURN(params.stop, ReadStop(block["stop"]));
  const EngineBlocks engine(spec["model"], use_cuda);
  const Field seed = block["seed"].present() ? block["seed"] : engine["seed"];
  ASSIGN_OR_RETURN(const int64_t number, seed.IntOr(0));
  params.seed = static_cast<uint64_t>(number);
  return params;
}

absl::StatusOr<std::string> ReadSystemPrompt(const Field& spec) {
  for (const char* key : {"system_prompt", "systemPrompt"}) {
    ASSIGN_OR_RETURN(const std::string text, spec["inference"][key].StringOr(""));
    if (!text.empty()) return text;
  }
  return std::string();
}

absl::StatusOr<InferenceUnit> ReadUnit(const Field& spec, std::string task_id, bool use_cuda) {
  InferenceUnit unit{.task_id = std::move(task_id)};
  ASSIGN_OR_RETURN(unit.params, ReadSampling(spec, use_cuda));
  ASSIGN_OR_RETURN(const std::string system_prompt, ReadSystemPrompt(spec));
  ASSIGN_OR_RETURN(unit.chat, ReadChatSettings(spec, system_prompt));
  ASSIGN_OR_RETURN(data::PromptSource source,
                   unit.chat ? data::ReadPrompts(spec, "", /*with_messages=*/true)
                             : data::ReadPrompts(spec, system_prompt));
  unit.prompts = std::move(source.prompts);
  unit.data_set = std::move(source.data_set);
  ASSIGN_OR_RETURN(unit.jsonl_export, data::ReadJsonlExport(spec));
  return unit;
}

// The name of the first setting in which the two differ; empty for none.
std::string FirstDifference(const engine::SamplingParams& a, const engine::SamplingParams& b) {
  if (a.max_tokens != b.max_tokens) return "max_tokens";
  if (a.temperature != b.temperature) return "temperature";
  if (a.top_p != b.top_p) return "top_p";
  if (a.top_k != b.top_k) return "top_k";
  if (a.greedy != b.greedy) return "do_sample";
  if (a.repetition_penalty != b.repetition_penalty) return "repetition_penalty";
  if (a.presence_penalty != b.presence_penalty) return "presence_penalty";
  if (a.frequency_penalty != b.frequency_penalty) return "frequency_penalty";
  if (a.stop != b.stop) return "stop";
  if (a.seed != b.seed) return "seed";
  return "";
}

// `child`: an entry of merge_children. Nothing when it is to be skipped.
absl::StatusOr<std::optional<InferenceUnit>> ReadChild(const Field& child, const Field& parent_spec,
                                                       const InferenceUnit& parent, bool use_cuda,
                                                       const Warn& warn) {
  const absl::StatusOr<std::string> id = child["task_id"].NonEmptyString();
  if (!id.ok() || !child["spec"].json().is_object()) {
    warn(absl::StrCat(child.path(), " has no task_id or no spec and is skipped"));
    return std::nullopt;
  }
  const std::string label = absl::StrCat(child.path(), " (task ", *id, "): ");
  const Field spec(&child["spec"].json(), "spec");
  auto unit = ReadUnit(spec, *id, use_cuda);
  if (!unit.ok()) {
    return absl::Status(unit.status().code(), absl::StrCat(label, unit.status().message()));
  }
  const std::string difference = FirstDifference(parent.params, unit->params);
  if (!difference.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(label, "spec.inference differs from the parent's in ", difference));
  }
  if (parent.chat.has_value() != unit->chat.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(label, "spec.inference differs from the parent's in apply_chat_template"));
  }
  if (unit->chat && unit->chat->template_variables != parent.chat->template_variables) {
    return absl::InvalidArgumentError(
        absl::StrCat(label, "spec.inference differs from the parent's in chat_template_kwargs"));
  }
  for (const char* key : {"model", "checkpoint"}) {
    if (!spec[key].present() || spec[key].json() == parent_spec[key].json()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(label, spec[key].path(), " differs from the parent's"));
  }
  unit->label = label;
  return *std::move(unit);
}

void WarnOfUnreadKeys(const Field& spec, const Warn& warn) {
  WarnOfUnread(
      spec["inference"],
      {"max_tokens", "max_new_tokens", "temperature", "top_p", "top_k", "do_sample",
       "repetition_penalty", "presence_penalty", "frequency_penalty", "stop", "system_prompt",
       "systemPrompt", "seed", "apply_chat_template", "chat_template_kwargs"},
      warn);
  WarnOfUnread(spec["model"], {"source", "vllm", "transformers", "adapters", "config"}, warn);
  WarnOfUnread(spec["model"]["source"], {"identifier", "revision", "type", "trust_remote_code"},
               warn);
  for (const char* engine : {"vllm", "transformers"}) {
    WarnOfUnread(
        spec["model"][engine],
        {"dtype", "tensor_parallel_size", "gpu_memory_utilization", "max_model_len", "download_dir",
         "seed", "device_map", "load_in_8bit", "load_in_4bit", "trust_remote_code",
         "release_after_run", "low_cpu_mem_usage", "use_flash_attention_2"},
        warn);
  }
  const Field adapters = spec["model"]["adapters"];
  for (size_t i = 0; i < adapters.size(); ++i) {
    WarnOfUnread(adapters[i],
                 {"type", "name", "id", "adapter_id", "apply", "path", "taskId", "task_id", "url",
                  "headers", "archive_format", "scale"},
                 warn);
  }
  WarnOfUnread(spec["checkpoint"]["load"],
               {"type", "path", "uri", "taskId", "task_id", "url", "base_url", "headers",
                "timeoutSec", "filename", "archive_format", "subdir"},
               warn);
  WarnOfUnread(spec["data"],
               {"type",
                "items",
                "metadata",
                "items_metadata",
                "template",
                "url",
                "dataset_name",
                "name",
                "config_name",
                "revision",
                "split",
                "shuffle",
                "seed",
                "trust_remote_code",
                "buffer_size",
                "column",
                "metadata_columns",
                "metadata_include_all",
                "headers",
                "timeoutSec"},
               warn);
  WarnOfUnread(spec["shard"], {"index", "total", "contiguous"}, warn);
  WarnOfUnread(spec["postprocess"], {"jsonl_export"}, warn);
  WarnOfUnread(spec["postprocess"]["jsonl_export"], {"path", "fields", "required_fields"}, warn);
}

}  // namespace

absl::StatusOr<InferenceSpec> ReadInferenceSpec(const Json& document, bool has_cuda,
                                                const EnvLookup& env, const Warn& warn) {
  const Field root(&document, "");
  const Field spec = root["spec"];
  if (!spec.json().is_object()) return spec.Expected("a map");
  ASSIGN_OR_RETURN(const bool enforce_cpu, spec["enforce_cpu"].BoolOr(false));
  InferenceSpec result;
  result.use_cuda = has_cuda && !enforce_cpu;
  ASSIGN_OR_RETURN(result.model, ReadModel(spec, has_cuda, enforce_cpu, env, warn));
  ASSIGN_OR_RETURN(const std::string task_id, root["task_id"].StringOr(""));
  ASSIGN_OR_RETURN(InferenceUnit parent, ReadUnit(spec, task_id, result.use_cuda));
  result.units.push_back(std::move(parent));
  const Field children = root["merge_children"];
  RETURN_IF_ERROR(children.CheckList());
  for (size_t i = 0; i < children.size(); ++i) {
    ASSIGN_OR_RETURN(auto child,
                     ReadChild(children[i], spec, result.units[0], result.use_cuda, warn));
    if (child) result.units.push_back(*std::move(child));
  }
  WarnOfUnreadKeys(spec, warn);
  return result;
}

}  // namespace flowmesh::tasks
