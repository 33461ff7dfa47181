#include "executors/launch/output_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "common/strings.h"

namespace flowmesh::executor {
namespace {

using ::testing::ElementsAre;

TEST(OutputLog, KeepsTheLastLinesAndTheUnfinishedOne) {
  OutputLog log({.lines = 2});
  log.Append("one\ntw");
  log.Append("o\r\nthree\nfo");
  EXPECT_THAT(log.LastLines(), ElementsAre("two", "three", "fo"));
}

TEST(OutputLog, LongLinesAreCutInMemory) {
  OutputLog log({.lines = 2, .line_bytes = 4});
  log.Append("abc");
  log.Append("defgh\nxy\n");
  EXPECT_THAT(log.LastLines(), ElementsAre("abcd", "xy"));
}

TEST(OutputLog, LinesAreValidUtf8WhateverWasPrinted) {
  OutputLog log;
  log.Append("a\xff\xe2\x82z\xe2\x82\xac\n");
  EXPECT_THAT(log.LastLines(), ElementsAre("a\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBDz\xE2\x82\xAC"));
}

TEST(OutputLog, WritesToAFileWhileItIsTold) {
  const TempDir dir;
  OutputLog log;
  log.Append("before\n");
  ASSERT_TRUE(log.WriteTo(dir / "rank0.log").ok());
  log.Append("during\n");
  ASSERT_TRUE(log.WriteTo({}).ok());
  log.Append("after\n");
  EXPECT_EQ(ReadFile(dir / "rank0.log").value(), "during\n");
  EXPECT_EQ(log.LastLines().size(), 3u);
}

TEST(OutputLog, TheFileIsBounded) {
  const TempDir dir;
  OutputLog log({.file_bytes = 10});
  ASSERT_TRUE(log.WriteTo(dir / "f").ok());
  for (int i = 0; i < 100; ++i) log.Append("12345678\n");
  EXPECT_EQ(ReadFile(dir / "f").value(), "12345678\n1\n[output beyond the limit is lost]\n");
}

TEST(OutputLog, AFileThatCannotBeWrittenIsAnErrorAndNoMore) {
  OutputLog log;
  EXPECT_TRUE(absl::IsNotFound(log.WriteTo("/nonexistent/f")));
  log.Append("still kept\n");
  EXPECT_THAT(log.LastLines(), ElementsAre("still kept"));
}

}  // namespace
}  // namespace flowmesh::executor
