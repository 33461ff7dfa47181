#include "executors/model/rotary.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "executors/kernels/elementwise.h"

namespace flowmesh::model {
namespace {

// Long wavelengths are stretched by the factor, short ones kept, those between blended.
at::Tensor Llama3Frequencies(const at::Tensor& plain, const RopeConfig& c) {
  const double original = static_cast<double>(c.original_positions);
  const at::Tensor wavelength = 2 * std::numbers::pi / plain;
  const at::Tensor stretched =
      at::where(wavelength > original / c.low_freq_factor, plain / c.factor, plain);
  const at::Tensor smooth =
      (original / wavelength - c.low_freq_factor) / (c.high_freq_factor - c.low_freq_factor);
  const at::Tensor blended = (1 - smooth) * stretched / c.factor + smooth * stretched;
  const at::Tensor is_between =
      (wavelength >= original / c.high_freq_factor) & (wavelength <= original / c.low_freq_factor);
  return at::where(is_between, blended, stretched);
}

}  // namespace

at::Tensor Rotation::Apply(const at::Tensor& x) const {
  return kernels::Rotate(x.to(cos.scalar_type()), cos, sin);
}

at::Tensor RotaryEmbedding::Exponents() const {
  return at::arange(0, head_dim_, 2, at::TensorOptions(at::kFloat)) /
         static_cast<double>(head_dim_);
}

at::Tensor RotaryEmbedding::Frequencies() const {
  const RopeConfig& c = config_;
  at::Tensor frequencies = 1.0 / at::pow(c.theta, Exponents());
  if (c.scaling == RopeConfig::Scaling::kLinear) frequencies = frequencies / c.factor;
  if (c.scaling == RopeConfig::Scaling::kLlama3) frequencies = Llama3Frequencies(frequencies, c);
  if (!c.divisors.empty()) {
    at::Tensor divisors = at::empty({static_cast<int64_t>(c.divisors.size())}, at::kFloat);
    std::copy(c.divisors.begin(), c.divisors.end(), divisors.mutable_data_ptr<float>());
    frequencies = frequencies / divisors;
  }
  return frequencies;
}

at::Tensor RotaryEmbedding::DynamicFrequencies(const at::Tensor& lengths) const {
  const RopeConfig& c = config_;
  const auto d = static_cast<double>(head_dim_);
  const at::Tensor ratio =
      (lengths.to(at::kDouble) / static_cast<double>(c.original_positions)).clamp_min(1.0);
  const at::Tensor theta = c.theta * at::pow(c.factor * ratio - (c.factor - 1), d / (d - 2));
  return 1.0 / at::pow(theta.to(at::kFloat).unsqueeze(-1), Exponents().to(lengths.device()));
}

RotaryEmbedding::RotaryEmbedding(const RopeConfig& config, int64_t head_dim, at::Device device)
    : config_(config), head_dim_(head_dim), frequencies_(Frequencies().to(device)) {}

Rotation RotaryEmbedding::At(const at::Tensor& positions, const at::Tensor& lengths,
                             at::ScalarType dtype) const {
  const at::NoGradGuard no_grad;
  const at::Tensor frequencies =
      config_.scaling == RopeConfig::Scaling::kDynamic ? DynamicFrequencies(lengths) : frequencies_;
  const at::Tensor half = positions.to(at::kFloat).unsqueeze(-1) * frequencies;
  const at::Tensor angles = at::cat({half, half}, -1).unsqueeze(1);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

}  // namespace flowmesh::model
