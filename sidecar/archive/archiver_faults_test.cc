#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <unistd.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "sidecar/archive/archiver.h"
#include "sidecar/archive/memory_watch.h"
#include "sidecar/archive/tar_stream.h"
#include "sidecar/archive/test_folder.h"

namespace flowmesh::sidecar {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::Status Error(const TestFolder& folder, const ArchiveOptions& options = {},
                   const std::function<bool()>& is_cancelled = nullptr) {
  return MakeArchive(folder.path(), options, is_cancelled).status();
}

// After a failure: the folder, the older archive, and nothing else.
void ExpectTheOldArchiveAlone(const TestFolder& folder) {
  EXPECT_THAT(folder.Beside(), ElementsAre("final_model", "final_model.tar.gz"));
  EXPECT_EQ(ReadFile(folder.archive()).value(), "the old one");
}

TEST(ArchiverFaultsTest, AFileThatCannotBeReadIsNamed) {
  TestFolder folder;
  folder.Write("a", "x");
  folder.Write("secret", "y");
  ASSERT_TRUE(WriteFileAtomically(folder.archive(), "the old one").ok());
  fs::permissions(folder.path() / "secret", fs::perms::none);
  // Root may read everything: this thread gives that up for a while.
  fs::permissions(folder.parent(), fs::perms::all);
  const auto nobody = static_cast<uid_t>(::geteuid() == 0 ? 65534 : ::geteuid());
  ::setfsuid(nobody);
  const absl::Status status = Error(folder);
  ::setfsuid(::geteuid());
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr((folder.path() / "secret").string()));
  ExpectTheOldArchiveAlone(folder);
}

TEST(ArchiverFaultsTest, WhatIsNoFolderIsAnError) {
  TestFolder folder;
  fs::remove(folder.path());
  EXPECT_TRUE(absl::IsNotFound(Error(folder)));
  ASSERT_TRUE(WriteFileAtomically(folder.path(), "a file").ok());
  EXPECT_EQ(Message(Error(folder)), folder.path().string() + ": expected a folder to archive");
  fs::remove(folder.path());
  fs::create_directory_symlink("/etc", folder.path());
  EXPECT_TRUE(absl::IsFailedPrecondition(Error(folder)));
  EXPECT_THAT(folder.Beside(), ElementsAre("final_model"));
}

// A file that changes between its header and its end, exactly there.
absl::Status ArchiveWhile(const TestFolder& folder, const std::function<void()>& change) {
  bool changed = false;
  std::vector<std::string> skipped;
  return WriteTar(
      folder.path(),
      [&](std::string_view bytes) {
        if (bytes.find("final_model/moving") != std::string_view::npos && !changed) {
          changed = true;
          change();
        }
        return absl::OkStatus();
      },
      skipped);
}

TEST(ArchiverFaultsTest, AFileThatChangesWhileItIsReadIsAnError) {
  TestFolder folder;
  const fs::path moving = folder.path() / "moving";
  folder.Write("moving", Noise(1'000'000));
  folder.Write("z", "after it");
  EXPECT_TRUE(ArchiveWhile(folder, [] {}).ok());
  EXPECT_EQ(
      Message(ArchiveWhile(folder, [&] { fs::resize_file(moving, 300'000); })),
      moving.string() + ": changed while it was archived: 1000000 bytes before, 300000 after");
  EXPECT_EQ(
      Message(ArchiveWhile(folder, [&] { fs::resize_file(moving, 2'000'000); })),
      moving.string() + ": changed while it was archived: 300000 bytes before, 2000000 after");
  EXPECT_THAT(
      Message(ArchiveWhile(
          folder, [&] { std::fstream(moving, std::ios::in | std::ios::out) << "other bytes"; })),
      HasSubstr("changed while it was archived"));
}

TEST(ArchiverFaultsTest, AFolderTooDeepIsAnError) {
  TestFolder folder;
  fs::path deep = folder.path();
  for (int i = 0; i < 102; ++i) deep /= "d";
  fs::create_directories(deep);
  EXPECT_THAT(Message(Error(folder)), HasSubstr("more than 100 folders deep"));
}

TEST(ArchiverFaultsTest, CancellationEndsItAtOnceAndLeavesTheOldOne) {
  TestFolder folder;
  folder.Write("model", Noise(8'000'000));
  ASSERT_TRUE(WriteFileAtomically(folder.archive(), "the old one").ok());
  for (const ArchiveOptions& options :
       {ArchiveOptions{}, ArchiveOptions{.tar_program = "tar"},
        ArchiveOptions{.tar_program = "tar", .gzip_program = "pigz"}}) {
    int polls = 0;
    EXPECT_TRUE(absl::IsCancelled(Error(folder, options, [&] { return ++polls > 3; })));
    EXPECT_EQ(polls, 4);
    ExpectTheOldArchiveAlone(folder);
  }
}

TEST(ArchiverFaultsTest, CancellationEndsAProgramThatHangs) {
  TestFolder folder;
  const fs::path hangs = folder.parent() / "hangs";
  ASSERT_TRUE(WriteFileAtomically(hangs, "#!/bin/sh\nexec sleep 1000\n").ok());
  fs::permissions(hangs, fs::perms::owner_all);
  for (const ArchiveOptions& options : {ArchiveOptions{.tar_program = hangs.string()},
                                        ArchiveOptions{.gzip_program = hangs.string()}}) {
    int polls = 0;
    EXPECT_TRUE(absl::IsCancelled(Error(folder, options, [&] { return ++polls > 5; })));
  }
  EXPECT_THAT(folder.Beside(), ElementsAre("final_model", "hangs"));
}

TEST(ArchiverFaultsTest, AFullDiskIsAnErrorAndLeavesTheOldOne) {
  TestFolder folder;
  folder.Write("model", Noise(8'000'000));
  ASSERT_TRUE(WriteFileAtomically(folder.archive(), "the old one").ok());
  // A limit on files stands for the disk's.
  const auto old_handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  rlimit limit = old_limit;
  limit.rlim_cur = 3'000'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &limit), 0);
  const absl::Status status = Error(folder);
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  ::signal(SIGXFSZ, old_handler);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("cannot write"), HasSubstr("final_model.tar.gz")));
  ExpectTheOldArchiveAlone(folder);
}

TEST(ArchiverFaultsTest, HalvesOfAKilledProcessAreRemoved) {
  TestFolder folder;
  const fs::path half = folder.parent() / ".final_model.tar.gz.0123abcd";
  const fs::path other = folder.parent() / ".final_model.tar.gz.mine";
  ASSERT_TRUE(WriteFileAtomically(half, "half").ok());
  ASSERT_TRUE(WriteFileAtomically(other, "not ours").ok());
  EXPECT_TRUE(Error(folder).ok());
  EXPECT_FALSE(fs::exists(half));
  EXPECT_TRUE(fs::exists(other));
}

TEST(ArchiverFaultsTest, MemoryStaysBelow64MegabytesWithAnyNumberOfThreads) {
  TestFolder folder;
  folder.Write("model", Noise(50'000'000));
  fs::create_directory(folder.path() / "holes");
  folder.Write("holes/sparse", "");
  fs::resize_file(folder.path() / "holes/sparse", 1'000'000'000);
  MemoryWatch watch;
  EXPECT_TRUE(Error(folder, {.threads = 1000}).ok());
  EXPECT_LT(watch.MostMore(), 64'000'000u);
}

}  // namespace
}  // namespace flowmesh::sidecar
