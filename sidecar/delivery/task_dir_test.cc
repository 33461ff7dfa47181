#include "sidecar/delivery/task_dir.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/files.h"

namespace flowmesh::sidecar {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

std::string Resolve(const std::string& path, const std::string& task_id,
                    OutputSpec::Destination destination = OutputSpec::Destination::kLocal) {
  OutputSpec output;
  output.destination = destination;
  output.path = path;
  absl::StatusOr<fs::path> dir = ResolveTaskDir(output, task_id, "/results");
  return dir.ok() ? dir->string() : Message(dir.status());
}

std::vector<std::string> NamesIn(const fs::path& dir) {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(dir)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(TaskDirTest, TheIdIsAppendedUnlessItIsTheLastComponent) {
  EXPECT_EQ(Resolve("", "T"), "/results/T");
  EXPECT_EQ(Resolve("./", "T"), "/results/T");
  EXPECT_EQ(Resolve("out", "T"), "/results/out/T");
  EXPECT_EQ(Resolve("out/", "T"), "/results/out/T");
  EXPECT_EQ(Resolve("out/T", "T"), "/results/out/T");
  EXPECT_EQ(Resolve("out/T/", "T"), "/results/out/T");
  EXPECT_EQ(Resolve("out/../T", "T"), "/results/T");
  EXPECT_EQ(Resolve("T/out", "T"), "/results/T/out/T");
  EXPECT_EQ(Resolve("/srv/data", "T"), "/srv/data/T");
  EXPECT_EQ(Resolve("/", "T"), "/T");
}

TEST(TaskDirTest, OnlyALocalDestinationHasAPath) {
  EXPECT_EQ(Resolve("out", "T", OutputSpec::Destination::kHttp), "/results/T");
  EXPECT_EQ(Resolve("out", "T", OutputSpec::Destination::kUnknown), "/results/T");
}

TEST(TaskDirTest, AnIdThatIsNoFileNameIsRefused) {
  for (const char* id : {"", ".", "..", "a/b", "/etc", "ü", "a b"}) {
    EXPECT_EQ(Resolve("", id),
              std::string("task_id: expected a plain file name, got \"") + id + "\"");
  }
}

TEST(TaskDirTest, MakesTheFoldersAndTheirParents) {
  TempDir temp;
  ASSERT_TRUE(PrepareTaskDir(temp / "a/b/T").ok());
  EXPECT_THAT(NamesIn(temp / "a/b/T"), UnorderedElementsAre("logs", "artifacts"));
}

TEST(TaskDirTest, RemovesTheResultsOfAnEarlierAttemptAndKeepsTheRest) {
  TempDir temp;
  const fs::path dir = temp / "T";
  ASSERT_TRUE(PrepareTaskDir(dir).ok());
  for (const char* name : {"responses.json", "manifest.json", ".responses.json.0a1b2c3d",
                           ".manifest.json.ffff0000", "responses.json.txt", "logs/task.log"}) {
    ASSERT_TRUE(WriteFileAtomically(dir / name, "old").ok());
  }
  ASSERT_TRUE(PrepareTaskDir(dir).ok());
  EXPECT_THAT(NamesIn(dir), UnorderedElementsAre("logs", "artifacts", "responses.json.txt"));
  EXPECT_EQ(ReadFile(dir / "logs/task.log").value(), "old");
}

TEST(TaskDirTest, AnythingInTheWayIsNamed) {
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "T", "a file").ok());
  EXPECT_THAT(
      Message(PrepareTaskDir(temp / "T")),
      AllOf(HasSubstr((temp / "T").string()), HasSubstr("a file of that name is in the way")));
  EXPECT_THAT(Message(PrepareTaskDir(temp / "T/below")),
              HasSubstr("cannot create folder " + (temp / "T").string()));
  ASSERT_TRUE(MakeDirectories(temp / "U").ok());
  ASSERT_TRUE(WriteFileAtomically(temp / "U/logs", "a file").ok());
  EXPECT_THAT(Message(PrepareTaskDir(temp / "U")), HasSubstr((temp / "U/logs").string()));
  // A folder where a file belongs cannot be removed as one.
  ASSERT_TRUE(MakeDirectories(temp / "V/responses.json").ok());
  EXPECT_THAT(Message(PrepareTaskDir(temp / "V")),
              HasSubstr("cannot remove " + (temp / "V/responses.json").string()));
}

}  // namespace
}  // namespace flowmesh::sidecar
