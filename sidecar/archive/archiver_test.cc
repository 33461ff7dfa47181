#include "sidecar/archive/archiver.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/fetch/extract.h"
#include "common/strings.h"
#include "sidecar/archive/test_folder.h"

namespace flowmesh::sidecar {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

ArchiveFile Make(const TestFolder& folder, const ArchiveOptions& options = {}) {
  absl::StatusOr<ArchiveFile> archive = MakeArchive(folder.path(), options, nullptr);
  EXPECT_TRUE(archive.ok()) << archive.status();
  return archive.ok() ? *archive : ArchiveFile();
}

// What GNU tar says is in it, in its order.
std::vector<std::string> Listing(const TestFolder& folder) {
  const auto text = RunTool({"tar", "--quoting-style=literal", "-tzf", folder.archive().string()});
  EXPECT_TRUE(text);
  std::vector<std::string> names = absl::StrSplit(ToAbsl(text.value_or("")), '\n');
  names.pop_back();
  return names;
}

void Fill(const TestFolder& folder) {
  folder.Write("model.safetensors", Noise(1'500'000));
  folder.Write("config.json", R"({"model_type": "llama"})");
  folder.Write("zeros.bin", std::string(2'000'000, '\0'));
  folder.Write("empty", "");
  folder.Write("tokenizer/vocab.txt", "a\nb\n");
  folder.Write("tokenizer/größe 語.txt", "ä");
  folder.Write(absl::StrCat("deep/", std::string(120, 'd'), "/", std::string(200, 'n')), "long");
  folder.Write("run.sh", "#!/bin/sh\n");
  fs::permissions(folder.path() / "run.sh", fs::perms::owner_exec, fs::perm_options::add);
  fs::create_directory(folder.path() / "hollow");
  fs::create_symlink("model.safetensors", folder.path() / "link");
  fs::create_symlink("../config.json", folder.path() / "tokenizer/up");
}

TEST(ArchiverTest, TheArchiveStandsBesideTheFolderWithItsSizeAndDigest) {
  TestFolder folder;
  Fill(folder);
  const ArchiveFile archive = Make(folder);
  EXPECT_EQ(archive.path, folder.archive());
  EXPECT_EQ(archive.bytes, fs::file_size(folder.archive()));
  EXPECT_EQ(archive.sha256, Sha256OfFile(folder.archive()).value());
  EXPECT_THAT(archive.skipped, IsEmpty());
  EXPECT_THAT(folder.Beside(), ElementsAre("final_model", "final_model.tar.gz"));
}

TEST(ArchiverTest, OneTopEntryAndSortedNames) {
  TestFolder folder;
  Fill(folder);
  Make(folder);
  const std::string deep = absl::StrCat("final_model/deep/", std::string(120, 'd'), "/");
  EXPECT_THAT(
      Listing(folder),
      ElementsAre("final_model/", "final_model/config.json", "final_model/deep/", deep,
                  absl::StrCat(deep, std::string(200, 'n')), "final_model/empty",
                  "final_model/hollow/", "final_model/link", "final_model/model.safetensors",
                  "final_model/run.sh", "final_model/tokenizer/",
                  "final_model/tokenizer/größe 語.txt", "final_model/tokenizer/up",
                  "final_model/tokenizer/vocab.txt", "final_model/zeros.bin"));
}

TEST(ArchiverTest, GzipTarAndPythonReadItAtEveryLevel) {
  TestFolder folder;
  Fill(folder);
  for (const int level : {0, 1, 6, 9}) {
    Make(folder, {.level = level, .threads = 3});
    EXPECT_TRUE(RunTool({"gzip", "-t", folder.archive().string()})) << level;
    TempDir out;
    ASSERT_TRUE(RunTool({"tar", "-xzf", folder.archive().string(), "-C", out.path().string()}));
    EXPECT_TRUE(RunTool({"diff", "-r", folder.path().string(), (out / "final_model").string()}));
    EXPECT_EQ(fs::read_symlink(out / "final_model/link"), "model.safetensors");
  }
  if (!RunTool({"python3", "-c", "import tarfile"})) GTEST_SKIP() << "no python3";
  TempDir out;
  EXPECT_TRUE(RunTool({"python3", "-c",
                       "import sys, tarfile\n"
                       "t = tarfile.open(sys.argv[1], 'r:gz')\n"
                       "assert t.getmembers()[0].name == 'final_model', t.getmembers()[0]\n"
                       "t.extractall(sys.argv[2])",
                       folder.archive().string(), out.path().string()}));
  EXPECT_TRUE(RunTool({"diff", "-r", folder.path().string(), (out / "final_model").string()}));
}

TEST(ArchiverTest, WeUnpackItOurselves) {
  TestFolder folder;
  Fill(folder);
  Make(folder);
  TempDir out;
  ASSERT_EQ(Extract(folder.archive(), ArchiveFormat::kTar, out / "x", {.min_free_bytes = 0}, {}),
            absl::OkStatus());
  EXPECT_TRUE(RunTool({"diff", "-r", folder.path().string(), (out / "x/final_model").string()}));
}

TEST(ArchiverTest, TheSameContentGivesTheSameBytes) {
  TestFolder first, second;
  Fill(second);
  Fill(first);
  for (const auto& entry : fs::recursive_directory_iterator(second.path())) {
    if (!entry.is_symlink()) {
      fs::last_write_time(entry.path(), fs::file_time_type::clock::now() - std::chrono::hours(50));
    }
  }
  fs::permissions(second.path() / "config.json", fs::perms::owner_read | fs::perms::owner_write);
  const std::string digest = Make(first).sha256;
  EXPECT_EQ(Make(second, {.threads = 1}).sha256, digest);
  EXPECT_EQ(Make(second, {.threads = 7}).sha256, digest);
  EXPECT_EQ(Make(second).sha256, digest) << "again";
}

TEST(ArchiverTest, AnEmptyFolderIsAnArchiveOfOneEntry) {
  TestFolder folder;
  Make(folder);
  EXPECT_THAT(Listing(folder), ElementsAre("final_model/"));
  EXPECT_TRUE(RunTool({"gzip", "-t", folder.archive().string()}));
}

TEST(ArchiverTest, ATrailingSlashIsNoName) {
  TestFolder folder;
  const auto archive = MakeArchive(folder.path().string() + "/", {}, nullptr);
  ASSERT_TRUE(archive.ok()) << archive.status();
  EXPECT_EQ(archive->path, folder.archive());
}

TEST(ArchiverTest, WhatIsNoFileOrLeadsOutStaysOut) {
  TestFolder folder;
  folder.Write("a/file", "x");
  ASSERT_TRUE(WriteFileAtomically(folder.parent() / "secret", "canary").ok());
  ASSERT_EQ(::mkfifo((folder.path() / "pipe").c_str(), 0600), 0);
  fs::create_symlink("../secret", folder.path() / "out");
  fs::create_symlink("/etc/passwd", folder.path() / "absolute");
  fs::create_symlink("file/../../../secret", folder.path() / "a/roundabout");
  fs::create_symlink("../a/file", folder.path() / "a/inner");
  fs::create_symlink("not/there/yet", folder.path() / "dangling");
  fs::create_symlink("../..", folder.path() / "a/root");
  const ArchiveFile archive = Make(folder);
  EXPECT_THAT(archive.skipped,
              UnorderedElementsAre("final_model/pipe", "final_model/out", "final_model/absolute",
                                   "final_model/a/roundabout", "final_model/a/root"));
  EXPECT_THAT(Listing(folder), ElementsAre("final_model/", "final_model/a/", "final_model/a/file",
                                           "final_model/a/inner", "final_model/dangling"));
}

TEST(ArchiverTest, OwnersAndTimesAreFixedModesAreTwo) {
  TestFolder folder;
  folder.Write("plain", "x");
  folder.Write("program", "x");
  ASSERT_EQ(::chmod((folder.path() / "plain").c_str(), 04606), 0);
  ASSERT_EQ(::chmod((folder.path() / "program").c_str(), 06711), 0);
  Make(folder);
  EXPECT_EQ(RunTool({"env", "TZ=UTC", "tar", "--numeric-owner", "-tvzf", folder.archive().string()})
                .value_or(""),
            "drwxr-xr-x 0/0               0 1980-01-01 00:00 final_model/\n"
            "-rw-r--r-- 0/0               1 1980-01-01 00:00 final_model/plain\n"
            "-rwxr-xr-x 0/0               1 1980-01-01 00:00 final_model/program\n");
}

// --- External programs ---------------------------------------------------------------------------

// A program that leaves a mark when it is called, and then is `program`.
std::string Marking(const TestFolder& folder, const std::string& name, const std::string& program) {
  const fs::path path = folder.parent() / name;
  EXPECT_TRUE(WriteFileAtomically(path, absl::StrCat("#!/bin/sh\necho \"$*\" >'", path.string(),
                                                     ".called'\nexec ", program, "\n"))
                  .ok());
  fs::permissions(path, fs::perms::owner_all);
  return path;
}

std::string Called(const std::string& program) {
  return ReadFile(program + ".called").value_or("never");
}

TEST(ArchiverTest, ExternalProgramsAreUsedWhenNamed) {
  TestFolder folder;
  Fill(folder);
  fs::create_symlink("/etc/passwd", folder.path() / "absolute");
  // gzip stands for pigz, which knows `-p`.
  const std::string tar = Marking(folder, "mytar", "tar \"$@\"");
  const std::string gzip = Marking(folder, "mygzip", "gzip \"$1\" \"$2\"");
  for (const auto& [tar_program, gzip_program] :
       std::vector<std::pair<std::string, std::string>>{{tar, gzip}, {tar, ""}, {"", gzip}}) {
    fs::remove(tar + ".called");
    fs::remove(gzip + ".called");
    const ArchiveFile archive =
        Make(folder,
             {.level = 3, .threads = 2, .tar_program = tar_program, .gzip_program = gzip_program});
    EXPECT_EQ(Called(tar) != "never", !tar_program.empty());
    EXPECT_EQ(Called(gzip), gzip_program.empty() ? "never" : "-c -3 -p 2\n");
    EXPECT_THAT(archive.skipped, ElementsAre("final_model/absolute"));
    EXPECT_EQ(archive.sha256, Sha256OfFile(folder.archive()).value());
    EXPECT_EQ(archive.bytes, fs::file_size(folder.archive()));
    EXPECT_EQ(Listing(folder).size(), 15u);
    TempDir out;
    fs::remove(folder.path() / "absolute");
    ASSERT_TRUE(RunTool({"tar", "-xzf", folder.archive().string(), "-C", out.path().string()}));
    EXPECT_TRUE(RunTool({"diff", "-r", folder.path().string(), (out / "final_model").string()}));
    fs::create_symlink("/etc/passwd", folder.path() / "absolute");
  }
}

TEST(ArchiverTest, WithoutAProgramThatWorksTheArchiveIsMadeHere) {
  TestFolder folder;
  Fill(folder);
  const std::string digest = Make(folder).sha256;
  for (const auto& [tar, gzip] : std::vector<std::pair<std::string, std::string>>{
           {"no-such-tar", ""},
           {"", "/no/such/pigz"},
           {"false", ""},
           {"", "false"},
           {"tar", Marking(folder, "dies", "false")},
           {Marking(folder, "half", "sh -c 'head -c 100000 /dev/zero; exit 3'"), ""},
           {"", Marking(folder, "early", "sh -c 'head -c 1000; exit 0'")}}) {
    EXPECT_EQ(Make(folder, {.tar_program = tar, .gzip_program = gzip}).sha256, digest)
        << tar << " " << gzip;
    EXPECT_FALSE(fs::exists(folder.parent() / ".final_model.tar.gz"));
  }
}

}  // namespace
}  // namespace flowmesh::sidecar
