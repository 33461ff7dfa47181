// A decoder language model of any supported family (TASKS.md 5.1), and how to load one.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/attention.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::model {

// What the engine must know of a model, whatever its family.
struct ModelInfo {
  std::string family;      // model_type: `llama`, `gemma3_text`, ...
  int64_t vocab_size = 0;  // rows of the output head
  int64_t hidden_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t max_positions = 0;  // the model's limit in tokens
  int64_t num_parameters = 0;
  std::vector<text::TokenId> eos_ids;  // the EOS set of TASKS.md 4.1
};

// One flat batch. All tensors are on the model's device.
struct ForwardInput {
  at::Tensor token_ids;   // [tokens] int64
  at::Tensor positions;   // [tokens] int64, place of each token in its own sequence
  at::Tensor logit_rows;  // [rows] int64: the tokens whose logits are wanted; undefined: all
  at::Tensor lengths;     // [tokens] int64: tokens of the sequence that each belongs to, those
                          // before and after it included (dynamic rope)
};

// Not thread-safe: one forward at a time. Parameters live on one device in one dtype (norm weights
// and rotary tables may be float32 besides).
class CausalLm {
 public:
  virtual ~CausalLm() = default;

  // Logits before any sampling, in the model's dtype: [rows, vocab_size].
  // Throws c10::Error (out of memory); the rank's task runner catches it.
  virtual at::Tensor Forward(const ForwardInput& input, Attention& attention) = 0;

  virtual const ModelInfo& info() const = 0;
  virtual at::Device device() const = 0;
  virtual at::ScalarType dtype() const = 0;
};

struct LoadOptions {
  // nullopt is `auto` (TASKS.md 2.2): on a GPU the checkpoint's, float32 as bfloat16 or, below
  // compute capability 8, float16; on the CPU float32; a GGUF file whose weights are quantised or
  // bfloat16 becomes bfloat16 on a GPU or a CPU with native bf16, else float32.
  std::optional<at::ScalarType> dtype;
  at::Device device = at::kCPU;
  // The weights in float32, for a training, which turns them into `dtype` itself; the model cannot
  // compute before that.
  bool master_weights = false;
  // Computes as torch.autocast has models do that are trained in half precision (Precision).
  bool autocast = false;
  // Called with bytes loaded and bytes in all, now and then, from the loading thread.
  std::function<void(uint64_t done, uint64_t total)> progress;
};

struct LoadedModel {
  std::unique_ptr<CausalLm> model;
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::filesystem::path path;         // the folder or GGUF file that was read
  std::vector<std::string> warnings;  // unexpected tensors and the like
};

// Loads a Hugging Face folder (config.json, safetensors, tokenizer files) or a GGUF file (or a
// folder whose only model file is one). NotFound: no such path, or a folder without a model in it
// (what was looked for is said). InvalidArgument: unknown model_type (the known ones are listed), a
// malformed or truncated file, a missing tensor or one of a wrong shape (both shapes), an
// unsupported tokenizer.
absl::StatusOr<LoadedModel> LoadModel(const std::filesystem::path& path,
                                      const LoadOptions& options);

// The same without a tokenizer, whose EOS is not in the model's EOS set then. `warnings` gets what
// LoadedModel::warnings would.
absl::StatusOr<std::unique_ptr<CausalLm>> LoadCausalLm(const std::filesystem::path& path,
                                                       const LoadOptions& options,
                                                       std::vector<std::string>* warnings);

}  // namespace flowmesh::model
