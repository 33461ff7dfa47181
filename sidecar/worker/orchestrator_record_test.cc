#include "sidecar/worker/orchestrator_record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/fetch/raw_server.h"
#include "common/test_http_server.h"

namespace flowmesh::sidecar {
namespace {

constexpr char kToken[] = "canary-token";

// What a worker `w` makes of an orchestrator that answers every question with this.
class WhyNotWantedTest : public ::testing::Test {
 protected:
  WhyNotWantedTest()
      : server_([this](const httplib::Request&, httplib::Response& reply) {
          reply.status = status_;
          reply.set_content(body_, "application/json");
        }) {}

  std::string Ask(const std::string& body, int status = 200) {
    body_ = body;
    status_ = status;
    return WhyNotWanted(server_.url("/api/v1/tasks"), "t1", "w", server_.url(), kToken).value();
  }

  std::string body_;
  int status_ = 200;
  TestHttpServer server_;
};

TEST_F(WhyNotWantedTest, OnlyAClearAnswerDropsATask) {
  EXPECT_EQ(Ask(R"({"status":"DISPATCHED","assigned_worker":"w"})"), "");
  EXPECT_EQ(server_.requests()[0].path, "/api/v1/tasks/t1");
  EXPECT_EQ(server_.requests()[0].get_header_value("Authorization"), "Bearer canary-token");
  EXPECT_EQ(Ask(R"({"status":"DONE"})"), "the orchestrator's record says DONE");
  EXPECT_EQ(Ask(R"({"status":"FAILED"})"), "the orchestrator's record says FAILED");
  EXPECT_EQ(Ask(R"({"status":"DISPATCHED","assigned_worker":"x"})"),
            "the orchestrator has given it to worker x");
}

TEST_F(WhyNotWantedTest, RubbishDropsNothing) {
  for (const char* body : {"", "\xff\xfe", "<html>DONE</html>", "[]", "\"DONE\"", "{}",
                           R"({"status":7,"assigned_worker":{}})", R"({"status":"DONE")"}) {
    EXPECT_EQ(Ask(body), "") << body;
  }
  EXPECT_EQ(Ask(R"({"status":"DONE"})", 404), "");
  EXPECT_EQ(Ask(R"({"status":"DONE"})", 500), "");
  RawServer rude([](const std::string&) { return "no HTTP at all"; });
  EXPECT_FALSE(WhyNotWanted(rude.url("/api/v1/tasks"), "t1", "w", rude.url(), kToken).ok());
}

TEST_F(WhyNotWantedTest, TheTokenFollowsNoRedirectToAnotherHost) {
  TestHttpServer lure([this](const httplib::Request& request, httplib::Response& reply) {
    reply.set_redirect(server_.url(request.path), 307);
  });
  body_ = R"({"status":"DONE"})";
  EXPECT_NE(WhyNotWanted(lure.url("/api/v1/tasks"), "t1", "w", lure.url(), kToken).value(), "");
  ASSERT_EQ(server_.requests().size(), 1u);
  EXPECT_FALSE(server_.requests()[0].has_header("Authorization"));
}

TEST_F(WhyNotWantedTest, TheTokenGoesToTheOriginOfTheBaseUrlOnly) {
  EXPECT_TRUE(
      WhyNotWanted(server_.url("/api/v1/tasks"), "t1", "w", "http://127.0.0.1:1", kToken).ok());
  EXPECT_FALSE(server_.requests().at(0).has_header("Authorization"));
}

TEST(TasksUrlTest, ComesFromTheBaseUrlOrFromADestinationOfItsForm) {
  const auto to = [](const char* url) {
    return Json({{"spec", {{"output", {{"destination", {{"url", url}}}}}}}});
  };
  EXPECT_EQ(TasksUrl(to("http://o/api/v1/results"), "http://base"), "http://base/api/v1/tasks");
  EXPECT_EQ(TasksUrl(to("http://o/x/api/v1/results/"), ""), "http://o/x/api/v1/tasks");
  EXPECT_EQ(TasksUrl(to("http://o/results"), ""), "");
  EXPECT_EQ(TasksUrl(to("o/api/v1/results"), ""), "");
  EXPECT_EQ(TasksUrl(Json(7), ""), "");
}

}  // namespace
}  // namespace flowmesh::sidecar
