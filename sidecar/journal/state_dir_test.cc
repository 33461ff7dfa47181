#include "sidecar/journal/state_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::sidecar {
namespace {

TEST(StateDirTest, AWorkersFolderBelongsToOneSidecar) {
  const TempDir dir;
  {
    const absl::StatusOr<StateDir> first = OpenStateDir(dir / "state", "w");
    ASSERT_TRUE(first.ok()) << first.status();
    EXPECT_EQ(first->path, dir / "state" / "w");
    const absl::StatusOr<StateDir> second = OpenStateDir(dir / "state", "w");
    EXPECT_TRUE(absl::IsFailedPrecondition(second.status())) << second.status();
    EXPECT_THAT(Message(second.status()), ::testing::HasSubstr("another sidecar"));
    EXPECT_TRUE(OpenStateDir(dir / "state", "x").ok());
  }
  EXPECT_TRUE(OpenStateDir(dir / "state", "w").ok());
}

TEST(StateDirTest, WithoutAnIdTheFirstFreeFolderIsTaken) {
  const TempDir dir;
  const absl::StatusOr<StateDir> first = OpenStateDir(dir.path(), "");
  const absl::StatusOr<StateDir> second = OpenStateDir(dir.path(), "");
  ASSERT_TRUE(first.ok() && second.ok());
  EXPECT_EQ(first->path.filename(), "auto-0");
  EXPECT_EQ(second->path.filename(), "auto-1");
}

TEST(StateDirTest, OnlyTheOwnerMayLookIntoIt) {
  const TempDir dir;
  ASSERT_TRUE(MakeDirectories(dir / "w").ok());  // for everybody, as an older version made it
  ASSERT_TRUE(OpenStateDir(dir.path(), "w").ok());
  EXPECT_EQ(std::filesystem::status(dir / "w").permissions(), std::filesystem::perms::owner_all);
}

TEST(StateDirTest, AFolderThatCannotBeMadeIsNamed) {
  const TempDir dir;
  ASSERT_TRUE(WriteFileAtomically(dir / "file", "x").ok());
  const absl::StatusOr<StateDir> opened = OpenStateDir(dir / "file", "w");
  ASSERT_FALSE(opened.ok());
  EXPECT_THAT(Message(opened.status()), ::testing::HasSubstr("file"));
}

}  // namespace
}  // namespace flowmesh::sidecar
