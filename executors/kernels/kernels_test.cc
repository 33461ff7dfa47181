// Each kernel against the plain-torch operators, over odd shapes and unaligned tails.
#include <ATen/Context.h>
#include <ATen/Tensor.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/randn_like.h>
#include <ATen/ops/rsqrt.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>

#include "executors/kernels/argmax.h"
#include "executors/kernels/bfloat16.h"
#include "executors/kernels/elementwise.h"
#include "executors/kernels/few_rows.h"
#include "executors/kernels/gradients.h"
#include "executors/kernels/linear.h"
#include "executors/kernels/paged_attention.h"
#include "executors/kernels/token_softmax.h"

namespace flowmesh::kernels {
namespace {

double MaxDifference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

TEST(Bf16Test, RoundsToNearestEvenAndKeepsNan) {
  EXPECT_EQ(ToBf16(1.0f), 0x3f80);
  EXPECT_EQ(ToBf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // a tie: to even
  EXPECT_EQ(ToBf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);
  EXPECT_TRUE(std::isnan(FromBf16(ToBf16(std::nanf("")))));
  EXPECT_TRUE(std::isinf(FromBf16(ToBf16(INFINITY))));
}

TEST(LinearTest, EqualsTheProductInDoublePrecision) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    for (const int64_t rows : {0, 1, 2, 3, 4, 5, 7, 8, 13, 33}) {
      for (const auto& [in, out] : {std::pair{1, 1}, std::pair{31, 5}, std::pair{64, 64},
                                    std::pair{97, 130}, std::pair{640, 67}}) {
        for (const bool with_bias : {false, true}) {
          const at::Tensor x = at::randn({rows, in}).to(dtype);
          const at::Tensor w = at::randn({out, in}).to(dtype);
          const at::Tensor b = with_bias ? at::randn({out}).to(dtype) : at::Tensor();
          at::Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble));
          if (with_bias) exact += b.to(at::kDouble);
          const at::Tensor y = Linear(x, w, b);
          ASSERT_EQ(y.scalar_type(), dtype);
          ASSERT_EQ(y.sizes(), exact.sizes());
          if (rows == 0) continue;
          const double scale = exact.abs().max().item<double>() + 1;
          EXPECT_LT(MaxDifference(y, exact), scale * (dtype == at::kFloat ? 1e-5 : 5e-3))
              << rows << " x " << in << " x " << out;
        }
      }
    }
  }
}

// Large enough for oneDNN, with rows that are not contiguous and in more than two dimensions.
TEST(LinearTest, LargeProductsInFloat32AreAsExact) {
  const at::Tensor x = at::randn({9, 7, 600}).narrow(-1, 50, 512), w = at::randn({1100, 512});
  for (const at::Tensor& b : {at::Tensor(), at::randn({1100})}) {
    at::Tensor exact = at::linear(x.to(at::kDouble), w.to(at::kDouble));
    if (b.defined()) exact += b.to(at::kDouble);
    const at::Tensor y = Linear(x, w, b);
    EXPECT_EQ(y.sizes(), exact.sizes());
    EXPECT_LT(MaxDifference(y, exact), (exact.abs().max().item<double>() + 1) * 1e-5);
  }
}

TEST(LinearTest, PortableTwinAgrees) {
  for (const int64_t rows : {1, 3, 6}) {
    const FewRowsShape shape{rows, 77, 19};
    const at::Tensor x = at::randn({rows, 77}).to(at::kBFloat16);
    const at::Tensor w = at::randn({19, 77}).to(at::kBFloat16);
    const at::Tensor b = at::randn({19}).to(at::kBFloat16);
    at::Tensor one = at::zeros({rows, 19}, x.options());
    at::Tensor two = at::zeros({rows, 19}, x.options());
    auto bits = [](const at::Tensor& t) { return static_cast<uint16_t*>(t.data_ptr()); };
    FewRowsBf16(bits(x), bits(w), bits(b), bits(one), shape, 0, 19);
    FewRowsBf16Portable(bits(x), bits(w), bits(b), bits(two), shape, 0, 19);
    EXPECT_LT(MaxDifference(one, two), 0.13);  // one unit in the last place near 20
  }
}

// Against the chain of operators, which a tensor that wants gradients goes through.
TEST(ElementwiseTest, RmsNormEqualsItsChain) {
  for (const auto form : {NormWeight::kPlain, NormWeight::kOnePlus}) {
    for (const int64_t width : {1, 7, 64, 650}) {
      for (const auto weights : {at::kBFloat16, at::kFloat}) {
        const at::Tensor wide = at::randn({3, 2, 2 * width}).to(at::kBFloat16);
        const at::Tensor x = wide.narrow(-1, 1, width);  // not contiguous
        const at::Tensor w = at::randn({width}).to(weights);
        at::Tensor tracked = w.clone().requires_grad_(true);
        const at::Tensor chain = RmsNorm(x, tracked, 1e-6, form);
        ASSERT_TRUE(chain.requires_grad());
        const at::Tensor one_pass = RmsNorm(x, w, 1e-6, form);
        ASSERT_EQ(one_pass.sizes(), x.sizes());
        const bool is_wide = form == NormWeight::kPlain && weights == at::kFloat;
        ASSERT_EQ(one_pass.scalar_type(), is_wide ? at::kFloat : at::kBFloat16);
        const double scale = chain.abs().max().item<double>() + 1e-3;
        EXPECT_LE(MaxDifference(one_pass, chain.detach()), scale / 128) << width;
      }
    }
  }
}

// Float16 is for GPUs: what computes it there has no kernel of its own here either.
TEST(ElementwiseTest, NormWeightsMayBeWiderThanWhatTheyNorm) {
  const at::Tensor x = at::randn({5, 64}).to(at::kHalf), w = at::randn({64});
  for (const auto form : {NormWeight::kPlain, NormWeight::kOnePlus}) {
    const at::Tensor want = RmsNorm(x.to(at::kFloat), w, 1e-6, form);
    at::Tensor tracked = x.clone().requires_grad_(true);
    for (const at::Tensor& in : {x, tracked}) {
      const at::Tensor got = RmsNorm(in, w, 1e-6, form);
      ASSERT_EQ(got.scalar_type(), form == NormWeight::kPlain ? at::kFloat : at::kHalf);
      EXPECT_LE(MaxDifference(got.detach(), want), want.abs().max().item<double>() / 1024);
    }
  }
}

at::Tensor RotateChain(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const auto halves = x.chunk(2, -1);
  return x * cos + at::cat({halves[1].neg(), halves[0]}, -1) * sin;
}

TEST(ElementwiseTest, RotateEqualsItsChainExactly) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const at::Tensor x = at::randn({5, 3, 34}).to(dtype).narrow(-1, 1, 32);
    const at::Tensor angles = at::randn({5, 1, 16}).repeat({1, 1, 2});
    const at::Tensor cos = angles.cos().to(dtype), sin = angles.sin().to(dtype);
    EXPECT_EQ(MaxDifference(Rotate(x, cos, sin), RotateChain(x, cos, sin)), 0.0);
  }
}

at::Tensor GateChain(const at::Tensor& gate, const at::Tensor& up, Gate form) {
  return (form == Gate::kSilu ? at::silu(gate) : at::gelu(gate, "tanh")) * up;
}

TEST(ElementwiseTest, GatedIsWithinTwoRoundingsOfDoublePrecision) {
  at::manual_seed(7);
  for (const Gate form : {Gate::kSilu, Gate::kGeluTanh}) {
    for (const int64_t rows : {1, 3, 200}) {
      const at::Tensor both = (at::randn({rows, 2 * 333}) * 4).to(at::kBFloat16);
      const at::Tensor gate = both.narrow(1, 0, 333), up = both.narrow(1, 333, 333);
      const at::Tensor y = Gated(gate, up, form);
      const at::Tensor want = GateChain(gate.to(at::kDouble), up.to(at::kDouble), form);
      EXPECT_LE(((y - want).abs() / (want.abs() + 1e-3)).max().item<double>(), 1.01 / 128);
      // And nearly always what libtorch's chain gives.
      EXPECT_GT((y == GateChain(gate, up, form)).to(at::kDouble).mean().item<double>(), 0.9);
    }
    // Far out: nothing, or the gate's input itself.
    const at::Tensor far =
        at::tensor({-1e30f, -100.0f, 0.0f, 100.0f, 1e30f}).unsqueeze(0).to(at::kBFloat16);
    const at::Tensor one = at::ones_like(far);
    EXPECT_TRUE(at::equal(Gated(far, one, form), far.clamp_min(0))) << Gated(far, one, form);
    const at::Tensor nan = at::full({1, 1}, std::nan(""), at::kBFloat16);
    EXPECT_TRUE(Gated(nan, at::ones_like(nan), form).isnan().item<bool>());
  }
}

// The gradients of x and of the weights that a product of random weights with the result has, by
// what is tested and by libtorch's own operators.
class GradientsTest : public ::testing::Test {
 protected:
  using Function = std::function<at::Tensor(const std::vector<at::Tensor>&)>;

  static std::vector<at::Tensor> Gradients(const Function& f, const std::vector<at::Tensor>& inputs,
                                           const at::Tensor& weights) {
    std::vector<at::Tensor> leaves, gradients;
    for (const at::Tensor& input : inputs) leaves.push_back(input.clone().requires_grad_(true));
    (f(leaves) * weights).sum().backward();
    for (const at::Tensor& leaf : leaves) gradients.push_back(leaf.grad());
    return gradients;
  }

  static void ExpectSame(const Function& ours, const Function& plain,
                         const std::vector<at::Tensor>& inputs) {
    const at::Tensor weights = at::randn_like(plain(inputs));
    const auto got = Gradients(ours, inputs, weights), want = Gradients(plain, inputs, weights);
    for (size_t i = 0; i < inputs.size(); ++i) {
      ASSERT_TRUE(got[i].defined()) << i;
      EXPECT_LT(MaxDifference(got[i], want[i]), 2e-5) << i;
    }
  }
};

TEST_F(GradientsTest, OfLinear) {
  ExpectSame([](const auto& in) { return Linear(in[0], in[1], in[2]); },
             [](const auto& in) { return at::linear(in[0], in[1], in[2]); },
             {at::randn({2, 5, 8}), at::randn({3, 8}), at::randn({3})});
}

TEST_F(GradientsTest, OfEmbedding) {
  const at::Tensor ids = at::tensor({3, 0, 3, 1}, at::kLong);
  ExpectSame([&](const auto& in) { return TrainedEmbedding(in[0], ids, at::kFloat); },
             [&](const auto& in) { return at::embedding(in[0], ids); }, {at::randn({5, 4})});
}

// A sum in bfloat16 would stay at 256.
TEST_F(GradientsTest, OfARowThatManyTokensLookUpAreSummedInFloat32) {
  at::Tensor dense = at::ones({2, 3}, at::kBFloat16).requires_grad_(true);
  at::Tensor sparse = dense.detach().clone().requires_grad_(true);
  sparse.mutable_grad() = at::zeros({2, 3}, sparse.options().layout(at::kSparse));
  for (const at::Tensor& table : {dense, sparse}) {
    TrainedEmbedding(table, at::ones({1024}, at::kLong), at::kFloat).sum().backward();
    const at::Tensor gradient = table.grad().to_dense().to(at::kFloat);
    EXPECT_EQ(gradient[0].abs().max().item<float>(), 0);
    EXPECT_EQ(gradient[1].min().item<float>(), 1024);
    EXPECT_EQ(gradient[1].max().item<float>(), 1024);
  }
}

TEST_F(GradientsTest, OfEmbeddingStaySparseIfTheyAre) {
  const at::Tensor ids = at::tensor({3, 0, 3, 1}, at::kLong), weights = at::randn({4, 4});
  at::Tensor dense = at::randn({5, 4}).requires_grad_(true);
  at::Tensor sparse = dense.detach().clone().requires_grad_(true);
  sparse.mutable_grad() = at::zeros({5, 4}, at::TensorOptions().layout(at::kSparse));
  for (const at::Tensor& table : {dense, sparse}) {
    for (int pass = 0; pass < 2; ++pass)
      (TrainedEmbedding(table, ids, at::kFloat) * weights).sum().backward();
  }
  ASSERT_TRUE(sparse.grad().is_sparse());
  EXPECT_LT(MaxDifference(sparse.grad().to_dense(), dense.grad()), 1e-6);
}

TEST_F(GradientsTest, OfRmsNorm) {
  for (const auto form : {NormWeight::kPlain, NormWeight::kOnePlus}) {
    ExpectSame([&](const auto& in) { return RmsNorm(in[0], in[1], 1e-5, form); },
               [&](const auto& in) {
                 const at::Tensor n = in[0] * at::rsqrt(in[0].square().mean(-1, true) + 1e-5);
                 return form == NormWeight::kPlain ? n * in[1] : n * (in[1] + 1);
               },
               {at::randn({3, 2, 10}), at::randn({10})});
  }
}

// Within bfloat16's own rounding of what double precision gives from the same numbers.
TEST_F(GradientsTest, OfRmsNormInBfloat16) {
  for (const auto& [form, dtype] : {std::pair(NormWeight::kPlain, at::kBFloat16),
                                    {NormWeight::kOnePlus, at::kBFloat16},
                                    {NormWeight::kPlain, at::kFloat},
                                    {NormWeight::kOnePlus, at::kFloat}}) {
    for (const int64_t rows : {1, 7, 300}) {
      at::Tensor x = at::randn({rows, 3, 100}).to(at::kBFloat16).requires_grad_(true);
      at::Tensor w = at::randn({100}).to(dtype).requires_grad_(true);
      const at::Tensor weights = at::randn({rows, 3, 100}).to(at::kBFloat16);
      const at::Tensor y = RmsNorm(x, w, 1e-5, form);
      y.backward(weights.to(y.scalar_type()));

      at::Tensor wide_x = x.detach().to(at::kDouble).requires_grad_(true);
      at::Tensor wide_w = w.detach().to(at::kDouble).requires_grad_(true);
      const at::Tensor n = wide_x * at::rsqrt(wide_x.square().mean(-1, true) + 1e-5);
      (form == NormWeight::kPlain ? n * wide_w : n * (wide_w + 1))
          .backward(weights.to(at::kDouble));
      const auto error = [](const at::Tensor& got, const at::Tensor& want) {
        return ((got.to(at::kDouble) - want).abs() / (want.abs() + want.abs().mean()))
            .max()
            .item<double>();
      };
      EXPECT_LE(error(x.grad(), wide_x.grad()), 1.0 / 256) << rows;
      EXPECT_LE(error(w.grad(), wide_w.grad()), 1.0 / 256) << rows;
    }
  }
}

TEST_F(GradientsTest, OfGatedInBfloat16) {
  for (const Gate form : {Gate::kSilu, Gate::kGeluTanh}) {
    for (const int64_t rows : {1, 7, 300}) {
      at::Tensor both = (at::randn({rows, 200}) * 3).to(at::kBFloat16).requires_grad_(true);
      const at::Tensor weights = at::randn({rows, 100}).to(at::kBFloat16);
      Gated(both.narrow(1, 0, 100), both.narrow(1, 100, 100), form).backward(weights);

      at::Tensor wide = both.detach().to(at::kDouble).requires_grad_(true);
      GateChain(wide.narrow(1, 0, 100), wide.narrow(1, 100, 100), form)
          .backward(weights.to(at::kDouble));
      const at::Tensor off = (both.grad().to(at::kDouble) - wide.grad()).abs();
      EXPECT_LT((off / (wide.grad().abs() + 0.02)).max().item<double>(), 1.0 / 64) << rows;
    }
  }
}

TEST_F(GradientsTest, OfRotate) {
  const at::Tensor angles = at::randn({5, 1, 4}).repeat({1, 1, 2});
  const at::Tensor cos = angles.cos(), sin = angles.sin();
  ExpectSame([&](const auto& in) { return Rotate(in[0], cos, sin); },
             [&](const auto& in) { return RotateChain(in[0], cos, sin); }, {at::randn({5, 3, 8})});
}

// A second backward pass adds to what the first one left.
TEST_F(GradientsTest, AddUp) {
  const at::Tensor x = at::randn({2, 8});
  at::Tensor w = at::randn({3, 8}).requires_grad_(true);
  Linear(x, w, {}).sum().backward();
  const at::Tensor once = w.grad().clone();
  Linear(x, w, {}).sum().backward();
  EXPECT_LT(MaxDifference(w.grad(), once * 2), 1e-6);
}

TEST(TokenSoftmaxTest, EqualsItsChainInDoublePrecision) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const double temperature : {1.0, 0.7}) {
      const at::Tensor logits = (at::randn({5, 1003}) * 6).to(dtype);
      const at::Tensor targets = at::randint(1003, {5}, at::kLong);
      targets[1] = logits[1].argmax();
      const at::Tensor factors = at::tensor({0.5f, -2.0f, 0.0f, 1.0f, 3.0f});
      const at::Tensor wide = logits.to(at::kDouble) / temperature;
      const at::Tensor p = wide.softmax(-1);
      const at::Tensor log_probs = wide.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1);
      const at::Tensor entropy = -(p * wide.log_softmax(-1)).sum(-1);
      at::Tensor gradient = p.clone();
      gradient.scatter_add_(1, targets.unsqueeze(1), -at::ones({5, 1}, at::kDouble));
      gradient.mul_(factors.to(at::kDouble).unsqueeze(1) / temperature);

      at::Tensor kept = logits.clone();
      for (const at::Tensor& factor : {at::Tensor(), factors}) {
        const TokenSoftmaxRows rows = TokenSoftmax(kept, targets, temperature, factor, true);
        EXPECT_LE(MaxDifference(rows.log_probs, log_probs), 2e-5) << dtype;
        EXPECT_LE(MaxDifference(rows.entropy, entropy), 2e-5) << dtype;
        EXPECT_TRUE(rows.is_best[1].item<bool>());
        EXPECT_TRUE(at::equal(rows.is_best, wide.argmax(-1) == targets));
        if (!factor.defined()) {
          EXPECT_TRUE(at::equal(kept, logits)) << dtype;
        }
      }
      EXPECT_LE(MaxDifference(kept, gradient), dtype == at::kFloat ? 5e-6 : 2e-2) << dtype;
    }
  }
}

TEST(TokenSoftmaxTest, FarLogitsVanishAndWhatIsNotFiniteShows) {
  at::Tensor logits = at::tensor({0.0f, -1e4f, 90.0f, -INFINITY}).unsqueeze(0);
  const at::Tensor target = at::tensor({2}, at::kLong);
  EXPECT_EQ(TokenSoftmax(logits, target, 1.0, at::tensor({1.0f}), false).log_probs.item<float>(),
            0.0f);
  EXPECT_LE(logits.abs().max().item<float>(), 1e-37f);
  for (const float bad : {NAN, INFINITY}) {
    at::Tensor row = at::tensor({0.0f, bad, 1.0f}).unsqueeze(0);
    EXPECT_FALSE(std::isfinite(
        TokenSoftmax(row, at::tensor({0}, at::kLong), 1.0, {}, false).log_probs.item<float>()));
  }
}

TEST(LinearTest, ARowDoesNotDependOnItsNeighbours) {
  const at::Tensor w = at::randn({130, 97});
  const at::Tensor x = at::randn({8, 97});
  const at::Tensor all = Linear(x, w, {});
  for (int64_t r = 0; r < 8; ++r) {
    EXPECT_TRUE(all.narrow(0, r, 1).equal(Linear(x.narrow(0, r, 1), w, {})));
  }
}

TEST(ArgmaxTest, LowestPlaceOnTiesAndNanNeverWins) {
  const float values[] = {-1, 3, NAN, 3, 2};
  EXPECT_EQ(Argmax(values, 5), 1);
  const float nothing[] = {-INFINITY, -INFINITY};
  EXPECT_EQ(Argmax(nothing, 2), 0);
  EXPECT_EQ(Argmax(nothing, 0), 0);
}

struct PagedCase {
  int64_t heads, kv_heads, head_dim, window;
  float soft_cap;
};

class PagedAttentionTest : public ::testing::TestWithParam<PagedCase> {};

// One sequence of 45 tokens, its blocks scattered, against a softmax written out in double
// precision.
TEST_P(PagedAttentionTest, EqualsPlainAttention) {
  const PagedCase& c = GetParam();
  constexpr int64_t kTokens = 45, kBlockTokens = 4, kBlocks = 20;
  const at::Tensor q = at::randn({kTokens, c.heads, c.head_dim});
  const at::Tensor k = at::randn({kTokens, c.kv_heads, c.head_dim});
  const at::Tensor v = at::randn({kTokens, c.kv_heads, c.head_dim});
  std::vector<int32_t> table;
  for (int32_t i = 0; i < 12; ++i) table.push_back((i * 7 + 3) % kBlocks);
  at::Tensor keys = at::randn({kBlocks, kBlockTokens, c.kv_heads, c.head_dim}) * 100;
  at::Tensor values = at::randn({kBlocks, kBlockTokens, c.kv_heads, c.head_dim}) * 100;
  std::vector<PagedToken> tokens;
  for (int64_t t = 0; t < kTokens; ++t) {
    keys[table[t / kBlockTokens]][t % kBlockTokens].copy_(k[t]);
    values[table[t / kBlockTokens]][t % kBlockTokens].copy_(v[t]);
    tokens.push_back({table.data(), t});
  }
  const float scale = 0.37f;
  const PagedShape shape{c.heads, c.kv_heads, c.head_dim, kBlockTokens,
                         scale,   c.window,   c.soft_cap};
  at::Tensor out = at::zeros_like(q);
  PagedAttentionFp32(q.data_ptr<float>(), keys.data_ptr<float>(), values.data_ptr<float>(),
                     out.data_ptr<float>(), tokens.data(), shape, 0, kTokens * c.kv_heads);

  const int64_t group = c.heads / c.kv_heads;
  auto expand = [&](const at::Tensor& t) { return t.to(at::kDouble).repeat_interleave(group, 1); };
  at::Tensor scores = at::einsum("thd,shd->hts", {q.to(at::kDouble), expand(k)}) * double(scale);
  if (c.soft_cap > 0) scores = (scores / double(c.soft_cap)).tanh() * double(c.soft_cap);
  for (int64_t t = 0; t < kTokens; ++t) {
    for (int64_t s = 0; s < kTokens; ++s) {
      if (s > t || (c.window > 0 && s <= t - c.window)) {
        scores.select(1, t).select(1, s).fill_(-INFINITY);
      }
    }
  }
  const at::Tensor exact = at::einsum("hts,shd->thd", {scores.softmax(-1), expand(v)});
  EXPECT_LT(MaxDifference(out, exact), 1e-4);

  auto bits = [](const at::Tensor& t) { return static_cast<uint16_t*>(t.data_ptr()); };
  const at::Tensor q16 = q.to(at::kBFloat16), k16 = keys.to(at::kBFloat16),
                   v16 = values.to(at::kBFloat16);
  at::Tensor out16 = at::zeros_like(q16);
  PagedAttentionBf16(bits(q16), bits(k16), bits(v16), bits(out16), tokens.data(), shape, 0,
                     kTokens * c.kv_heads);
  EXPECT_LT(MaxDifference(out16, exact), 0.15);
}

INSTANTIATE_TEST_SUITE_P(Shapes, PagedAttentionTest,
                         ::testing::Values(PagedCase{4, 4, 16, 0, 0}, PagedCase{4, 1, 8, 0, 0},
                                           PagedCase{6, 2, 24, 10, 0}, PagedCase{2, 1, 5, 1, 0},
                                           PagedCase{4, 2, 16, 0, 5.0f},
                                           PagedCase{3, 3, 17, 64, 2.0f}));

}  // namespace
}  // namespace flowmesh::kernels
