#include "common/files.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<std::string> NamesIn(const fs::path& dir) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

// Folders in the order in which they were synced, with the names that were in them then.
std::vector<std::string> synced;

void NoteSynced(int fd) {
  std::error_code error;
  const fs::path folder = fs::read_symlink(absl::StrCat("/proc/self/fd/", fd), error);
  if (error || !fs::is_directory(folder, error)) return;
  std::vector<std::string> names = NamesIn(folder);
  std::sort(names.begin(), names.end());
  synced.push_back(absl::StrCat(folder.string(), ": ", absl::StrJoin(names, " ")));
}

}  // namespace
}  // namespace flowmesh

// In place of the system's, for this program.
extern "C" int fsync(int fd) {
  flowmesh::NoteSynced(fd);
  return static_cast<int>(::syscall(SYS_fsync, fd));
}

namespace flowmesh {
namespace {

TEST(FilesTest, WhatIsWrittenIsRead) {
  TempDir temp;
  std::string content(1 << 20, '\0');
  for (size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 31 + i / 256);
  ASSERT_TRUE(WriteFileAtomically(temp / "f", content).ok());
  EXPECT_TRUE(ReadFile(temp / "f").value() == content);
  EXPECT_EQ(Sha256OfFile(temp / "f").value(), Sha256Hex(content));
  ASSERT_TRUE(WriteFileAtomically(temp / "f", "").ok());
  EXPECT_EQ(ReadFile(temp / "f").value(), "");
  EXPECT_EQ(Sha256OfFile(temp / "f").value(), Sha256Hex(""));
  EXPECT_THAT(NamesIn(temp.path()), ElementsAre("f"));
}

TEST(FilesTest, AFileThatCannotBeReadIsNamed) {
  TempDir temp;
  const absl::Status missing = ReadFile(temp / "none").status();
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_EQ(Message(missing),
            "cannot open " + (temp / "none").string() + ": No such file or directory");
  EXPECT_TRUE(absl::IsNotFound(Sha256OfFile(temp / "none").status()));
  EXPECT_EQ(Message(ReadFile(temp.path()).status()),
            "cannot read " + temp.path().string() + ": a folder");
  EXPECT_THAT(Message(Sha256OfFile(temp.path()).status()), HasSubstr("cannot read"));
}

TEST(FilesTest, AFileLargerThanTheBoundIsRefused) {
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "f", std::string(100, 'x')).ok());
  EXPECT_TRUE(ReadFile(temp / "f", 100).ok());
  const absl::Status status = ReadFile(temp / "f", 99).status();
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(Message(status), (temp / "f").string() + ": larger than 99 bytes");
  EXPECT_TRUE(absl::IsResourceExhausted(ReadFile("/dev/zero", 1 << 20).status()));
}

TEST(FilesTest, AnAtomicWriteReplacesTheNameAndNotTheFile) {
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "f", "old").ok());
  const UniqueFd reader(::open((temp / "f").c_str(), O_RDONLY | O_CLOEXEC));
  ASSERT_TRUE(WriteFileAtomically(temp / "f", "new").ok());
  char old[4] = "";
  EXPECT_EQ(::read(reader.get(), old, 3), 3);
  EXPECT_STREQ(old, "old");  // whoever had it open keeps it whole
  EXPECT_EQ(ReadFile(temp / "f").value(), "new");
}

TEST(FilesTest, TheNamesOfWhatIsWrittenAreOnDiskToo) {
  const TempDir dir;
  const std::filesystem::path a = dir / "a", b = dir / "b";
  ASSERT_TRUE(MakeDirectories(a).ok() && MakeDirectories(b).ok());
  synced.clear();
  ASSERT_TRUE(WriteFilesAtomically({{a / "1", "x"}, {a / "2", "y"}, {b / "3", "z"}}).ok());
  EXPECT_THAT(synced, ElementsAre(absl::StrCat(a.string(), ": 1 2"), b.string() + ": 3"));
  synced.clear();
  DotFile file = DotFile::Create(b / "4").value();
  ASSERT_TRUE(file.Commit().ok());
  EXPECT_THAT(synced, ElementsAre(b.string() + ": 3 4"));
}

TEST(FilesTest, AFailedWriteLeavesNothingBehind) {
  TempDir temp;
  ASSERT_TRUE(MakeDirectories(temp / "taken/x").ok());
  const absl::Status status = WriteFileAtomically(temp / "taken", "text");
  EXPECT_THAT(Message(status), HasSubstr("cannot rename to " + (temp / "taken").string()));
  EXPECT_THAT(NamesIn(temp.path()), ElementsAre("taken"));
  EXPECT_TRUE(absl::IsNotFound(WriteFileAtomically(temp / "none/f", "text")));
  ASSERT_TRUE(WriteFileAtomically(temp / "taken/x/f", "text").ok());
  EXPECT_TRUE(absl::IsNotFound(WriteFileAtomically(temp / "taken/x/f/g", "text")));
}

TEST(FilesTest, AppendGrowsAFile) {
  TempDir temp;
  ASSERT_TRUE(AppendFile(temp / "log", "one\n").ok());
  ASSERT_TRUE(AppendFile(temp / "log", "two\n").ok());
  EXPECT_EQ(ReadFile(temp / "log").value(), "one\ntwo\n");
  EXPECT_FALSE(AppendFile(temp.path(), "text").ok());
}

TEST(FilesTest, FoldersAreMadeWithTheirParents) {
  TempDir temp;
  ASSERT_TRUE(MakeDirectories(temp / "a/b/c").ok());
  ASSERT_TRUE(MakeDirectories(temp / "a/b/c").ok());
  EXPECT_TRUE(fs::is_directory(temp / "a/b/c"));
  ASSERT_TRUE(WriteFileAtomically(temp / "file", "").ok());
  EXPECT_THAT(Message(MakeDirectories(temp / "file/below")),
              HasSubstr("cannot create folder " + (temp / "file/below").string()));
}

TEST(FilesTest, ATempDirGoesWithEverythingInIt) {
  fs::path first;
  {
    TempDir temp, other;
    first = temp.path();
    EXPECT_NE(temp.path(), other.path());
    EXPECT_THAT(NamesIn(temp.path()), IsEmpty());
    struct stat info;
    ASSERT_EQ(::stat(first.c_str(), &info), 0);
    EXPECT_EQ(info.st_mode & 077, 0u) << "others may not look into it";
    ASSERT_TRUE(MakeDirectories(temp / "a/b").ok());
    ASSERT_TRUE(WriteFileAtomically(temp / "a/b/f", "x").ok());
  }
  EXPECT_FALSE(fs::exists(first));
}

TEST(FilesTest, ADescriptorHasOneOwner) {
  const auto is_open = [](int fd) { return ::fcntl(fd, F_GETFD) >= 0; };
  UniqueFd first(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  const int number = first.get();
  ASSERT_TRUE(first.valid());
  UniqueFd second(std::move(first));
  EXPECT_FALSE(first.valid());  // NOLINT(bugprone-use-after-move): what it is to be after one
  EXPECT_EQ(second.get(), number);
  UniqueFd third;
  EXPECT_FALSE(third.valid());
  third = std::move(second);
  EXPECT_TRUE(is_open(number));
  third = UniqueFd(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
  EXPECT_FALSE(is_open(number)) << "what is assigned to closes what it had";
  const int released = third.Release();
  third.Reset();
  EXPECT_TRUE(is_open(released));
  { const UniqueFd last(released); }
  EXPECT_FALSE(is_open(released));
}

TEST(FilesTest, SystemErrorsHaveTheirCodes) {
  for (const auto& [error, code] :
       std::vector<std::pair<int, absl::StatusCode>>{{ENOENT, absl::StatusCode::kNotFound},
                                                     {ENOTDIR, absl::StatusCode::kNotFound},
                                                     {EACCES, absl::StatusCode::kPermissionDenied},
                                                     {EROFS, absl::StatusCode::kPermissionDenied},
                                                     {ENOSPC, absl::StatusCode::kResourceExhausted},
                                                     {EMFILE, absl::StatusCode::kResourceExhausted},
                                                     {EIO, absl::StatusCode::kInternal}}) {
    errno = error;
    EXPECT_EQ(ErrnoError("cannot do", "/x").code(), code) << error;
  }
  errno = EIO;
  EXPECT_EQ(Message(ErrnoError("cannot do", "/x")), "cannot do /x: Input/output error");
}

}  // namespace
}  // namespace flowmesh
