// What the outside may do to a worker without more than a failed task: disks that take nothing,
// orchestrators that talk rubbish.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/fetch/raw_server.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "tests/conformance/http_get.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

const Json kEcho = {{"taskType", "echo"}};

Json EchoTo(const std::string& url) {
  Json spec = kEcho;
  spec["output"] = {{"destination", {{"type", "http"}, {"url", url}, {"timeoutSec", 0.3}}}};
  return spec;
}

Json EndOf(Line& line, const std::string& id) {
  const auto end = line.events().WaitForTerminal(id);
  EXPECT_TRUE(end) << line.sidecar().Output();
  return end.value_or(Json::object());
}

std::string ErrorOf(Line& line, const std::string& id) {
  const Json end = EndOf(line, id);
  EXPECT_EQ(end["type"], "TASK_FAILED");
  return end["error"].is_string() ? end["error"].get<std::string>() : "";
}

void ExpectRecovery(Line& line) {
  EXPECT_EQ(EndOf(line, line.Dispatch(kEcho))["type"], "TASK_SUCCEEDED");
}

// Any final status below 400 is success, whatever stands below it (PROTOCOL.md 6.2).
TEST(BadInputTest, AnOkWithRubbishBelowItIsAnOk) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.set_content("\xff\xfe<html>{\"ok\":fal", "application/json");
  });
  Line line;
  EXPECT_EQ(EndOf(line, line.Dispatch(EchoTo(server.url("/r"))))["type"], "TASK_SUCCEEDED");
}

TEST(BadInputTest, RubbishInsteadOfHttpIsAFailedDelivery) {
  RawServer server([](const std::string&) { return "200 OK, all is well\n\n{}"; });
  Line line({.sidecar_env = {{"DELIVERY_TIMEOUT_SEC", "0"}}});
  EXPECT_THAT(ErrorOf(line, line.Dispatch(EchoTo(server.url("/r")))),
              HasSubstr("POST " + server.url("/r")));
  ExpectRecovery(line);
}

TEST(BadInputTest, HeadersWithoutAnEndAreAFailedDelivery) {
  RawServer server([](const std::string&) {
    std::string answer = "HTTP/1.1 200 OK\r\n";
    while (answer.size() < (1 << 20)) absl::StrAppend(&answer, "X-More: of the same\r\n");
    return answer;
  });
  Line line({.sidecar_env = {{"DELIVERY_TIMEOUT_SEC", "0"}}});
  EXPECT_THAT(ErrorOf(line, line.Dispatch(EchoTo(server.url("/r")))),
              HasSubstr("headers larger than"));
  ExpectRecovery(line);
}

TEST(BadInputTest, AResultsFolderThatTakesNothingFailsTheTaskWithItsPath) {
  Line line;
  fs::remove_all(line.results());
  ASSERT_TRUE(WriteFileAtomically(line.results(), "a file in the way").ok());
  EXPECT_THAT(ErrorOf(line, line.Dispatch(kEcho)), HasSubstr(line.results().string()));
  // /proc is read-only whoever one is.
  Json elsewhere = kEcho;
  elsewhere["output"] = {{"destination", {{"type", "local"}, {"path", "/proc/flowmesh"}}}};
  EXPECT_THAT(ErrorOf(line, line.Dispatch(elsewhere)), HasSubstr("/proc/flowmesh"));
  fs::remove(line.results());
  ExpectRecovery(line);
}

TEST(BadInputTest, AResultsFolderThatCannotBeMadeEndsTheStart) {
  TempDir dir;
  Program program("flowmesh-sidecar",
                  {{"RESULTS_DIR", "/proc/flowmesh"},
                   {"STATE_DIR", dir / "state"},
                   {"SIDECAR_LISTEN", "unix:" + (dir / "s.sock").string()},
                   {"METRICS_LISTEN", "off"}},
                  dir.path());
  const auto exit = program.process().Wait(absl::Seconds(10));
  ASSERT_TRUE(exit);
  EXPECT_EQ(exit->exit_code, 1);
  EXPECT_THAT(program.Output(),
              AllOf(HasSubstr("flowmesh-sidecar: RESULTS_DIR: "), HasSubstr("/proc/flowmesh")));
}

// As on a full disk: nothing grows any more, neither the journal nor results.
TEST(BadInputTest, AFullDiskRefusesTasksAndTheWorkerLivesOn) {
  Line line;
  ExpectRecovery(line);
  const pid_t sidecar = line.sidecar().process().pid();
  rlimit before{};
  ASSERT_EQ(::prlimit(sidecar, RLIMIT_FSIZE, nullptr, &before), 0);
  const rlimit full{.rlim_cur = 64 << 10, .rlim_max = before.rlim_max};
  ASSERT_EQ(::prlimit(sidecar, RLIMIT_FSIZE, &full, nullptr), 0);
  Json large = kEcho;
  large["data"] = std::string(128 << 10, 'x');
  EXPECT_THAT(ErrorOf(line, line.Dispatch(large)), HasSubstr("journal"));
  EXPECT_FALSE(absl::StrContains(HttpGet(line.metrics_url() + "/metrics").body,
                                 "flowmesh_journal_failures_total 0\n"));
  ASSERT_EQ(::prlimit(sidecar, RLIMIT_FSIZE, &before, nullptr), 0);
  ASSERT_TRUE(line.WaitForStatus("IDLE", "w"));
  ExpectRecovery(line);
  EXPECT_EQ(EndOf(line, line.Dispatch(large))["type"], "TASK_SUCCEEDED");
}

}  // namespace
}  // namespace flowmesh::testing
