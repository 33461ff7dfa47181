#include "executors/model/model_goldens.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "common/files.h"

namespace flowmesh::model {

std::filesystem::path ModelGolden(std::string_view name) {
  const char* source = std::getenv("FLOWMESH_SOURCE_DIR");
  if (source == nullptr) throw std::runtime_error("FLOWMESH_SOURCE_DIR is not set (ctest sets it)");
  return std::filesystem::path(source) / "tests/goldens/models" / name;
}

Json ReadModelGolden(std::string_view name) {
  const absl::StatusOr<std::string> text = ReadFile(ModelGolden(name));
  if (!text.ok()) throw std::runtime_error(text.status().ToString());
  return Json::parse(*text);
}

GoldenTensors::GoldenTensors(const std::filesystem::path& path) {
  auto file = Safetensors::OpenFile(path);
  if (!file.ok()) throw std::runtime_error(file.status().ToString());
  file_ = *std::move(file);
}

at::Tensor GoldenTensors::Get(const std::string& name) const {
  const SafetensorsTensor* tensor = file_->Find(name);
  if (tensor == nullptr) throw std::runtime_error("no golden tensor " + name);
  void* data = const_cast<std::byte*>(tensor->data.data());
  return at::from_blob(data, tensor->shape, at::TensorOptions(tensor->dtype)).clone();
}

at::Tensor LogitsOf(CausalLm& model, const std::vector<Ids>& sequences) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> ids, positions, lengths, token_lengths;
  ForwardInput input;
  for (const Ids& sequence : sequences) {
    for (size_t i = 0; i < sequence.size(); ++i) {
      ids.push_back(sequence[i]);
      positions.push_back(static_cast<int64_t>(i));
      token_lengths.push_back(static_cast<int64_t>(sequence.size()));
    }
    lengths.push_back(static_cast<int64_t>(sequence.size()));
  }
  const auto tensor = [&](std::vector<int64_t>& values) {
    return at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kLong)
        .to(model.device(), at::kLong, /*non_blocking=*/false, /*copy=*/true);
  };
  input.token_ids = tensor(ids);
  input.positions = tensor(positions);
  input.lengths = tensor(token_lengths);
  DenseAttention attention(tensor(lengths));
  return model.Forward(input, attention).to(at::kCPU, at::kFloat);
}

double ErrorInTolerances(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor exact = want.to(at::kCPU, at::kDouble);
  const at::Tensor tolerance = exact.abs() * 1e-4 + 1e-5;
  return ((got.to(at::kCPU, at::kDouble) - exact).abs() / tolerance).max().item<double>();
}

double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor exact = want.to(at::kDouble);
  return (got.to(at::kDouble) - exact).abs().max().item<double>() /
         exact.abs().max().item<double>();
}

}  // namespace flowmesh::model
