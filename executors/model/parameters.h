// Parameters that load themselves: a layer registers each of its parameters with its name and
// shape when it is built, and everything else (loading, counting, freezing, sharding) is one
// generic pass over the list.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "executors/model/weight_source.h"

namespace flowmesh::model {

// The dimension that tensor parallelism splits; kNone: every rank holds all of it.
enum class Split { kNone, kRows, kColumns };

// One tensor of a layer. It may hold several stored tensors, stacked along the first dimension
// (q, k and v as one matrix), so that one product serves all.
struct Parameter {
  at::Tensor* tensor = nullptr;  // the layer's member; undefined until loaded
  std::vector<StoredName> parts;
  std::vector<int64_t> shape;  // [sum of the parts' rows, ...]
  Split split = Split::kNone;
  bool is_norm = false;

  int64_t numel() const;
};

// A low-rank addition to a linear layer (LoRA): y += scale * (dropout(x) Aᵀ) Bᵀ.
struct LowRank {
  at::Tensor a;  // [rank, in]
  at::Tensor b;  // [out, rank]
  double scale = 1.0;
  double dropout = 0.0;  // share of x's elements that a training step leaves out
};

// A linear layer as Transformers has it, by the dotted path of its module: what adapters are made
// for. Several may be parts of one matrix here.
struct LinearModule {
  std::string path;
  int64_t in = 0;
  int64_t out = 0;
  bool transposed = false;       // Transformers stores the matrix as [in, out]
  at::Tensor* weight = nullptr;  // its rows are [first_row, first_row + out)
  int64_t first_row = 0;
  std::vector<LowRank>* adapters = nullptr;  // the layer's own: what is added here takes part
};

// The list of one model. Layers must not move once they have registered.
class ParameterList {
 public:
  void Add(Parameter parameter) { parameters_.push_back(std::move(parameter)); }
  void AddLinear(LinearModule module) { linears_.push_back(std::move(module)); }
  const std::vector<Parameter>& all() const { return parameters_; }
  const std::vector<LinearModule>& linears() const { return linears_; }
  int64_t numel() const;

 private:
  std::vector<Parameter> parameters_;
  std::vector<LinearModule> linears_;
};

// Where in the tree of names a layer stands: `scope / "self_attn"` is its child.
class ParameterScope {
 public:
  explicit ParameterScope(ParameterList* list, std::string prefix = "")
      : list_(list), prefix_(std::move(prefix)) {}

  ParameterScope operator/(const std::string& name) const;
  ParameterScope operator/(int64_t index) const { return *this / std::to_string(index); }

  const std::string& path() const { return prefix_; }
  ParameterList& list() const { return *list_; }

  // Registers `tensor` as `<prefix>.<name>`.
  void Add(at::Tensor* tensor, const std::string& name, std::vector<int64_t> shape,
           Split split = Split::kNone, bool transposed = false) const;

  // Registers `tensor` as `<prefix>.<name>`, a norm's, [width].
  void AddNorm(at::Tensor* tensor, const std::string& name, int64_t width) const;

  // Registers `tensor` as a stack of `<prefix>.<part>.<name>`; `rows` are the parts' first
  // dimensions, `rest` the others.
  void AddStack(at::Tensor* tensor, const std::string& name, const std::vector<std::string>& parts,
                const std::vector<int64_t>& rows, std::vector<int64_t> rest, Split split) const;

 private:
  ParameterList* list_;
  std::string prefix_;
};

// What a model computes in.
struct Precision {
  at::ScalarType dtype;   // of products and, without autocast, of all else
  bool autocast = false;  // all but products in float32: norms, rotations, sums between the layers

  at::ScalarType beside_products() const { return autocast ? at::kFloat : dtype; }
  // Embeddings are looked up in `dtype`, and the result is float32 then.
  at::ScalarType Of(const Parameter& parameter) const {
    return parameter.is_norm ? beside_products() : dtype;
  }
};

// Gives every parameter of the list its tensor on `device`, filled from `source`. All shapes are
// proven before anything is allocated. InvalidArgument naming the tensor: missing, or of another
// shape (both are said). `progress` as in LoadOptions.
absl::Status LoadParameters(const ParameterList& list, const WeightSource& source,
                            const Precision& precision, at::Device device,
                            const std::function<void(uint64_t, uint64_t)>& progress);

// Adds a warning when the source holds tensors that no parameter of the lists reads.
void WarnOfUnused(const std::vector<const ParameterList*>& lists, const WeightSource& source,
                  std::vector<std::string>* warnings);

}  // namespace flowmesh::model
