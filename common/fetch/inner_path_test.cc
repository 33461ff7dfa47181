#include "common/fetch/inner_path.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST(InnerPathTest, RelativeNamesAreSplit) {
  EXPECT_THAT(InnerPath("a/b.txt").value(), ElementsAre("a", "b.txt"));
  EXPECT_THAT(InnerPath("./a//b/./").value(), ElementsAre("a", "b"));
  EXPECT_THAT(InnerPath("..a/b..").value(), ElementsAre("..a", "b.."));
  EXPECT_THAT(InnerPath(".").value(), IsEmpty());
}

TEST(InnerPathTest, NamesThatMayLeadOutAreNone) {
  for (const std::string_view name :
       {"", "/", "/a", "//a", "..", "a/..", "a/../b", "../a", "./.."}) {
    EXPECT_FALSE(InnerPath(name)) << name;
  }
  EXPECT_FALSE(InnerPath(std::string_view("a\0b", 3)));
}

TEST(InnerPathTest, LinksMayGoUpOnlyAtTheirBeginningAndOnlyToTheRoot) {
  for (const auto& [target, depth] : std::vector<std::pair<std::string, int>>{{"a", 0},
                                                                              {"a/b", 0},
                                                                              {".", 0},
                                                                              {"./a", 0},
                                                                              {"..", 1},
                                                                              {"../a", 1},
                                                                              {"../../a", 2},
                                                                              {".././../a", 2},
                                                                              {"..a", 0}}) {
    EXPECT_TRUE(IsInnerLink(target, depth)) << target;
  }
  for (const auto& [target, depth] : std::vector<std::pair<std::string, int>>{{"", 5},
                                                                              {"/", 5},
                                                                              {"/a", 5},
                                                                              {"..", 0},
                                                                              {"../a", 0},
                                                                              {"../../a", 1},
                                                                              {"a/..", 5},
                                                                              {"a/../b", 5},
                                                                              {"../a/../b", 5}}) {
    EXPECT_FALSE(IsInnerLink(target, depth)) << target;
  }
}

}  // namespace
}  // namespace flowmesh
