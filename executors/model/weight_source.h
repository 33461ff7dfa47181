// Where weights come from, in the names and shapes that the layers register: a Hugging Face folder
// or a GGUF file.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/config.h"
#include "executors/model/gguf.h"
#include "executors/model/safetensors.h"

namespace flowmesh::model {

// A stored tensor as a layer names it.
struct StoredName {
  std::string name;            // Hugging Face's, with the family's own prefix: `model.norm.weight`
  std::vector<int64_t> shape;  // as the layer wants it
  // Hugging Face's class stores the matrix as [in, out], layers want [out, in] (GPT-2).
  bool transposed = false;
};

// Immutable; one thread at a time.
class WeightSource {
 public:
  virtual ~WeightSource() = default;

  // The shape of `name` as the layer would get it; nothing when it is not there.
  virtual std::optional<std::vector<int64_t>> ShapeOf(const StoredName& name) const = 0;
  // Fills `out`, a contiguous CPU tensor of that shape.
  virtual void Read(const StoredName& name, const at::Tensor& out) const = 0;
  // The name in the file, for messages.
  virtual std::string DisplayName(const StoredName& name) const = 0;
  // The names of stored tensors that no `used` name reads, those that are known to be of no use
  // left out.
  virtual std::vector<std::string> Unused(const std::vector<StoredName>& used) const = 0;
  // The file or folder, for messages.
  virtual std::string Location() const = 0;
};

// A Hugging Face checkpoint. Finds out by itself under which prefix it keeps the model.
std::unique_ptr<WeightSource> MakeSafetensorsSource(std::unique_ptr<Safetensors> files,
                                                    const ModelConfig& config,
                                                    std::string location);

// A GGUF file, which outlives the source: its names mapped, rows of `llama` put back into the order
// of half rotation, Gemma's norm weights stored as w.
std::unique_ptr<WeightSource> MakeGgufSource(const GgufFile& file, const ModelConfig& config);

}  // namespace flowmesh::model
