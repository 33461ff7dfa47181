#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "common/test_http_server.h"
#include "executors/mcp/client.h"

namespace flowmesh::mcp {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// Answers `initialize` and notifications, and leaves calls to `on_call`.
TestHttpServer::Handler Server(
    std::function<void(const Json& message, const httplib::Request&, httplib::Response&)> on_call) {
  return [on_call](const httplib::Request& request, httplib::Response& reply) {
    const Json message = ParseJson(request.body).value_or(Json::object());
    const std::string method = message.value("method", "");
    if (method == "initialize") {
      reply.set_header("Mcp-Session-Id", "session-1");
      reply.set_content(DumpJson({{"jsonrpc", "2.0"},
                                  {"id", message["id"]},
                                  {"result", {{"protocolVersion", "2025-03-26"}}}}),
                        "application/json");
    } else if (method == "tools/call") {
      on_call(message, request, reply);
    } else {
      reply.status = 202;
    }
  };
}

Json Answer(const Json& id, const std::string& text) {
  return {{"jsonrpc", "2.0"},
          {"id", id},
          {"result", {{"content", {{{"type", "text"}, {"text", text}}}}}}};
}

ServerSettings At(const TestHttpServer& server) {
  ServerSettings settings;
  settings.name = "far";
  settings.url = server.url("/mcp");
  settings.headers = {{"Authorization", "Bearer canary-4711"}};
  settings.timeout = absl::Seconds(20);
  return settings;
}

std::string Call(Client& client, const CallLimits& limits = {}) {
  const auto result = client.CallTool("t", Json::object(), limits);
  return result.ok() ? result->text : absl::StrCat("error: ", Message(result.status()));
}

TEST(HttpConnectionTest, SessionVersionAndHeadersGoWithEveryMessage) {
  TestHttpServer server(Server([](const Json& message, const auto&, httplib::Response& reply) {
    reply.set_content(DumpJson(Answer(message["id"], "plain")), "application/json");
  }));
  {
    Client client(At(server));
    EXPECT_EQ(Call(client), "plain");
  }
  const auto requests = server.requests();
  ASSERT_EQ(requests.size(), 4u);  // initialize, initialized, tools/call, DELETE
  EXPECT_FALSE(requests[0].has_header("Mcp-Session-Id"));
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_EQ(requests[i].get_header_value("Mcp-Session-Id"), "session-1");
    EXPECT_EQ(requests[i].get_header_value("MCP-Protocol-Version"), "2025-03-26");
    EXPECT_EQ(requests[i].get_header_value("Authorization"), "Bearer canary-4711");
  }
  EXPECT_EQ(requests[3].method, "DELETE");
}

TEST(HttpConnectionTest, AStreamWithNotificationsAndRequestsBeforeTheAnswer) {
  TestHttpServer server(Server([](const Json& message, const auto&, httplib::Response& reply) {
    const Json note = {{"jsonrpc", "2.0"}, {"method", "notifications/message"}};
    const Json ping = {{"jsonrpc", "2.0"}, {"id", "p"}, {"method", "ping"}};
    reply.set_content(
        absl::StrCat("event: message\ndata: ", DumpJson(note), "\n\ndata: ", DumpJson(ping),
                     "\n\ndata: ", DumpJson(Answer(message["id"], "streamed")), "\n\n"),
        "text/event-stream");
  }));
  Client client(At(server));
  EXPECT_EQ(Call(client), "streamed");
  bool is_answered = false;
  for (const auto& request : server.requests()) {
    is_answered |= request.body.find(R"("id":"p","result":{})") != std::string::npos;
  }
  EXPECT_TRUE(is_answered);
}

TEST(HttpConnectionTest, ServersAskABoundedNumberOfTimes) {
  const Json ping = {{"jsonrpc", "2.0"}, {"id", "p"}, {"method", "ping"}};
  std::string stream;
  for (int i = 0; i < 200; ++i) absl::StrAppend(&stream, "data: ", DumpJson(ping), "\n\n");
  std::atomic<int> answers = 0;
  TestHttpServer server([&](const httplib::Request& request, httplib::Response& reply) {
    if (request.body.find(R"("id":"p")") != std::string::npos) {
      // Asks again in what it says to the answer.
      ++answers;
      reply.set_content(stream, "text/event-stream");
      return;
    }
    Server([&](const Json& message, const auto&, httplib::Response& call) {
      call.set_content(
          absl::StrCat(stream, "data: ", DumpJson(Answer(message["id"], "late")), "\n\n"),
          "text/event-stream");
    })(request, reply);
  });
  Client client(At(server));
  EXPECT_THAT(Call(client), HasSubstr("the server asks more than 100 times before it answers"));
  EXPECT_EQ(answers, 100);
  // Each is a look at the caller's limits.
  answers = 0;
  EXPECT_THAT(Call(client, {.is_stopped = [&] { return answers >= 3; }}),
              HasSubstr("error: far: "));
  EXPECT_EQ(answers, 3);
}

TEST(HttpConnectionTest, AnUnknownVersionOfTheProtocolIsRefused) {
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    const Json message = ParseJson(request.body).value();
    reply.set_content(DumpJson({{"jsonrpc", "2.0"},
                                {"id", message["id"]},
                                {"result", {{"protocolVersion", "1999-01-01"}}}}),
                      "application/json");
  });
  Client client(At(server));
  EXPECT_EQ(Call(client),
            "error: far: initialize: the server speaks version '1999-01-01' of the protocol; known "
            "are: 2024-11-05, 2025-03-26, 2025-06-18, 2025-11-25");
}

TEST(HttpConnectionTest, AForgottenSessionIsMadeAnew) {
  std::atomic<int> calls = 0;
  TestHttpServer server(
      Server([&calls](const Json& message, const auto&, httplib::Response& reply) {
        if (++calls == 1) {
          reply.status = 404;
        } else if (calls == 3) {
          reply.status = 400;
          reply.set_content("Bad Request: No valid Session ID provided", "text/plain");
        } else {
          reply.set_content(DumpJson(Answer(message["id"], "again")), "application/json");
        }
      }));
  Client client(At(server));
  EXPECT_EQ(Call(client), "again");
  EXPECT_EQ(Call(client), "again");
  EXPECT_EQ(calls, 4);
}

TEST(HttpConnectionTest, WrongAnswersAreErrorsWithoutSecrets) {
  std::string body, type = "application/json";
  int status = 200;
  TestHttpServer server(Server([&](const Json&, const auto&, httplib::Response& reply) {
    reply.status = status;
    reply.set_content(body, type.c_str());
  }));
  Client client(At(server));
  const auto expect = [&](const std::string& what) {
    const std::string error = Call(client);
    EXPECT_THAT(error, HasSubstr(absl::StrCat("error: far: ", what)));
    EXPECT_THAT(error, Not(HasSubstr("canary")));
  };
  body = "canary-4711";
  expect("the server answers with what is no JSON");
  body = R"({"jsonrpc": "2.0", "id": 999, "result": {}})";
  expect("the server answers something else");
  body = std::string(9 << 20, 'x');
  expect("the server answers with more than");
  type = "text/event-stream";
  body = "data: {\"half\":\n\n";
  expect("the server streams what is no JSON");
  body = ": nothing\n\n";
  expect("the server's stream ends without an answer");
  status = 401;
  expect("the server answers with status 401");
  type = "application/json";
  body = R"({"jsonrpc": "2.0", "id": null, "error": {"code": 1, "message": "not canary-4711"}})";
  expect("the server answers with status 401: not ***");
}

TEST(HttpConnectionTest, ALateCallIsCancelledAtTheServer) {
  absl::Mutex mutex;
  bool is_cancelled = false;
  TestHttpServer server([&](const httplib::Request& request, httplib::Response& reply) {
    if (request.body.find("notifications/cancelled") != std::string::npos) {
      absl::MutexLock lock(&mutex);
      is_cancelled = true;
      reply.status = 202;
      return;
    }
    Server([&](const Json&, const auto&, httplib::Response&) {
      absl::MutexLock lock(&mutex);
      mutex.AwaitWithTimeout(absl::Condition(&is_cancelled), absl::Seconds(20));
    })(request, reply);
  });
  Client client(At(server));
  const auto late =
      client.CallTool("t", Json::object(), {Clock::Real().Monotonic() + absl::Seconds(1), nullptr});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  absl::MutexLock lock(&mutex);
  EXPECT_TRUE(mutex.AwaitWithTimeout(absl::Condition(&is_cancelled), absl::Seconds(10)));
}

TEST(HttpConnectionTest, ALateStartIsNotCancelledAtTheServer) {
  absl::Notification is_over;
  TestHttpServer server([&](const httplib::Request& request, httplib::Response&) {
    if (request.body.find("initialize") != std::string::npos) is_over.WaitForNotification();
  });
  Client client(At(server));
  const auto late = client.CallTool("t", Json::object(),
                                    {Clock::Real().Monotonic() + absl::Milliseconds(300), nullptr});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  is_over.Notify();
  for (const auto& request : server.requests()) {
    EXPECT_THAT(request.body, Not(HasSubstr("notifications/cancelled")));
  }
}

TEST(HttpConnectionTest, NobodyListens) {
  ServerSettings settings;
  settings.name = "far";
  {
    TestHttpServer server([](const httplib::Request&, httplib::Response&) {});
    settings.url = server.url("/mcp");
  }
  Client client(std::move(settings));
  EXPECT_THAT(Call(client), HasSubstr("error: far: initialize: "));
}

}  // namespace
}  // namespace flowmesh::mcp
