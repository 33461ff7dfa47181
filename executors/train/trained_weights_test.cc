// What the trainer's buffers take, and what embeddings add to a piece of one. Their contents have
// tests with ranks (ranks_test.cc).
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sparse_coo_tensor.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "executors/device/allocator.h"
#include "executors/train/lookups.h"
#include "executors/train/weights.h"

namespace flowmesh::train {
namespace {

int64_t ResidentBytes() {
  int64_t all = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> all >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST(TrainedWeightsTest, NothingIsLeftOfTheModelsOwnTensors) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer keeps what was freed";
#endif
  constexpr int kLayers = 16, kTensors = 16;
  constexpr int64_t kElements = 65536;
  device::KeepFreedMemory();  // as the tasks do
  const int64_t before = ResidentBytes();
  std::deque<at::Tensor> model;
  std::vector<TrainedTensor> tensors;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int i = 0; i < kTensors; ++i) {
      tensors.push_back(
          {absl::StrCat(layer, ".", i), &model.emplace_back(at::ones({kElements, 1})), layer});
    }
  }
  const auto group = parallel::ProcessGroup::Single();
  const TrainedWeights weights(tensors, {.group = group.get()});
  // Weights, gradients and two moments.
  constexpr int64_t kBytes = 4 * sizeof(float) * kLayers * kTensors * kElements;
  EXPECT_LT(ResidentBytes() - before, kBytes + kBytes / 8);
  EXPECT_EQ(model[100].sum().item<float>(), kElements);
}

// A matrix of five rows of four, of which a shard holds any piece.
TEST(LookupsTest, APieceGetsWhatLiesInIt) {
  const auto group = parallel::ProcessGroup::Single();
  const at::Tensor ids = at::tensor({4, 0, 2, 2, 3}, at::kLong);
  const at::Tensor rows = at::ones({5, 4}) * at::tensor({1.f, 2.f, 3.f, 4.f, 5.f}).unsqueeze(1) +
                          at::tensor({.0f, .1f, .2f, .3f});
  const at::Tensor gradient = at::sparse_coo_tensor(ids.unsqueeze(0), rows, {5, 4});
  // Three elements of something else stand before it, and two behind.
  constexpr int64_t kOffset = 3, kSize = 25;
  const at::Tensor whole = at::zeros({kSize});
  whole.narrow(0, kOffset, 20).copy_(gradient.to_dense().view({-1}));
  for (int64_t begin = 0; begin < kSize; ++begin) {
    for (int64_t end = begin + 1; end <= kSize; ++end) {
      const at::Tensor sums = at::ones({end - begin});
      ASSERT_TRUE(AddLookups(gradient, kOffset - begin, sums, *group).ok());
      EXPECT_TRUE(at::equal(sums, whole.narrow(0, begin, end - begin) + 1))
          << begin << " to " << end;
    }
  }
}

}  // namespace
}  // namespace flowmesh::train
