// What the trainer's buffers take. Their contents have tests with ranks (ranks_test.cc).
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <fstream>
#include <vector>

#include "absl/strings/str_cat.h"
#include "executors/device/allocator.h"
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

}  // namespace
}  // namespace flowmesh::train
