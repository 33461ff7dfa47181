#include "executors/kernels/linear.h"

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/cpu/Utils.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <optional>
#include <string_view>

#include "executors/kernels/few_rows.h"
#include "executors/kernels/gradients.h"

namespace flowmesh::kernels {
namespace {

// Up to this many rows the kernels of few_rows.h beat at::linear (measured by linear_bench). With
// AMX libtorch's bf16 product is compute-rich early; without it the vector kernel holds out longer.
int64_t MaxRowsBf16() {
  static const int64_t rows = at::cpu::init_amx() ? 12 : 64;
  return rows;
}
constexpr int64_t kMaxRowsFp32 = 8;

// Float32: smaller products gain nothing by oneDNN, and stay with the sums that the reference has.
constexpr int64_t kMinOneDnnProducts = int64_t{1} << 24;

bool UseFewRows(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!x.is_cpu() || x.dim() != 2 || x.scalar_type() != weight.scalar_type()) return false;
  if (x.size(0) == 0) return false;  // a pass in which no sequence is at its last token
  if (!weight.is_contiguous() || (bias.defined() && !bias.is_contiguous())) return false;
  if (bias.defined() && bias.scalar_type() != x.scalar_type()) return false;
  switch (x.scalar_type()) {
    case at::kBFloat16:
      return x.size(0) <= MaxRowsBf16();
    case at::kFloat:
      return x.size(0) <= kMaxRowsFp32;
    default:
      return false;
  }
}

// at::linear by oneDNN. In float32 libtorch leaves it to MKL, whose kernels for other makers' CPUs
// use half of the width that AVX-512 has.
at::Tensor LinearByOneDnn(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  using Attributes = c10::List<std::optional<at::Scalar>>;
  using Signature =
      at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                 std::string_view, Attributes, std::optional<std::string_view>);
  // Nothing: libtorch was built without it.
  static const auto schema =
      c10::Dispatcher::singleton().findSchema({"mkldnn::_linear_pointwise", ""});
  if (!schema) return at::linear(x, weight, bias);
  static const auto linear = schema->typed<Signature>();
  return linear.call(x, weight, bias.defined() ? std::optional(bias) : std::nullopt,
                     /*attr=*/"none", Attributes(), /*algorithm=*/"");
}

bool UseOneDnn(const at::Tensor& x, const at::Tensor& weight) {
  return x.is_cpu() && x.scalar_type() == at::kFloat && weight.scalar_type() == at::kFloat &&
         weight.is_contiguous() && x.numel() * weight.size(0) >= kMinOneDnnProducts;
}

}  // namespace

at::Tensor Linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (bias.defined() && bias.scalar_type() != x.scalar_type()) {  // a bias that is trained
    return Linear(x, weight, bias.to(x.scalar_type()));
  }
  if (WantsGradient({x, weight, bias})) return TrainedLinear(x, weight, bias);
  if (!UseFewRows(x, weight, bias)) {
    if (UseOneDnn(x, weight)) return LinearByOneDnn(x.contiguous(), weight, bias);
    return bias.defined() ? at::linear(x, weight, bias) : at::linear(x, weight);
  }
  const at::Tensor rows = x.contiguous();
  const int64_t out = weight.size(0);
  at::Tensor y = at::empty({rows.size(0), out}, rows.options());
  FewRowsShape shape{rows.size(0), rows.size(1), out};
  // Grain: enough weights per thread to outweigh starting it.
  const int64_t grain = std::max<int64_t>(16, 65536 / std::max<int64_t>(shape.in, 1));
  if (rows.scalar_type() == at::kBFloat16) {
    auto bits = [](const at::Tensor& t) {
      return t.defined() ? static_cast<const uint16_t*>(t.data_ptr()) : nullptr;
    };
    auto* result = static_cast<uint16_t*>(y.data_ptr());
    at::parallel_for(0, out, grain, [&](int64_t begin, int64_t end) {
      FewRowsBf16(bits(rows), bits(weight), bits(bias), result, shape, begin, end);
    });
  } else {
    const float* b = bias.defined() ? bias.data_ptr<float>() : nullptr;
    at::parallel_for(0, out, grain, [&](int64_t begin, int64_t end) {
      FewRowsFp32(rows.data_ptr<float>(), weight.data_ptr<float>(), b, y.data_ptr<float>(), shape,
                  begin, end);
    });
  }
  return y;
}

}  // namespace flowmesh::kernels
