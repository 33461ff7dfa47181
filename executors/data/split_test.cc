#include "executors/data/split.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/yaml.h"

namespace flowmesh::data {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Order = std::vector<size_t>;

// From numpy 2.4.6: np.random.default_rng(seed).permutation(n).
TEST(PermutationTest, IsNumpys) {
  EXPECT_EQ(Permutation(42, 0), Order());
  EXPECT_EQ(Permutation(42, 1), Order({0}));
  EXPECT_EQ(Permutation(42, 2), Order({1, 0}));
  EXPECT_EQ(Permutation(42, 10), Order({5, 6, 0, 7, 3, 2, 4, 9, 1, 8}));
  EXPECT_EQ(Permutation(0, 7), Order({2, 4, 3, 6, 5, 0, 1}));
  EXPECT_EQ(Permutation(7, 16), Order({3, 10, 6, 8, 1, 14, 0, 7, 4, 13, 15, 2, 12, 5, 9, 11}));
  EXPECT_EQ(Permutation(4294967301u, 9), Order({5, 6, 2, 4, 0, 8, 7, 3, 1}));
  EXPECT_EQ(Permutation(123456789, 12), Order({11, 5, 7, 4, 0, 3, 8, 10, 2, 1, 6, 9}));
}

TEST(PermutationTest, IsNumpysForManyRows) {
  const Order order = Permutation(42, 100000);
  EXPECT_EQ(Order(order.begin(), order.begin() + 6),
            Order({45262, 49850, 30394, 90177, 95569, 10900}));
  EXPECT_EQ(Order(order.end() - 3, order.end()), Order({5668, 22113, 75400}));
  uint64_t sum = 0;
  for (size_t i = 0; i < order.size(); ++i) sum += order[i] * (i + 1);
  EXPECT_EQ(sum % 1000000007, 31958510u);
}

Range Sliced(const std::string& text, size_t rows) {
  const auto parts = ParseSplit(text);
  EXPECT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(parts->size(), 1u);
  return Slice(parts->front(), rows);
}

TEST(SplitTest, Slices) {
  EXPECT_EQ(Sliced("train", 7), (Range{0, 7}));
  EXPECT_EQ(Sliced("train[:]", 7), (Range{0, 7}));
  EXPECT_EQ(Sliced("train[2:5]", 7), (Range{2, 5}));
  EXPECT_EQ(Sliced("train[-3:]", 7), (Range{4, 7}));
  EXPECT_EQ(Sliced("train[:-3]", 7), (Range{0, 4}));
  EXPECT_EQ(Sliced("train[-30:30]", 7), (Range{0, 7}));
  EXPECT_EQ(Sliced("train[9:]", 7), (Range{7, 7}));
  EXPECT_EQ(Sliced("train[5:2]", 7), (Range{5, 5}));
  EXPECT_EQ(Sliced(" train [ 1 : 2 ] ", 7), (Range{1, 2}));
}

TEST(SplitTest, PercentsRoundHalvesToTheEvenNumber) {
  EXPECT_EQ(Sliced("train[:1%]", 50), (Range{0, 0}));  // 0.5
  EXPECT_EQ(Sliced("train[:3%]", 50), (Range{0, 2}));  // 1.5
  EXPECT_EQ(Sliced("train[:5%]", 50), (Range{0, 2}));  // 2.5
  EXPECT_EQ(Sliced("train[80%:]", 10), (Range{8, 10}));
  EXPECT_EQ(Sliced("train[-5%:]", 100), (Range{95, 100}));
  EXPECT_EQ(Sliced("train[:100%]", 3), (Range{0, 3}));
}

TEST(SplitTest, PartsAreJoined) {
  const auto parts = ParseSplit("train[:80%]+test");
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_THAT(*parts, ElementsAre(SplitPart{.name = "train", .to = 80, .percent = true},
                                  SplitPart{.name = "test"}));
}

TEST(SplitTest, MistakesAreNamed) {
  for (const auto& [text, why] :
       std::vector<std::pair<std::string, std::string>>{{"", "no name"},
                                                        {"train+", "no name"},
                                                        {"[1:2]", "no name"},
                                                        {"train[1:2", "expected ]"},
                                                        {"train1:2]", "no [ before it"},
                                                        {"train[1]", "two bounds"},
                                                        {"train[1:2:3]", "two bounds"},
                                                        {"train[a:2]", "no integer"},
                                                        {"train[1.5:]", "no integer"},
                                                        {"train[10%:20]", "both bounds"},
                                                        {"train[:101%]", "beyond 100"},
                                                        {"train[-101%:]", "beyond 100"}}) {
    const auto parts = ParseSplit(text);
    EXPECT_EQ(parts.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(Message(parts.status()), HasSubstr(why)) << text;
  }
}

absl::StatusOr<Shard> Read(const std::string& yaml) {
  const Json spec = ParseYaml(yaml).value();
  return ReadShard(Field(&spec, "spec"));
}

TEST(ShardTest, TheFirstGetOneMoreWhenContiguous) {
  const auto rows = [](const std::string& shard) {
    return ShardRows(Read("shard: " + shard).value(), 7);
  };
  EXPECT_EQ(rows("{total: 3, index: 0}"), Order({0, 1, 2}));
  EXPECT_EQ(rows("{total: 3, index: 1}"), Order({3, 4}));
  EXPECT_EQ(rows("{total: '3', index: 2.0}"), Order({5, 6}));
  EXPECT_EQ(rows("{total: 3, index: 1, contiguous: 'false'}"), Order({1, 4}));
  EXPECT_EQ(rows("{total: 9, index: 8}"), Order());
  EXPECT_EQ(rows("{total: 1, index: 5}").size(), 7u);
  EXPECT_EQ(rows("~").size(), 7u);
}

TEST(ShardTest, MistakesNameTheField) {
  EXPECT_EQ(Message(Read("shard: {total: 3, index: 3}").status()),
            "spec.shard.index: expected an integer from 0 to 2, got 3");
  EXPECT_EQ(Message(Read("shard: {total: 3, index: -1}").status()),
            "spec.shard.index: expected an integer from 0 to 2, got -1");
  EXPECT_EQ(Message(Read("shard: {total: many}").status()),
            "spec.shard.total: expected an integer, got \"many\"");
  EXPECT_EQ(Message(Read("shard: [1]").status()), "spec.shard: expected a map, got a list");
}

}  // namespace
}  // namespace flowmesh::data
