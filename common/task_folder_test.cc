#include "common/task_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cstring>

#include "common/files.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;

constexpr char kNow[] = "2025-11-03T09:01:04.000000+00:00";
// SHA-256 of the empty text and of "abc" (FIPS 180-2).
constexpr char kOfNothing[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr char kOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

class ManifestTest : public ::testing::Test {
 protected:
  ManifestTest() {
    for (const char* name : {kLogsDir, kArtifactsDir}) {
      EXPECT_TRUE(MakeDirectories(dir_ / name).ok());
    }
    Write("../secret", "abc");
  }

  void Write(const std::string& name, std::string_view content) {
    ASSERT_TRUE(MakeDirectories((dir_ / name).parent_path()).ok());
    ASSERT_TRUE(WriteFileAtomically(dir_ / name, content).ok());
  }

  Json Make(const std::vector<std::string>& artifacts = {}, const KnownFiles& known = {}) {
    return MakeManifest(dir_, "T", artifacts, ParseTimestamp(kNow), known);
  }

  // The entry of a name; null when there is none.
  Json Entry(const std::string& name, const std::vector<std::string>& artifacts = {}) {
    const Json manifest = Make(artifacts);
    for (const Json& entry : manifest["entries"]) {
      if (entry["name"] == name) return entry;
    }
    return nullptr;
  }

  TempDir temp_;
  const fs::path dir_ = temp_ / "T";
};

TEST(ArtifactNameTest, IsThatInTheFolder) {
  for (const char* declared : {"model", " ./model/ ", "././model//", "model/"}) {
    EXPECT_EQ(ArtifactName(declared), "model") << declared;
  }
  for (const char* none : {"", " ", ".", "./"}) EXPECT_EQ(ArtifactName(none), "") << none;
}

TEST_F(ManifestTest, TheExampleOfTheProtocol) {
  const std::string responses(412, 'x');
  Write("responses.json", responses);
  const Json expected = ParseJson(R"(
    {"task_id":"T","generated_at":"2025-11-03T09:01:04.000000+00:00","entries":[
     {"name":"artifacts","path":"artifacts","type":"artifact","required":true,"status":"present",
      "updated_at":"2025-11-03T09:01:04.000000+00:00","size":0,"file_count":0},
     {"name":"final_model","path":"final_model","type":"directory","required":true,
      "status":"missing"},
     {"name":"logs","path":"logs","type":"logs","required":true,"status":"present",
      "updated_at":"2025-11-03T09:01:04.000000+00:00","size":0,"file_count":0},
     {"name":"responses.json","path":"responses.json","type":"result","required":true,
      "status":"present","updated_at":"2025-11-03T09:01:04.000000+00:00","size":412,"sha256":")" +
                                  Sha256Hex(responses) + "\"}]}")
                            .value();
  EXPECT_EQ(DumpJson(Make({"final_model"})), DumpJson(expected));
}

TEST_F(ManifestTest, RequiredEntriesComeFirstAndBothGroupsAreSorted) {
  for (const char* name : {"zz", "b.txt", "é", "Z", ".hidden"}) Write(name, "");
  ASSERT_TRUE(WriteResultFiles(dir_, "T", {}, Clock::Real()).ok());  // does not list itself
  std::vector<std::string> names;
  std::vector<bool> required;
  const Json manifest = Make({"zz", "a"});
  for (const Json& entry : manifest["entries"]) {
    names.push_back(entry["name"]);
    required.push_back(entry["required"]);
  }
  EXPECT_THAT(names, ElementsAre("a", "artifacts", "logs", "responses.json", "zz", ".hidden", "Z",
                                 "b.txt", "é"));
  EXPECT_THAT(required, ElementsAre(true, true, true, true, true, false, false, false, false));
}

TEST_F(ManifestTest, TypesFollowTheName) {
  const std::vector<std::pair<std::string, std::string>> types = {
      {"logs", "logs"},          {"logs/run.txt", "logs"},    {"logs2", "directory"},
      {"artifacts", "artifact"}, {"artifacts/x", "artifact"}, {"a.gz", "artifact"},
      {"sub.d", "artifact"},     {"x/y.bin", "artifact"},     {"x.d/y", "directory"},
      {".hid", "directory"},     {"a.", "directory"},         {"plain", "directory"},
      {".hid.gz", "artifact"},   {"responses.json", "result"}};
  for (const auto& [name, type] : types) EXPECT_EQ(Entry(name, {name})["type"], type) << name;
}

TEST_F(ManifestTest, FilesHaveADigestAndFoldersACount) {
  Write("one.txt", "abc");
  Write("empty.txt", "");
  Write("model/a", "12345");
  Write("model/deep/er/b", "678");
  const Json file = Entry("one.txt");
  EXPECT_EQ(file["status"], "present");
  EXPECT_EQ(file["size"], 3);
  EXPECT_EQ(file["sha256"], kOfAbc);
  EXPECT_EQ(file["updated_at"], kNow);
  EXPECT_EQ(Entry("empty.txt")["sha256"], kOfNothing);
  const Json folder = Entry("model");
  EXPECT_EQ(folder["size"], 8);
  EXPECT_EQ(folder["file_count"], 2);
  EXPECT_FALSE(folder.contains("sha256"));
  EXPECT_EQ(Entry("model/deep/er/b", {"model/deep/er/b"})["size"], 3);
}

TEST_F(ManifestTest, AKnownDigestIsTakenAsItIs) {
  const Json manifest = Make({}, {{"responses.json", {.size = 7, .sha256 = "digest"}}});
  const Json& entry = manifest["entries"][2];
  EXPECT_EQ(entry["name"], "responses.json");
  EXPECT_EQ(entry["status"], "present");
  EXPECT_EQ(entry["size"], 7);
  EXPECT_EQ(entry["sha256"], "digest");
}

TEST_F(ManifestTest, WhatLeavesTheDirectoryIsMissing) {
  fs::create_symlink("../secret", dir_ / "out_link");
  fs::create_symlink(temp_.path(), dir_ / "out_dir");
  Write("model/weights", "abc");
  for (const std::string& name :
       {std::string("../secret"), (temp_ / "secret").string(), std::string("x/../../secret"),
        std::string("logs/.."), std::string("out_link"), std::string("out_dir"),
        std::string("out_dir/secret"), std::string("nothing"), std::string("model/weights/x")}) {
    const Json entry = Entry(name, {name});
    EXPECT_EQ(entry["status"], "missing") << name;
    EXPECT_TRUE(entry["required"]) << name;
    for (const char* key : {"size", "sha256", "file_count", "updated_at"}) {
      EXPECT_FALSE(entry.contains(key)) << name << " has " << key;
    }
  }
}

TEST_F(ManifestTest, LinksThatStayInsideAreFollowed) {
  Write("model/weights", "abc");
  fs::create_symlink("model/weights", dir_ / "latest");
  fs::create_symlink("model", dir_ / "current");
  EXPECT_EQ(Entry("latest")["sha256"], kOfAbc);
  EXPECT_EQ(Entry("current")["file_count"], 1);
  EXPECT_EQ(Entry("current/weights", {"current/weights"})["size"], 3);
  // In a folder, links are not counted, wherever they lead.
  fs::create_symlink("weights", dir_ / "model/again");
  fs::create_symlink(temp_.path(), dir_ / "model/out");
  EXPECT_EQ(Entry("model")["file_count"], 1);
  EXPECT_EQ(Entry("model")["size"], 3);
}

TEST_F(ManifestTest, PipesSocketsAndBrokenLinksAreNeverOpened) {
  ASSERT_EQ(::mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  sockaddr_un address{.sun_family = AF_UNIX, .sun_path = {}};
  std::strncpy(address.sun_path, (dir_ / "socket").c_str(), sizeof(address.sun_path) - 1);
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  fs::create_symlink("nowhere", dir_ / "broken");
  fs::create_symlink("loop", dir_ / "loop");
  for (const char* name : {"pipe", "socket", "broken", "loop"}) {
    EXPECT_EQ(Entry(name)["status"], "missing") << name;
  }
}

TEST_F(ManifestTest, NamesThatAreNoUtf8DoNotBreakTheFile) {
  Write("bad\xff.txt", "abc");
  ASSERT_TRUE(WriteResultFiles(dir_, "T", {}, FakeClock(ParseTimestamp(kNow))).ok());
  const Json manifest = ParseJson(ReadFile(dir_ / kManifestFile).value()).value();
  EXPECT_EQ(manifest["generated_at"], kNow);
  EXPECT_EQ(manifest["entries"].back()["name"], "bad\xef\xbf\xbd.txt");
  EXPECT_EQ(manifest["entries"].back()["sha256"], kOfAbc);
}

TEST_F(ManifestTest, ADirectoryThatIsGoneIsAnErrorOfTheWriteOnly) {
  fs::remove_all(dir_);
  EXPECT_EQ(Make()["entries"].size(), 3u);
  EXPECT_TRUE(absl::IsNotFound(WriteResultFiles(dir_, "T", {}, Clock::Real())));
}

}  // namespace
}  // namespace flowmesh
