// The goldens of tests/goldens/models, for the tests of this folder and of those that use models.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "executors/model/causal_lm.h"
#include "executors/model/safetensors.h"

namespace flowmesh::model {

using Ids = std::vector<text::TokenId>;

std::filesystem::path ModelGolden(std::string_view name);
Json ReadModelGolden(std::string_view name);

// The named tensors of a safetensors file.
class GoldenTensors {
 public:
  explicit GoldenTensors(const std::filesystem::path& path);
  at::Tensor Get(const std::string& name) const;  // a copy

 private:
  std::unique_ptr<Safetensors> file_;
};

// One forward of whole sequences through the oracle's attention: the logits of all tokens of all
// of them, one sequence after another, on the CPU.
at::Tensor LogitsOf(CausalLm& model, const std::vector<Ids>& sequences);

// How far `got` is from `want` where it is farthest, in units of the tolerance that TASKS.md 4.8
// gives float32: 1e-5 and 1e-4 of the value, as torch.testing.assert_close adds them. At most 1 is
// within it.
double ErrorInTolerances(const at::Tensor& got, const at::Tensor& want);

// The largest difference as a part of the largest value.
double RelativeError(const at::Tensor& got, const at::Tensor& want);

}  // namespace flowmesh::model
