#include "executors/parallel/gradient_buckets.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "executors/parallel/test_ranks.h"

namespace flowmesh::parallel {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSize = 4 * 1009;
constexpr int64_t kBucketBytes = 4000;  // 1000 elements: five buckets, the last one smaller

at::Tensor Gradients(int rank, int round) {
  return (at::arange(kSize, at::kLong).remainder(97) + 10 * rank + round).to(at::kFloat);
}

at::Tensor Sum(int world, int round) {
  at::Tensor sum = at::zeros({kSize});
  for (int rank = 0; rank < world; ++rank) sum.add_(Gradients(rank, round));
  return sum;
}

// Cuts of uneven lengths in an order of this rank's own.
std::vector<std::pair<int64_t, int64_t>> Parameters(uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::pair<int64_t, int64_t>> parameters;
  for (int64_t offset = 0; offset < kSize;) {
    const int64_t count = std::min<int64_t>(1 + random() % 1500, kSize - offset);
    parameters.emplace_back(offset, count);
    offset += count;
  }
  std::shuffle(parameters.begin(), parameters.end(), random);
  return parameters;
}

// Several rounds; in each, `threads` threads mark their shares of the parameters.
std::string Rounds(ProcessGroup& group, Exchange exchange, size_t threads) {
  const at::Tensor buffer = at::zeros({kSize});
  GradientBuckets buckets(group, buffer, exchange, kBucketBytes);
  for (int round = 0; round < 5; ++round) {
    buffer.copy_(Gradients(group.rank(), round));
    const auto parameters = Parameters(static_cast<uint32_t>(100 * round + group.rank()));
    std::vector<std::thread> markers;
    for (size_t t = 0; t < threads; ++t) {
      markers.emplace_back([&, t] {
        for (size_t i = t; i < parameters.size(); i += threads) {
          buckets.MarkReady(parameters[i].first, parameters[i].second);
        }
      });
    }
    for (std::thread& marker : markers) marker.join();
    if (const absl::Status status = buckets.Finish(); !status.ok()) return status.ToString();
    const at::Tensor expected = Sum(group.world_size(), round);
    int64_t owned = 0;
    for (const GradientBuckets::Piece& piece : buckets.OwnPieces()) {
      owned += piece.count;
      if (!at::equal(buffer.narrow(0, piece.offset, piece.count),
                     expected.narrow(0, piece.offset, piece.count))) {
        return absl::StrCat("wrong in round ", round, " from ", piece.offset);
      }
    }
    const int64_t share = exchange == Exchange::kAllReduce ? 1 : group.world_size();
    if (owned * share != kSize) return absl::StrCat("owns ", owned);
  }
  return "right";
}

std::string AllReduced(ProcessGroup& group) { return Rounds(group, Exchange::kAllReduce, 1); }
std::string ByThreads(ProcessGroup& group) { return Rounds(group, Exchange::kAllReduce, 3); }
std::string Scattered(ProcessGroup& group) { return Rounds(group, Exchange::kReduceScatter, 3); }

// Parameters without a gradient on one rank only are exchanged all the same.
std::string SomeUnmarked(ProcessGroup& group) {
  const at::Tensor buffer = Gradients(group.rank(), 0);
  GradientBuckets buckets(group, buffer, Exchange::kAllReduce, kBucketBytes);
  if (group.rank() == 0) buckets.MarkReady(kSize / 2, kSize - kSize / 2);
  if (const absl::Status status = buckets.Finish(); !status.ok()) return status.ToString();
  return at::equal(buffer, Sum(group.world_size(), 0)) ? "right" : "wrong";
}

// The last bucket is exchanged before the others are ready: rank 0 sees its sum and only then goes
// on.
std::string BeginsEarly(ProcessGroup& group) {
  const at::Tensor buffer = Gradients(group.rank(), 0);
  GradientBuckets buckets(group, buffer, Exchange::kAllReduce, kBucketBytes);
  buckets.MarkReady(kSize - 1000, 1000);
  const at::Tensor expected = Sum(group.world_size(), 0);
  const auto* last = static_cast<const volatile float*>(buffer.data_ptr()) + kSize - 1;
  const float wanted = expected[kSize - 1].item<float>();
  while (*last != wanted) ::usleep(1000);  // the test's time limit ends it
  buckets.MarkReady(0, kSize - 1000);
  if (const absl::Status status = buckets.Finish(); !status.ok()) return status.ToString();
  return at::equal(buffer, expected) ? "right" : "wrong";
}

std::string Absent(ProcessGroup& group) {
  if (group.rank() == 1) {
    while (true) ::pause();
  }
  const at::Tensor buffer = at::zeros({kSize});
  GradientBuckets buckets(group, buffer, Exchange::kReduceScatter, kBucketBytes);
  buckets.MarkReady(0, kSize);
  return buckets.Finish().ToString();
}

#define RANK_FUNCTION(function)                           \
  const RankFunctionRegistration function##_registration( \
      #function, [](const GroupOptions& options) { return WithGroup(options, function); })
RANK_FUNCTION(AllReduced);
RANK_FUNCTION(ByThreads);
RANK_FUNCTION(Scattered);
RANK_FUNCTION(SomeUnmarked);
RANK_FUNCTION(BeginsEarly);
RANK_FUNCTION(Absent);

class BucketsTest : public ::testing::TestWithParam<std::pair<const char*, int>> {};
INSTANTIATE_TEST_SUITE_P(Worlds, BucketsTest,
                         ::testing::Values(std::pair("AllReduced", 2), std::pair("ByThreads", 2),
                                           std::pair("ByThreads", 4), std::pair("Scattered", 2),
                                           std::pair("Scattered", 4), std::pair("SomeUnmarked", 2),
                                           std::pair("BeginsEarly", 2)));

TEST_P(BucketsTest, SumsAreExact) {
  const auto [function, world] = GetParam();
  for (const auto& [rank, end] : RunRanks(function, {.world_size = world})) {
    EXPECT_EQ(end.output, "right") << "rank " << rank;
  }
}

TEST(GradientBuckets, AWorldOfOneKeepsItsGradients) {
  const std::unique_ptr<ProcessGroup> group = ProcessGroup::Single();
  EXPECT_EQ(Rounds(*group, Exchange::kAllReduce, 2), "right");
  EXPECT_EQ(Rounds(*group, Exchange::kReduceScatter, 2), "right");
}

TEST(GradientBuckets, ARankThatDoesNotExchangeIsNamed) {
  const auto ends = RunRanks("Absent", {.timeout = absl::Seconds(1), .endless = {1}});
  EXPECT_THAT(ends.at(0).output, HasSubstr("DEADLINE_EXCEEDED: reduce_scatter #2 (4000 bytes) did "
                                           "not finish within 1s: rank 1 has not come"));
}

TEST(GradientBuckets, MarkingTwiceIsAnError) {
  const std::unique_ptr<ProcessGroup> group = ProcessGroup::Single();
  GradientBuckets buckets(*group, at::zeros({100}), Exchange::kAllReduce);
  buckets.MarkReady(0, 60);
  buckets.MarkReady(50, 50);
  EXPECT_TRUE(absl::IsFailedPrecondition(buckets.Finish()));
  buckets.MarkReady(0, 100);
  EXPECT_TRUE(buckets.Finish().ok());
}

}  // namespace
}  // namespace flowmesh::parallel
