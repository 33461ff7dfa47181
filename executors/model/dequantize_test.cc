// Every quantised type against what the `gguf` package makes of the same bytes, bit for bit.
#include "executors/model/dequantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include "executors/model/model_goldens.h"

namespace flowmesh::model {
namespace {

std::span<const std::byte> BytesOf(const at::Tensor& tensor) {
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

struct Case {
  const char* name;
  GgufType type;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class DequantizeTest : public testing::TestWithParam<Case> {};

TEST_P(DequantizeTest, EqualsTheGgufPackage) {
  const GoldenTensors golden(ModelGolden("gguf/blocks.safetensors"));
  const at::Tensor raw = golden.Get(std::string(GetParam().name) + ".raw");
  const at::Tensor want = golden.Get(std::string(GetParam().name) + ".values");
  ASSERT_GE(want.numel(), 1000);
  const at::Tensor got = at::empty(want.sizes(), at::kFloat);
  Dequantize(GetParam().type, BytesOf(raw), got);
  EXPECT_TRUE(got.equal(want)) << "differs by " << (got - want).abs().max().item<float>();

  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor narrow = at::empty(want.sizes(), dtype);
    Dequantize(GetParam().type, BytesOf(raw), narrow);
    EXPECT_TRUE(narrow.equal(want.to(dtype))) << dtype;
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, DequantizeTest,
    testing::Values(Case{"Q8_0", GgufType::kQ8_0}, Case{"Q4_0", GgufType::kQ4_0},
                    Case{"Q5_0", GgufType::kQ5_0}, Case{"Q4_K", GgufType::kQ4_K},
                    Case{"Q5_K", GgufType::kQ5_K}, Case{"Q6_K", GgufType::kQ6_K}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(DequantizePlainTest, FloatsKeepTheirValue) {
  const at::Tensor want = at::randn({3, 333});
  for (const auto& [type, dtype] :
       {std::pair{GgufType::kF32, at::kFloat}, std::pair{GgufType::kF16, at::kHalf},
        std::pair{GgufType::kBF16, at::kBFloat16}}) {
    const at::Tensor stored = want.to(dtype);
    for (const auto out_dtype : {at::kFloat, at::kHalf, at::kBFloat16}) {
      const at::Tensor got = at::empty(want.sizes(), out_dtype);
      Dequantize(type, BytesOf(stored), got);
      EXPECT_TRUE(got.equal(stored.to(at::kFloat).to(out_dtype))) << dtype << " as " << out_dtype;
    }
  }
}

// Sizes that several threads share and that leave a rest.
TEST(DequantizePlainTest, LargeTensorsAreWhole) {
  const at::Tensor stored = at::randn({70'001, 3}).to(at::kBFloat16);
  const at::Tensor got = at::empty(stored.sizes(), at::kFloat);
  Dequantize(GgufType::kBF16, BytesOf(stored), got);
  EXPECT_TRUE(got.equal(stored.to(at::kFloat)));
}

TEST(DequantizePlainTest, SizesMustFit) {
  const at::Tensor stored = at::randn({4});
  EXPECT_THROW(Dequantize(GgufType::kF32, BytesOf(stored), at::empty({5}, at::kFloat)), c10::Error);
  EXPECT_THROW(Dequantize(GgufType::kF32, BytesOf(stored), at::empty({4}, at::kLong)), c10::Error);
}

}  // namespace
}  // namespace flowmesh::model
