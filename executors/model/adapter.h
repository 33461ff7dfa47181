// Low-rank adapters (LoRA) in PEFT's form: reading and writing their folders, and putting them on a
// model (TASKS.md 2.3, 4.5, 5.5).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/field.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/model/decoder.h"
#include "executors/model/safetensors_writer.h"

namespace flowmesh::model {

enum class LoraBias { kNone, kAll, kLoraOnly };

// adapter_config.json, as far as it is read.
struct LoraConfig {
  int64_t r = 16;
  double alpha = 32;
  double dropout = 0.05;
  LoraBias bias = LoraBias::kNone;
  std::vector<std::string> target_modules;  // names or paths; one `all-linear`: see below
  bool use_rslora = false;
  std::vector<std::string> modules_to_save;  // names of modules that the adapter has whole
  // By regular expressions of a path, or of its end behind a dot; the first that matches counts.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;

  // The factor s of TASKS.md 4.5 for a module.
  double ScaleOf(const std::string& path) const;
  int64_t RankOf(const std::string& path) const;
};

// The linear layers that the names mean, in the model's order: a name matches a path that equals it
// or ends in `.` + name; `all-linear` all but the head. InvalidArgument (without a field's path): a
// name of something that is no linear layer, of the head or the embeddings; none matches (the
// model's linear layers are listed).
absl::StatusOr<std::vector<LinearModule>> TargetModules(const Decoder& model,
                                                        const std::vector<std::string>& names);

// An adapter as it lies in a folder.
struct Adapter {
  LoraConfig config;
  std::map<std::string, LowRank> modules;  // A and B by path
  // What takes the place of the model's own, by stored name and as it is stored: biases (lora_only,
  // all) and what is in modules_to_save.
  std::map<std::string, at::Tensor> whole;
};

// The folder at or below `root` that holds adapter_config.json. NotFound.
absl::StatusOr<std::filesystem::path> FindAdapterFolder(const std::filesystem::path& root);

// InvalidArgument, naming the file and the key: another PEFT type, DoRA, a pattern that is no
// regular expression, a tensor whose layer or parameter the model does not have or of another
// shape, a layer without both matrices, a module that should be there whole and is not.
absl::StatusOr<Adapter> ReadAdapter(const std::filesystem::path& folder, const Decoder& model);

// Makes the adapter part of each forward pass, times `scale`; in the dtype of its own weights.
// Both: what the adapter has whole takes the place of the model's, whatever `scale` is. Where that
// is the embeddings of a tied model, its head stays as it was, and the other way round, as in PEFT.
void Attach(const Adapter& adapter, double scale, Decoder& model);
// Folds it into the weights: W + s * scale * B A, computed in float32.
void Merge(const Adapter& adapter, double scale, Decoder& model);

// Writes adapter_config.json and adapter_model.safetensors. `targets`: the modules that have A and
// B in `tensors`, whose keys are PEFT's.
absl::Status WriteAdapter(const std::filesystem::path& folder, const LoraConfig& config,
                          const std::string& base_model, bool fan_in_fan_out,
                          const std::vector<NamedTensor>& tensors);

// PEFT's key for a module's matrix: `base_model.model.<path>.lora_A.weight`.
std::string AdapterKey(const std::string& path, const char* matrix);

}  // namespace flowmesh::model
