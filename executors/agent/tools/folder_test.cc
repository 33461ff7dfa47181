#include "executors/agent/tools/folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class FolderTest : public ::testing::Test {
 protected:
  FolderTest() {
    fs::create_directories(dir_ / "inside/sub");
    std::ofstream(dir_ / "secret.txt") << "secret";
    std::ofstream(dir_ / "inside/a.txt") << "one\n";
    folder_.emplace(Folder::Open(dir_ / "inside").value());
  }

  absl::Status ReadError(const std::string& path) {
    const auto text = folder_->ReadText(path, 1000);
    EXPECT_FALSE(text.ok()) << path << ": " << *text;
    return text.status();
  }

  TempDir dir_;
  std::optional<Folder> folder_;
};

TEST_F(FolderTest, FilesAreReadWrittenAndListed) {
  EXPECT_EQ(folder_->ReadText("a.txt", 100).value(), "one\n");
  EXPECT_EQ(folder_->ReadText("./sub//../a.txt", 100).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(folder_->ReadText((dir_ / "inside/a.txt").string(), 100).value(), "one\n");
  ASSERT_TRUE(folder_->Write("x/y/b.txt", "two").ok());
  ASSERT_TRUE(folder_->Write("a.txt", "three").ok());
  EXPECT_EQ(folder_->ReadText("x/y/b.txt", 100).value(), "two");
  EXPECT_EQ(folder_->ReadText("a.txt", 100).value(), "three");
  std::string all;
  const std::vector<Folder::Entry> entries = folder_->List("", 100).value();
  for (const Folder::Entry& entry : entries) {
    all += entry.path + (entry.is_folder ? "/ " : " ");
  }
  EXPECT_EQ(all, "a.txt sub/ x/ x/y/ x/y/b.txt ");
  EXPECT_EQ(folder_->List("x/y", 100)->front().path, "x/y/b.txt");
  EXPECT_EQ(folder_->List("", 2)->size(), 2u);
}

TEST_F(FolderTest, PathsThatLeadOutsideAreRefused) {
  const std::vector<std::string> paths = {"../secret.txt",
                                          "sub/../../secret.txt",
                                          "/etc/passwd",
                                          "..",
                                          (dir_ / "inside-not").string(),
                                          (dir_ / "secret.txt").string()};
  for (const std::string& path : paths) {
    EXPECT_THAT(Message(ReadError(path)), HasSubstr("leads outside")) << path;
    EXPECT_FALSE(folder_->Write(path, "x").ok()) << path;
    EXPECT_FALSE(folder_->List(path, 10).ok()) << path;
  }
  EXPECT_EQ(ReadFile(dir_ / "secret.txt").value(), "secret");
}

TEST_F(FolderTest, LinksAreNotFollowed) {
  fs::create_symlink(dir_ / "secret.txt", dir_ / "inside/link");
  fs::create_directory_symlink(dir_.path(), dir_ / "inside/up");
  EXPECT_THAT(Message(ReadError("link")), HasSubstr("symbolic link"));
  EXPECT_THAT(Message(ReadError("up/secret.txt")), HasSubstr("symbolic link"));
  EXPECT_FALSE(folder_->Write("up/new.txt", "x").ok());
  EXPECT_FALSE(folder_->List("up", 10).ok());
  EXPECT_FALSE(fs::exists(dir_ / "new.txt"));
  // A file takes the place of a link, it is not written through it.
  ASSERT_TRUE(folder_->Write("link", "mine").ok());
  EXPECT_EQ(ReadFile(dir_ / "secret.txt").value(), "secret");
  EXPECT_EQ(folder_->ReadText("link", 10).value(), "mine");
  EXPECT_EQ(folder_->List("", 100)->size(), 4u) << "up is listed, not entered";
}

TEST_F(FolderTest, WhatIsNoTextFileIsRefused) {
  ASSERT_EQ(::mkfifo((dir_ / "inside/pipe").c_str(), 0600), 0);
  std::ofstream(dir_ / "inside/binary") << "\xFF\xFE";
  std::ofstream(dir_ / "inside/large") << std::string(2000, 'x');
  EXPECT_THAT(Message(ReadError("pipe")), HasSubstr("no regular file"));
  EXPECT_THAT(Message(ReadError("binary")), HasSubstr("no text"));
  EXPECT_THAT(Message(ReadError("large")), HasSubstr("larger than 1000 bytes"));
  EXPECT_THAT(Message(ReadError("sub")), HasSubstr("is a folder"));
  EXPECT_THAT(Message(ReadError("")), HasSubstr("is the folder"));
  EXPECT_TRUE(absl::IsNotFound(ReadError("none.txt")));
  EXPECT_FALSE(folder_->Write("sub", "x").ok());
  EXPECT_FALSE(folder_->Write("a.txt/b", "x").ok());
  for (const auto& entry : fs::recursive_directory_iterator(dir_ / "inside")) {
    EXPECT_NE(entry.path().filename().string()[0], '.') << "a failed write left " << entry.path();
  }
}

}  // namespace
}  // namespace flowmesh::agent
