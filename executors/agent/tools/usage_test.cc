#include "executors/agent/tools/usage.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <string>
#include <thread>

#include "common/files.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMega = 1 << 20;
constexpr uint64_t kNotCounted = std::numeric_limits<uint64_t>::max();

void Fill(const fs::path& file) { std::ofstream(file) << std::string(kMega, 'x'); }

// Folders in each other, and a file of a megabyte in the last.
void MakeChain(const fs::path& root, const std::string& name, int count) {
  UniqueFd at(::open(root.c_str(), O_RDONLY | O_DIRECTORY));
  for (int i = 0; i < count; ++i) {
    ASSERT_EQ(::mkdirat(at.get(), name.c_str(), 0777), 0);
    at = UniqueFd(::openat(at.get(), name.c_str(), O_RDONLY | O_DIRECTORY));
  }
  const UniqueFd file(::openat(at.get(), "file", O_WRONLY | O_CREAT, 0666));
  const std::string content(kMega, 'x');
  ASSERT_EQ(::write(file.get(), content.data(), content.size()), static_cast<ssize_t>(kMega));
}

// As somebody whom modes bind, which they do not root.
uint64_t BoundDiskUse(const fs::path& folder) {
  uint64_t use = 0;
  std::thread([&] {
    __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    __user_cap_data_struct none[2] = {};
    EXPECT_EQ(::syscall(SYS_capset, &header, none), 0);
    use = DiskUse(folder, 100 * kMega);
  }).join();
  return use;
}

TEST(DiskUseTest, CountsBelowAndStopsWhereItIsEnough) {
  const TempDir dir;
  EXPECT_EQ(DiskUse(dir / "none", kMega), 0u);
  EXPECT_LT(DiskUse(dir.path(), kMega), kMega);
  fs::create_directories(dir / "a/b");
  for (int i = 0; i < 4; ++i) Fill(dir / "a/b" / std::to_string(i));
  fs::create_symlink("/usr", dir / "link");
  EXPECT_GE(DiskUse(dir.path(), 100 * kMega), 4 * kMega);
  EXPECT_LT(DiskUse(dir.path(), 100 * kMega), 5 * kMega);
  EXPECT_GT(DiskUse(dir.path(), kMega), kMega);
  EXPECT_LT(DiskUse(dir.path(), kMega), 3 * kMega);
}

TEST(DiskUseTest, CountsBehindAPathThatIsTooLong) {
  const TempDir dir;
  MakeChain(dir.path(), std::string(200, 'n'), 30);
  const uint64_t use = DiskUse(dir.path(), 100 * kMega);
  EXPECT_GE(use, kMega);
  EXPECT_LT(use, 2 * kMega);
}

TEST(DiskUseTest, WhatLiesTooDeepIsTooMuch) {
  const TempDir dir;
  MakeChain(dir.path(), "n", 102);
  EXPECT_EQ(DiskUse(dir.path(), 100 * kMega), kNotCounted);
}

TEST(DiskUseTest, CountsInFoldersThatAreClosedByTheirMode) {
  for (const char* closed : {"", "0", "0/1"}) {
    for (const mode_t mode : {0000, 0200, 0400, 0100}) {
      const TempDir dir;
      fs::create_directories(dir / "w/0/1");
      for (const char* file : {"w/a", "w/0/b", "w/0/1/c"}) Fill(dir / file);
      ASSERT_EQ(::chmod((dir / "w" / closed).c_str(), mode), 0);
      const uint64_t use = BoundDiskUse(dir / "w");
      EXPECT_GE(use, 3 * kMega) << closed << " " << mode;
      EXPECT_LT(use, 4 * kMega) << closed << " " << mode;
    }
  }
}

TEST(DiskUseTest, WhatAnotherOwnsAndClosesIsTooMuch) {
  const TempDir dir;
  fs::create_directories(dir / "w/0");
  ASSERT_EQ(::chmod((dir / "w/0").c_str(), 0), 0);
  if (::chown((dir / "w/0").c_str(), 65534, 65534) != 0) GTEST_SKIP() << "only root gives away";
  EXPECT_EQ(BoundDiskUse(dir / "w"), kNotCounted);
}

}  // namespace
}  // namespace flowmesh::agent
