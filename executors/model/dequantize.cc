#include "executors/model/dequantize.h"

#include <ATen/Parallel.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Exception.h>
#include <c10/util/Half.h>

#include <cstdint>
#include <cstring>

namespace flowmesh::model {
namespace {

constexpr int kMaxBlock = 256;       // weights of the largest block
constexpr int64_t kGrain = 1 << 15;  // weights that are worth a thread

float HalfAt(const uint8_t* at) {
  uint16_t bits;
  std::memcpy(&bits, at, sizeof bits);
  return c10::detail::fp16_ieee_to_fp32_value(bits);
}

// Each decoder turns one block into floats. The layouts are those of the file format.

// half scale; 32 signed bytes
void DecodeQ8_0(const uint8_t* block, float* out) {
  const float d = HalfAt(block);
  const int8_t* q = reinterpret_cast<const int8_t*>(block + 2);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(q[i]);
}

// half scale; 16 bytes: weight i in the low half of byte i, weight 16 + i in the high half
void DecodeQ4_0(const uint8_t* block, float* out) {
  const float d = HalfAt(block);
  const uint8_t* q = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((q[i] & 15) - 8);
    out[16 + i] = d * static_cast<float>((q[i] >> 4) - 8);
  }
}

// half scale; 32 fifth bits; 16 bytes as in Q4_0
void DecodeQ5_0(const uint8_t* block, float* out) {
  const float d = HalfAt(block);
  uint32_t high;
  std::memcpy(&high, block + 2, sizeof high);
  const uint8_t* q = block + 6;
  for (int i = 0; i < 16; ++i) {
    const int h0 = static_cast<int>(high >> i & 1) << 4;
    const int h1 = static_cast<int>(high >> (i + 16) & 1) << 4;
    out[i] = d * static_cast<float>(((q[i] & 15) | h0) - 16);
    out[16 + i] = d * static_cast<float>(((q[i] >> 4) | h1) - 16);
  }
}

// Eight pairs of six-bit scale and minimum in 12 bytes.
void DecodeScales(const uint8_t* packed, uint8_t* scales, uint8_t* minima) {
  for (int i = 0; i < 4; ++i) {
    scales[i] = packed[i] & 63;
    minima[i] = packed[4 + i] & 63;
    scales[4 + i] = (packed[8 + i] & 15) | (packed[i] >> 6 << 4);
    minima[4 + i] = (packed[8 + i] >> 4) | (packed[4 + i] >> 6 << 4);
  }
}

// half scale, half minimum; 12 bytes of scales; 128 bytes: 32 give the low halves of one group of
// 32 weights and the high halves of the next
void DecodeQ4_K(const uint8_t* block, float* out) {
  const float d = HalfAt(block), minimum = HalfAt(block + 2);
  uint8_t scales[8], minima[8];
  DecodeScales(block + 4, scales, minima);
  const uint8_t* q = block + 16;
  for (int group = 0; group < 8; group += 2, q += 32, out += 64) {
    const float d0 = d * scales[group], m0 = minimum * minima[group];
    const float d1 = d * scales[group + 1], m1 = minimum * minima[group + 1];
    for (int i = 0; i < 32; ++i) {
      out[i] = d0 * static_cast<float>(q[i] & 15) - m0;
      out[32 + i] = d1 * static_cast<float>(q[i] >> 4) - m1;
    }
  }
}

// as Q4_K, with 32 bytes of fifth bits (bit g of byte i: weight i of group g) before the 128
void DecodeQ5_K(const uint8_t* block, float* out) {
  const float d = HalfAt(block), minimum = HalfAt(block + 2);
  uint8_t scales[8], minima[8];
  DecodeScales(block + 4, scales, minima);
  const uint8_t* high = block + 16;
  const uint8_t* q = block + 48;
  for (int group = 0; group < 8; group += 2, q += 32, out += 64) {
    const float d0 = d * scales[group], m0 = minimum * minima[group];
    const float d1 = d * scales[group + 1], m1 = minimum * minima[group + 1];
    for (int i = 0; i < 32; ++i) {
      const int h0 = (high[i] >> group & 1) << 4, h1 = (high[i] >> (group + 1) & 1) << 4;
      out[i] = d0 * static_cast<float>((q[i] & 15) | h0) - m0;
      out[32 + i] = d1 * static_cast<float>((q[i] >> 4) | h1) - m1;
    }
  }
}

// 128 bytes of low halves, 64 bytes of upper bit pairs, 16 signed scales (one per 16 weights), half
// scale
void DecodeQ6_K(const uint8_t* block, float* out) {
  const float d = HalfAt(block + 208);
  const uint8_t* low = block;
  const uint8_t* high = block + 128;
  const int8_t* scales = reinterpret_cast<const int8_t*>(block + 192);
  for (int half = 0; half < 2; ++half, low += 64, high += 32, scales += 8, out += 128) {
    for (int quarter = 0; quarter < 4; ++quarter) {
      const uint8_t* q = low + (quarter & 1) * 32;
      const int low_shift = quarter < 2 ? 0 : 4, high_shift = 2 * quarter;
      for (int part = 0; part < 2; ++part) {
        const float scale = d * static_cast<float>(scales[2 * quarter + part]);
        for (int i = 16 * part; i < 16 * part + 16; ++i) {
          const int value = (q[i] >> low_shift & 15) | ((high[i] >> high_shift & 3) << 4);
          out[32 * quarter + i] = scale * static_cast<float>(value - 32);
        }
      }
    }
  }
}

void DecodeF32(const uint8_t* block, float* out) { std::memcpy(out, block, sizeof *out); }

void DecodeF16(const uint8_t* block, float* out) { *out = HalfAt(block); }

void DecodeBF16(const uint8_t* block, float* out) {
  uint16_t bits;
  std::memcpy(&bits, block, sizeof bits);
  *out = c10::detail::f32_from_bits(bits);
}

void Store(const float* values, float* out, int count) {
  std::memcpy(out, values, count * sizeof *out);
}

void Store(const float* values, c10::Half* out, int count) {
  for (int i = 0; i < count; ++i) out[i] = c10::Half(values[i]);
}

// To nearest, ties to even; without branches, so that it vectorises.
void Store(const float* values, c10::BFloat16* out, int count) {
  for (int i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof bits);
    const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    const bool nan = (bits & 0x7fffffff) > 0x7f800000;
    out[i].x = static_cast<uint16_t>(nan ? 0x7fc0 : rounded);
  }
}

template <int kWeights, int kBytes, void (*Decode)(const uint8_t*, float*), typename T>
void DecodeAll(const uint8_t* data, T* out, int64_t weights) {
  // Single weights are decoded some at a time too, so that rounding works on whole vectors.
  constexpr int kRun = kWeights > 1 ? 1 : kMaxBlock;
  at::parallel_for(0, weights / kWeights, kGrain / kWeights, [&](int64_t begin, int64_t end) {
    alignas(64) float values[kMaxBlock];
    for (int64_t block = begin; block < end; block += kRun) {
      const int run = static_cast<int>(std::min<int64_t>(kRun, end - block));
      for (int i = 0; i < run; ++i) Decode(data + (block + i) * kBytes, values + i * kWeights);
      Store(values, out + block * kWeights, run * kWeights);
    }
  });
}

template <typename T>
void DequantizeTo(GgufType type, const uint8_t* data, T* out, int64_t weights) {
  switch (type) {
    case GgufType::kF32:
      return DecodeAll<1, 4, DecodeF32>(data, out, weights);
    case GgufType::kF16:
      return DecodeAll<1, 2, DecodeF16>(data, out, weights);
    case GgufType::kBF16:
      return DecodeAll<1, 2, DecodeBF16>(data, out, weights);
    case GgufType::kQ4_0:
      return DecodeAll<32, 18, DecodeQ4_0>(data, out, weights);
    case GgufType::kQ5_0:
      return DecodeAll<32, 22, DecodeQ5_0>(data, out, weights);
    case GgufType::kQ8_0:
      return DecodeAll<32, 34, DecodeQ8_0>(data, out, weights);
    case GgufType::kQ4_K:
      return DecodeAll<256, 144, DecodeQ4_K>(data, out, weights);
    case GgufType::kQ5_K:
      return DecodeAll<256, 176, DecodeQ5_K>(data, out, weights);
    case GgufType::kQ6_K:
      return DecodeAll<256, 210, DecodeQ6_K>(data, out, weights);
  }
}

}  // namespace

void Dequantize(GgufType type, std::span<const std::byte> data, const at::Tensor& out) {
  const GgufBlock block = BlockOf(type);
  TORCH_CHECK(out.device().is_cpu() && out.is_contiguous(), "expected a contiguous CPU tensor");
  TORCH_CHECK(static_cast<int64_t>(data.size()) / block.bytes * block.weights == out.numel(),
              "expected ", out.numel(), " weights, got ", data.size(), " bytes of them");
  const uint8_t* bytes = reinterpret_cast<const uint8_t*>(data.data());
  switch (out.scalar_type()) {
    case at::kFloat:
      return DequantizeTo(type, bytes, out.mutable_data_ptr<float>(), out.numel());
    case at::kBFloat16:
      return DequantizeTo(type, bytes, out.mutable_data_ptr<c10::BFloat16>(), out.numel());
    case at::kHalf:
      return DequantizeTo(type, bytes, out.mutable_data_ptr<c10::Half>(), out.numel());
    default:
      TORCH_CHECK(false, "cannot dequantise to ", out.scalar_type());
  }
}

}  // namespace flowmesh::model
