// One group over two machines: two network namespaces with a cable between them, where the system
// allows that.
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "executors/parallel/test_ranks.h"

namespace flowmesh::parallel {
namespace {

bool Ip(const std::string& arguments) {
  SubprocessOptions options;
  options.argv = absl::StrSplit(absl::StrCat("ip ", arguments), ' ');
  absl::StatusOr<Subprocess> ip = Subprocess::Start(options);
  if (!ip.ok()) return false;
  const std::optional<ExitStatus> status = ip->Wait(absl::Seconds(10));
  return status && status->ok();
}

class TwoMachinesTest : public ::testing::Test {
 protected:
  TwoMachinesTest() {
    cabled_ = Ip("netns add " + Name(0)) && Ip("netns add " + Name(1)) &&
              Ip(absl::StrCat("link add cable netns ", Name(0), " type veth peer name cable netns ",
                              Name(1)));
    for (int i = 0; cabled_ && i < 2; ++i) {
      cabled_ = Ip(absl::StrCat("-n ", Name(i), " addr add ", Address(i), "/24 dev cable")) &&
                Ip(absl::StrCat("-n ", Name(i), " link set cable up")) &&
                Ip(absl::StrCat("-n ", Name(i), " link set lo up"));
    }
  }
  ~TwoMachinesTest() override {
    for (int i = 0; i < 2; ++i) Ip("netns del " + Name(i));
  }

  static std::string Name(int machine) {
    return absl::StrCat("flowmesh-test-", ::getpid(), "-", machine);
  }
  static std::string Address(int machine) { return absl::StrCat("10.231.7.", machine + 1); }

  // Ranks 0 and 1 on one machine, 2 and 3 on the other.
  static RanksToRun FourRanks() {
    RanksToRun ranks{.world_size = 4, .master_addr = Address(0)};
    for (int rank = 0; rank < 4; ++rank) {
      ranks.run_by[rank] = {"ip", "netns", "exec", Name(rank / 2)};
    }
    return ranks;
  }

  bool cabled_ = false;
};

std::string SumOverMachines(const GroupOptions& options) {
  return WithGroup(options, [](ProcessGroup& group) -> std::string {
    const at::Tensor tensor = at::full({100000}, 1.0 + group.rank());
    const absl::Status status = group.AllReduceSum(tensor).Wait();
    if (!status.ok()) return status.ToString();
    return at::equal(tensor, at::full({100000}, 10.0)) ? "right" : "wrong";
  });
}
const RankFunctionRegistration registration("SumOverMachines", SumOverMachines);

TEST_F(TwoMachinesTest, TheirRanksAreOneGroup) {
  if (!cabled_) GTEST_SKIP() << "network namespaces are not allowed here";
  const auto ends = RunRanks("SumOverMachines", FourRanks());
  for (const auto& [rank, end] : ends) EXPECT_EQ(end.output, "right") << "rank " << rank;
}

}  // namespace
}  // namespace flowmesh::parallel
