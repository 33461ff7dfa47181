#include "executors/parallel/process_group.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "executors/device/test_device.h"
#include "executors/parallel/test_ranks.h"

namespace flowmesh::parallel {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;

constexpr int64_t kPiece = 100003;  // does not divide evenly into anything

at::TensorOptions Of(at::ScalarType type) {
  return at::TensorOptions(type).device(device::TestDevice());
}

// 0, 1, ..., 96, 0, ... + rank: small integers, whose sums are exact in bf16 too.
at::Tensor Numbers(int64_t count, int rank, at::ScalarType type) {
  return (at::arange(count, Of(at::kLong)).remainder(60) + rank).to(type);
}

// The sum of Numbers over ranks.
at::Tensor SumOfNumbers(int64_t count, int world, at::ScalarType type) {
  return (at::arange(count, Of(at::kLong)).remainder(60) * world + world * (world - 1) / 2)
      .to(type);
}

#define RETURN_UNLESS(condition) \
  if (!(condition)) return absl::StrCat("not true: ", #condition, "\n")
#define RETURN_UNLESS_OK(status) \
  if (const absl::Status s = (status); !s.ok()) return s.ToString()

std::string Sums(ProcessGroup& group, at::ScalarType type) {
  const int world = group.world_size(), rank = group.rank();
  const at::Tensor all = Numbers(kPiece, rank, type);
  RETURN_UNLESS_OK(group.AllReduceSum(all).Wait());
  RETURN_UNLESS(at::equal(all, SumOfNumbers(kPiece, world, type)));

  const at::Tensor in = Numbers(kPiece * world, rank, type), unchanged = in.clone();
  const at::Tensor expected =
      SumOfNumbers(kPiece * world, world, type).narrow(0, rank * kPiece, kPiece);
  const at::Tensor out = at::empty({kPiece}, Of(type));
  RETURN_UNLESS_OK(group.ReduceScatterSum(out, in).Wait());
  RETURN_UNLESS(at::equal(out, expected));
  RETURN_UNLESS(at::equal(in, unchanged));
  const at::Tensor own = in.narrow(0, rank * kPiece, kPiece);
  RETURN_UNLESS_OK(group.ReduceScatterSum(own, in).Wait());
  RETURN_UNLESS(at::equal(own, expected));
  return "";
}

std::string Copies(ProcessGroup& group, at::ScalarType type) {
  const int world = group.world_size(), rank = group.rank();
  const at::Tensor expected = Numbers(kPiece * world, 0, type);
  const at::Tensor own = expected.narrow(0, rank * kPiece, kPiece);
  at::Tensor out = at::zeros({kPiece * world}, Of(type));
  RETURN_UNLESS_OK(group.AllGather(out, own.clone()).Wait());
  RETURN_UNLESS(at::equal(out, expected));
  out = at::zeros({kPiece * world}, Of(type));
  const at::Tensor place = out.narrow(0, rank * kPiece, kPiece);
  place.copy_(own);
  RETURN_UNLESS_OK(group.AllGather(out, place).Wait());
  RETURN_UNLESS(at::equal(out, expected));
  for (int root = 0; root < world; ++root) {
    const at::Tensor tensor = Numbers(kPiece, rank, type);
    RETURN_UNLESS_OK(group.Broadcast(tensor, root).Wait());
    RETURN_UNLESS(at::equal(tensor, Numbers(kPiece, root, type)));
  }
  return "";
}

std::string Everything(ProcessGroup& group) {
  std::string problems;
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kHalf}) {
    problems += Sums(group, type) + Copies(group, type);
  }
  problems += Copies(group, at::kLong);
  const absl::Status barrier = group.Barrier();
  return problems + (barrier.ok() ? "right" : barrier.ToString());
}

// Many collectives of all kinds under way at once, waited for from the last to the first.
std::string ManyAtOnce(ProcessGroup& group) {
  const int world = group.world_size(), rank = group.rank();
  std::vector<at::Tensor> sums, scattered, gathered;
  std::vector<Pending> pending;
  for (int i = 0; i < 20; ++i) {
    const int64_t count = 1 + 5000 * i;
    sums.push_back(Numbers(count, rank, at::kFloat));
    pending.push_back(group.AllReduceSum(sums.back()));
    scattered.push_back(at::empty({count}, Of(at::kFloat)));
    pending.push_back(
        group.ReduceScatterSum(scattered.back(), Numbers(count * world, rank, at::kFloat)));
    gathered.push_back(at::empty({count * world}, Of(at::kFloat)));
    pending.push_back(group.AllGather(gathered.back(), Numbers(count, 0, at::kFloat) + rank));
  }
  while (!pending.empty()) {
    RETURN_UNLESS_OK(pending.back().Wait());
    pending.pop_back();
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    const int64_t count = sums[i].numel();
    RETURN_UNLESS(at::equal(sums[i], SumOfNumbers(count, world, at::kFloat)));
    RETURN_UNLESS(
        at::equal(scattered[i],
                  SumOfNumbers(count * world, world, at::kFloat).narrow(0, rank * count, count)));
    for (int from = 0; from < world; ++from) {
      RETURN_UNLESS(
          at::equal(gathered[i].narrow(0, from * count, count), Numbers(count, from, at::kFloat)));
    }
  }
  return "right";
}

// bf16 over four ranks: 256 + 1 + 1 + 1 is 259, which rounds to 260; rounded at each step it stays
// at 256. fp16 likewise, from 2048 on.
std::string RoundsOnce(ProcessGroup& group) {
  std::string sums;
  for (const auto& [type, large] :
       {std::pair{at::kBFloat16, 256.0}, std::pair{at::kHalf, 2048.0}}) {
    const at::Tensor in = at::full({4}, group.rank() == 3 ? large : 1.0, type);
    const at::Tensor out = at::empty({1}, type);
    RETURN_UNLESS_OK(group.ReduceScatterSum(out, in).Wait());
    absl::StrAppend(&sums, out.item<float>(), " ");
  }
  return sums;
}

// fp16 over two ranks: rank 0 has every number that there is, rank 1 its bits read as an integer
// (which Gloo added wrongly before libtorch 2.8), a number so large that sums overflow, or one that
// is not finite.
std::string HalfSums(ProcessGroup& group) {
  const at::Tensor bits = at::arange(1 << 16, at::kInt);
  const at::Tensor first = bits.to(at::kShort).view(at::kHalf);
  std::vector<at::Tensor> seconds = {bits.to(at::kHalf)};
  for (const float number : {65504.0f, INFINITY, -INFINITY, NAN}) {
    seconds.push_back(at::full({1 << 16}, number, at::kHalf));
  }
  for (const at::Tensor& second : seconds) {
    const at::Tensor expected = first + second;
    const at::Tensor own = group.rank() == 0 ? first : second;
    const at::Tensor sum = own.clone();
    RETURN_UNLESS_OK(group.AllReduceSum(sum).Wait());
    RETURN_UNLESS(at::allclose(sum, expected, 0, 0, /*equal_nan=*/true));
    const at::Tensor piece = at::empty({1 << 15}, at::kHalf);
    RETURN_UNLESS_OK(group.ReduceScatterSum(piece, own).Wait());
    const at::Tensor expected_piece = expected.narrow(0, group.rank() << 15, 1 << 15);
    RETURN_UNLESS(at::allclose(piece, expected_piece, 0, 0, /*equal_nan=*/true));
  }
  return "right";
}

std::string SumTwice(ProcessGroup& group) {
  const at::Tensor tensor = at::full({1000}, 1.0);
  RETURN_UNLESS_OK(group.AllReduceSum(tensor).Wait());
  const absl::Status first = group.AllReduceSum(tensor).Wait();
  // The group is over: the same error, at once.
  RETURN_UNLESS(group.Barrier() == first);
  return first.ToString();
}

// Rank 1 sums once with the others, and then...
std::string LastDies(ProcessGroup& group) {
  if (group.rank() != group.world_size() - 1) return SumTwice(group);
  (void)group.AllReduceSum(at::full({1000}, 1.0)).Wait();
  ::raise(SIGKILL);
  return "";
}

std::string FirstDies(ProcessGroup& group) {
  if (group.rank() != 0) return SumTwice(group);
  (void)group.AllReduceSum(at::full({1000}, 1.0)).Wait();
  ::raise(SIGKILL);
  return "";
}

std::string LastIsLate(ProcessGroup& group) {
  if (group.rank() != group.world_size() - 1) return SumTwice(group);
  (void)group.AllReduceSum(at::full({1000}, 1.0)).Wait();
  while (true) ::pause();
}

std::string LastIsStopped(ProcessGroup& group) {
  if (group.rank() != group.world_size() - 1) return SumTwice(group);
  (void)group.AllReduceSum(at::full({1000}, 1.0)).Wait();
  ::raise(SIGSTOP);
  return "";
}

std::string FirstIsStopped(ProcessGroup& group) {
  if (group.rank() != 0) return SumTwice(group);
  (void)group.AllReduceSum(at::full({1000}, 1.0)).Wait();
  ::raise(SIGSTOP);
  return "";
}

std::string LastLeaves(ProcessGroup& group) {
  if (group.rank() != group.world_size() - 1) return SumTwice(group);
  return group.AllReduceSum(at::full({1000}, 1.0)).Wait().ToString();
}

std::string LastIsElsewhere(ProcessGroup& group) {
  if (group.rank() != group.world_size() - 1) return SumTwice(group);
  const at::Tensor tensor = at::full({1000}, 1.0);
  (void)group.AllReduceSum(tensor).Wait();
  return group.Broadcast(tensor, 0).Wait().ToString();
}

// Rank 0 is busy for longer than collectives may take, or dies over it.
std::string FirstIsBusy(ProcessGroup& group) {
  if (group.rank() == 0) absl::SleepFor(absl::Milliseconds(1500));
  RETURN_UNLESS_OK(group.WaitForFirst([] { return false; }));
  RETURN_UNLESS_OK(group.WaitForFirst([] { return false; }));
  RETURN_UNLESS(group.rank() == 0 || group.waited() > absl::Seconds(1));
  return group.AllReduceSum(at::full({1000}, 1.0)).Wait().ToString();
}

std::string FirstDiesBusy(ProcessGroup& group) {
  if (group.rank() == 0) ::raise(SIGKILL);
  return group.WaitForFirst([] { return false; }).ToString();
}

std::string FirstIsStoppedBusy(ProcessGroup& group) {
  if (group.rank() == 0) ::raise(SIGSTOP);
  return group.WaitForFirst([] { return false; }).ToString();
}

std::string StopsWaiting(ProcessGroup& group) {
  if (group.rank() == 0)
    while (true) ::pause();
  return group.WaitForFirst([] { return true; }).ToString();
}

std::string LateReduceScatter(ProcessGroup& group) {
  if (group.rank() == 0) {
    const at::Tensor in = at::full({2000}, 1.0);
    return group.ReduceScatterSum(in.narrow(0, 0, 1000), in).Wait().ToString();
  }
  while (true) ::pause();
}

#define RANK_FUNCTION(function)                           \
  const RankFunctionRegistration function##_registration( \
      #function, [](const GroupOptions& options) { return WithGroup(options, function); })
RANK_FUNCTION(Everything);
RANK_FUNCTION(ManyAtOnce);
RANK_FUNCTION(RoundsOnce);
RANK_FUNCTION(HalfSums);
RANK_FUNCTION(SumTwice);
RANK_FUNCTION(LastDies);
RANK_FUNCTION(FirstDies);
RANK_FUNCTION(LastIsLate);
RANK_FUNCTION(LastIsStopped);
RANK_FUNCTION(FirstIsStopped);
RANK_FUNCTION(FirstIsStoppedBusy);
RANK_FUNCTION(LastLeaves);
RANK_FUNCTION(LastIsElsewhere);
RANK_FUNCTION(LateReduceScatter);
RANK_FUNCTION(FirstIsBusy);
RANK_FUNCTION(FirstDiesBusy);
RANK_FUNCTION(StopsWaiting);

constexpr char kStuck[] = "all_reduce #3 (4000 bytes)";  // after the join's barrier and one sum
constexpr char kLast[] = "(its last: all_reduce #2 (4000 bytes))";
constexpr absl::Duration kShort = absl::Seconds(1);

class RanksTest : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Worlds, RanksTest, ::testing::Values(2, 4));

TEST_P(RanksTest, EveryCollectiveIsExact) {
  if (!HasDevices(GetParam())) GTEST_SKIP() << "needs " << GetParam() << " GPUs";
  for (const auto& [rank, end] : RunRanks("Everything", {.world_size = GetParam()})) {
    EXPECT_EQ(end.output, "right") << "rank " << rank;
    EXPECT_TRUE(end.status.ok()) << end.status.ToString();
  }
}

TEST_P(RanksTest, ManyMayBeUnderWay) {
  if (!HasDevices(GetParam())) GTEST_SKIP() << "needs " << GetParam() << " GPUs";
  for (const auto& [rank, end] : RunRanks("ManyAtOnce", {.world_size = GetParam()})) {
    EXPECT_EQ(end.output, "right") << "rank " << rank;
  }
}

TEST(ProcessGroupTest, AScatteredSumIsRoundedOnce) {
  for (const auto& [rank, end] : RunRanks("RoundsOnce", {.world_size = 4})) {
    EXPECT_EQ(end.output, "260 2052 ") << "rank " << rank;
  }
}

TEST(ProcessGroupTest, SumsOfHalvesOverflowToWhatIsNotFinite) {
  for (const auto& [rank, end] : RunRanks("HalfSums", {.world_size = 2})) {
    EXPECT_EQ(end.output, "right") << "rank " << rank;
  }
}

TEST(ProcessGroupTest, ARankThatNeverComesIsNamed) {
  const auto ends =
      RunRanks("SumTwice", {.world_size = 4, .join_timeout = kShort, .absent = {1, 3}});
  // Rank 0 may be gone, its time over, when rank 2 asks its store who is missing.
  EXPECT_EQ(ends.at(0).output,
            "DEADLINE_EXCEEDED: not all ranks joined within 1s: of 4 are missing: 1, 3");
  EXPECT_THAT(ends.at(2).output,
              AnyOf(ends.at(0).output, "ABORTED: rank 0 was lost before all ranks had joined"));
}

TEST(ProcessGroupTest, AMasterThatNeverComesIsNamed) {
  const auto ends = RunRanks("SumTwice", {.join_timeout = kShort, .absent = {0}});
  EXPECT_THAT(ends.at(1).output, HasSubstr("DEADLINE_EXCEEDED: rank 0 could not be reached at "));
}

TEST(ProcessGroupTest, ADeadRankIsNamed) {
  const auto ends = RunRanks("LastDies", {.world_size = 3});
  for (const int rank : {0, 1}) {
    EXPECT_THAT(ends.at(rank).output,
                HasSubstr(absl::StrCat("ABORTED: ", kStuck,
                                       " failed: rank 2 is gone or stopped (last heard of at ")));
  }
}

TEST(ProcessGroupTest, ADeadMasterIsNamed) {
  const auto ends = RunRanks("FirstDies", {.world_size = 2});
  EXPECT_EQ(ends.at(1).output,
            absl::StrCat("ABORTED: ", kStuck,
                         " failed: rank 0 is gone or stopped, and with it the store of "
                         "the group"));
}

TEST(ProcessGroupTest, ALateRankIsNamed) {
  const auto ends = RunRanks("LastIsLate", {.world_size = 3, .timeout = kShort, .endless = {2}});
  for (const int rank : {0, 1}) {
    EXPECT_EQ(ends.at(rank).output,
              absl::StrCat("DEADLINE_EXCEEDED: ", kStuck,
                           " did not finish within 1s: rank 2 has not come ", kLast));
  }
}

TEST(ProcessGroupTest, AStoppedRankIsNamed) {
  const auto ends = RunRanks("LastIsStopped", {.timeout = kShort, .endless = {1}});
  EXPECT_THAT(ends.at(0).output,
              HasSubstr(absl::StrCat("ABORTED: ", kStuck,
                                     " did not finish within 1s: rank 1 is gone or stopped ")));
}

// It holds the store in which ranks tell of themselves.
TEST(ProcessGroupTest, AStoppedRankZeroIsNamed) {
  EXPECT_EQ(RunRanks("FirstIsStopped", {.timeout = kShort, .endless = {0}}).at(1).output,
            absl::StrCat("ABORTED: ", kStuck,
                         " did not finish within 1s: rank 0 is gone or stopped, and with it the "
                         "store of the group"));
  EXPECT_EQ(RunRanks("FirstIsStoppedBusy", {.timeout = kShort, .endless = {0}}).at(1).output,
            "ABORTED: rank 0 is gone or stopped, and with it the store of the group");
}

TEST(ProcessGroupTest, ARankThatHasLeftIsNamed) {
  const auto ends = RunRanks("LastLeaves", {.world_size = 3});
  EXPECT_EQ(ends.at(2).output, "OK");
  for (const int rank : {0, 1}) {
    EXPECT_EQ(ends.at(rank).output,
              absl::StrCat("ABORTED: ", kStuck, " failed: rank 2 has left the group ", kLast));
  }
}

TEST(ProcessGroupTest, ARankAtAnotherCollectiveIsNamed) {
  const auto ends = RunRanks("LastIsElsewhere", {.timeout = kShort});
  EXPECT_EQ(ends.at(0).output, absl::StrCat("DEADLINE_EXCEEDED: ", kStuck,
                                            " did not finish within 1s: rank 1 is at another one, "
                                            "broadcast #3 (4000 bytes)"));
}

TEST(ProcessGroupTest, AReduceScatterHasATimeLimitToo) {
  const auto ends = RunRanks("LateReduceScatter", {.timeout = kShort, .endless = {1}});
  EXPECT_EQ(ends.at(0).output,
            "DEADLINE_EXCEEDED: reduce_scatter #2 (8000 bytes) did not finish within 1s: rank 1 "
            "has not come (its last: barrier #1 (0 bytes))");
}

TEST(ProcessGroupTest, RankZeroIsWaitedForBeyondTheLimitWhileItLives) {
  for (const auto& [rank, end] : RunRanks("FirstIsBusy", {.world_size = 3, .timeout = kShort})) {
    EXPECT_EQ(end.output, "OK") << "rank " << rank;
  }
  EXPECT_EQ(RunRanks("FirstDiesBusy", {}).at(1).output,
            "ABORTED: rank 0 is gone or stopped, and with it the store of the group");
  EXPECT_EQ(RunRanks("StopsWaiting", {.endless = {0}}).at(1).output, "CANCELLED: stopped");
}

TEST(ProcessGroupTest, AWorldOfOneIsDoneAtOnce) {
  const std::unique_ptr<ProcessGroup> group = ProcessGroup::Single();
  EXPECT_EQ(Everything(*group), "right");
  EXPECT_TRUE(group->WaitForFirst([] { return true; }).ok());
}

TEST(ProcessGroupTest, WhatACollectiveCannotTakeIsAnError) {
  const std::unique_ptr<ProcessGroup> group = ProcessGroup::Single();
  EXPECT_EQ(Message(group->AllReduceSum(at::zeros({2}, at::kLong)).Wait()),
            "a sum over ranks needs fp32, bf16 or fp16, got Long");
  EXPECT_EQ(Message(group->Broadcast(at::zeros({2, 3}).t(), 0).Wait()),
            "a collective needs contiguous tensors");
  EXPECT_EQ(Message(group->AllGather(at::zeros({3}), at::zeros({2})).Wait()),
            "expected flat tensors of one type, one 1 times the other, got 3 and 2 elements");
  EXPECT_EQ(Message(group->Broadcast(at::zeros({2}), 1).Wait()),
            "expected a root of 0 to 0, got 1");
}

TEST(ProcessGroupTest, WrongOptionsAreNamed) {
  const auto error = [](const GroupOptions& options) {
    return Message(ProcessGroup::Join(options).status());
  };
  EXPECT_EQ(error({.rank = 2, .world_size = 2}), "RANK: expected 0 to 1, got 2");
  EXPECT_EQ(error({.world_size = 0}), "WORLD_SIZE: expected at least 1, got 0");
  EXPECT_EQ(error({.world_size = 2}), "MASTER_ADDR: expected the address of rank 0, got nothing");
  EXPECT_EQ(error({.world_size = 2, .master_addr = "127.0.0.1", .master_port = 70000}),
            "MASTER_PORT: expected 1 to 65535, got 70000");
}

}  // namespace
}  // namespace flowmesh::parallel
