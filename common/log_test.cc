#include "common/log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>
#include <string>
#include <vector>

#include "common/files.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::SizeIs;

constexpr uint64_t kRotateBytes = 5u << 20;

// The log of the process in a folder of its own, with stderr in a file beside it; both are as they
// were when the test is over.
class LogTest : public ::testing::Test {
 protected:
  LogTest() : stderr_(::dup(STDERR_FILENO)) {
    const UniqueFd file(::open((temp_ / "stderr").c_str(), O_CREAT | O_WRONLY | O_APPEND, 0600));
    ::dup2(file.get(), STDERR_FILENO);
  }
  ~LogTest() override {
    ::dup2(stderr_.get(), STDERR_FILENO);
    StartLog(LogLevel::kInfo);
  }

  std::vector<std::string> LinesOf(const std::string& name) {
    spdlog::default_logger()->flush();
    return SplitTrimmed(ReadFile(temp_ / name).value_or(""), '\n');
  }

  TempDir temp_;
  UniqueFd stderr_;
};

TEST_F(LogTest, AnEntryIsTimeLevelAndMessageOnStderrAndInTheFile) {
  StartLog(LogLevel::kDebug, temp_ / "worker.log");
  LogDebug("one");
  LogInfo("worker {} registered", "w");
  LogWarning("three");
  LogError("four");
  const std::vector<std::string> lines = LinesOf("worker.log");
  const std::string time = "[0-9-]{10} [0-9:]{8}\\.[0-9]{3}";
  EXPECT_THAT(lines, ElementsAre(MatchesRegex(time + " \\| DEBUG \\| one"),
                                 MatchesRegex(time + " \\| INFO \\| worker w registered"),
                                 MatchesRegex(time + " \\| WARNING \\| three"),
                                 MatchesRegex(time + " \\| ERROR \\| four")));
  EXPECT_EQ(LinesOf("stderr"), lines);
}

TEST_F(LogTest, WhatIsBelowTheLevelIsLeftOut) {
  StartLog(LogLevel::kWarning, temp_ / "worker.log");
  LogInfo("quiet");
  LogWarning("loud");
  EXPECT_THAT(LinesOf("worker.log"), ElementsAre(EndsWith("| WARNING | loud")));
}

// Errors hold texts of servers and of users.
TEST_F(LogTest, AMessageCannotMakeAnEntryOfItsOwn) {
  StartLog(LogLevel::kInfo, temp_ / "worker.log");
  LogInfo("task {} failed", "a\n2026-01-01 00:00:00.000 | INFO | all is well\x1b[31m\x7f ü");
  EXPECT_THAT(LinesOf("worker.log"),
              ElementsAre(EndsWith(
                  R"(task a\n2026-01-01 00:00:00.000 | INFO | all is well\x1b[31m\x7f ü failed)")));
}

TEST_F(LogTest, EachStartBeginsANewFileAndKeepsTheLast) {
  StartLog(LogLevel::kInfo, temp_ / "worker.log");
  LogInfo("first life");
  EXPECT_THAT(LinesOf("worker.log"), SizeIs(1));  // on disk, as at the end of a process
  StartLog(LogLevel::kInfo, temp_ / "worker.log");
  LogInfo("second life");
  EXPECT_THAT(LinesOf("worker.log"), ElementsAre(EndsWith("second life")));
  EXPECT_THAT(LinesOf("worker.1.log"), ElementsAre(EndsWith("first life")));
}

TEST_F(LogTest, RotatesAtFiveMebibytesAndKeepsFive) {
  StartLog(LogLevel::kInfo, temp_ / "worker.log");
  const std::string filler(64 << 10, 'x');
  const uint64_t entries = 8 * kRotateBytes / filler.size();
  for (uint64_t i = 0; i < entries; ++i) LogInfo("{} {}", filler, i);
  EXPECT_THAT(LinesOf("worker.log").back(), EndsWith(" " + std::to_string(entries - 1)));
  std::set<std::string> names;
  for (const fs::directory_entry& file : fs::directory_iterator(temp_.path())) {
    if (file.path().filename() == "stderr") continue;
    names.insert(file.path().filename());
    EXPECT_LE(file.file_size(), kRotateBytes) << file.path();
  }
  EXPECT_THAT(names, ElementsAre("worker.1.log", "worker.2.log", "worker.3.log", "worker.4.log",
                                 "worker.5.log", "worker.log"));
}

TEST_F(LogTest, AFileThatCannotBeWrittenIsAWarningAndStderrGoesOn) {
  ASSERT_TRUE(WriteFileAtomically(temp_ / "in the way", "").ok());
  StartLog(LogLevel::kInfo, temp_ / "in the way" / "worker.log");
  LogInfo("still here");
  EXPECT_THAT(LinesOf("stderr"), ElementsAre(AllOf(HasSubstr("| WARNING | log file not used: "),
                                                   HasSubstr("in the way/worker.log")),
                                             EndsWith("| INFO | still here")));
}

TEST(ParseLogLevelTest, TakesTheNamesOfTheContractInAnyCase) {
  EXPECT_EQ(ParseLogLevel("debug"), LogLevel::kDebug);
  EXPECT_EQ(ParseLogLevel(" Info "), LogLevel::kInfo);
  EXPECT_EQ(ParseLogLevel("WARN"), LogLevel::kWarning);
  EXPECT_EQ(ParseLogLevel("WARNING"), LogLevel::kWarning);
  EXPECT_EQ(ParseLogLevel("ERROR"), LogLevel::kError);
  EXPECT_EQ(ParseLogLevel("FATAL"), LogLevel::kCritical);
  EXPECT_EQ(ParseLogLevel("CRITICAL"), LogLevel::kCritical);
  EXPECT_EQ(ParseLogLevel("loud"), std::nullopt);
  EXPECT_EQ(ParseLogLevel(""), std::nullopt);
}

}  // namespace
}  // namespace flowmesh
