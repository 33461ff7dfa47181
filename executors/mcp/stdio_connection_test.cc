#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "executors/mcp/client.h"
#include "executors/mcp/test_server.h"

namespace flowmesh::mcp {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// A server that reads and never answers, not even `initialize`; `on_line` looks at what it reads.
std::string Mute(const std::string& on_line) {
  return absl::StrCat("    pass\nfor line in sys.stdin:\n    ", on_line);
}

class StdioTest : public ::testing::Test {
 protected:
  void SetUp() override { previous_ = ::signal(SIGPIPE, SIG_IGN); }
  void TearDown() override { ::signal(SIGPIPE, previous_); }

  // The text that `tool` answers, or the error.
  static std::string Call(Client& client, const std::string& tool, const Json& arguments,
                          const CallLimits& limits = {}) {
    const auto result = client.CallTool(tool, arguments, limits);
    return result.ok() ? result->text : absl::StrCat("error: ", Message(result.status()));
  }

  TempDir folder_;

 private:
  sighandler_t previous_ = SIG_DFL;
};

TEST_F(StdioTest, ListsPagesOfTools) {
  Client client(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/list":
        if "cursor" not in message.get("params", {}):
            answer(message, {"tools": [{"name": "a", "description": "first",
                                        "inputSchema": {"type": "object"}}], "nextCursor": "2"})
        else:
            answer(message, {"tools": [{"name": "b"}]})
)PY"));
  const auto tools = client.ListTools({});
  ASSERT_TRUE(tools.ok()) << tools.status();
  ASSERT_EQ(tools->size(), 2u);
  EXPECT_EQ((*tools)[0].description, "first");
  EXPECT_EQ((*tools)[0].input_schema, (Json{{"type", "object"}}));
  EXPECT_EQ((*tools)[1].name, "b");
}

TEST_F(StdioTest, PartsOfAnswersAndErrors) {
  Client client(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        kind = message["params"]["name"]
        if kind == "parts":
            answer(message, {"content": [{"type": "text", "text": "ä"},
                                         {"type": "image", "data": "QUJD", "mimeType": "image/png"},
                                         {"type": "resource", "resource": {"uri": "f:/x", "text": "r"}}]})
        elif kind == "structured":
            answer(message, {"content": [], "structuredContent": {"n": 1}, "isError": True})
        elif kind == "nothing":
            answer(message, 3)
        else:
            send({"id": message["id"], "error": {"code": -32602, "message": "unknown tool"}})
)PY"));
  EXPECT_EQ(Call(client, "parts", Json::object()), "ä\n[image of 4 base64 characters]\nr");
  const auto structured = client.CallTool("structured", Json::object(), {});
  ASSERT_TRUE(structured.ok()) << structured.status();
  EXPECT_EQ(structured->text, R"({"n":1})");
  EXPECT_TRUE(structured->is_error);
  EXPECT_EQ(Call(client, "other", Json::object()), "error: scripted: unknown tool");
  EXPECT_THAT(Call(client, "nothing", Json::object()),
              HasSubstr("expected a map as result, got 3"));
}

TEST_F(StdioTest, ThreadsShareOneServerWhichMayAnswerInAnyOrder) {
  Client client(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        held.append(message)
        if len(held) == 8:
            for one in reversed(held):
                text(one, one["params"]["arguments"]["x"])
held = []
)PY"));
  std::vector<std::thread> threads;
  std::atomic<int> right = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&client, &right, i] {
      right += Call(client, "t", {{"x", absl::StrCat("v", i)}}) == absl::StrCat("v", i);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(right, 8);
}

TEST_F(StdioTest, ACallThatIsStoppedOrLateIsCancelledAtTheServer) {
  ServerSettings settings = ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "notifications/cancelled":
        cancelled.append(message["params"]["requestId"])
    elif message.get("method") == "tools/call" and message["params"]["name"] == "asked":
        text(message, str(len(cancelled)))
    elif message.get("method") == "tools/call":
        calls.append(message["id"])
cancelled, calls = [], []
)PY");
  Client client(std::move(settings));
  EXPECT_EQ(Call(client, "asked", Json::object()), "0");
  const auto late = client.CallTool("never", Json::object(),
                                    {Clock::Real().Monotonic() + absl::Milliseconds(100), nullptr});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  const auto stopped =
      client.CallTool("never", Json::object(), {absl::InfiniteDuration(), [] { return true; }});
  EXPECT_TRUE(absl::IsCancelled(stopped.status())) << stopped.status();
  EXPECT_EQ(Call(client, "asked", Json::object()), "2");
}

TEST_F(StdioTest, AServersRequestsAreAnswered) {
  Client client(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        calls.append(message)
        send({"id": "p", "method": "ping"})
        send({"id": 7, "method": "sampling/createMessage", "params": {}})
    elif "id" in message:
        answers.append(message.get("result", message.get("error", {}).get("code")))
        if len(answers) == 2:
            text(calls[0], json.dumps(answers))
calls, answers = [], []
)PY"));
  EXPECT_EQ(Call(client, "t", Json::object()), "[{}, -32601]");
}

TEST_F(StdioTest, DeathInMidCallIsToldWithoutSecretsAndTheNextCallStartsItAgain) {
  ServerSettings settings = ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        if message["params"]["name"] == "die":
            sys.stderr.write("no use for " + os.environ["TOKEN"] + "\n")
            sys.exit(3)
        text(message, os.environ["TOKEN"] + str("UTU_LLM_API_KEY" in os.environ))
)PY");
  settings.env["TOKEN"] = "canary-4711";
  ASSERT_EQ(::setenv("UTU_LLM_API_KEY", "not-for-servers", 1), 0);
  Client client(std::move(settings));
  for (int i = 0; i < 7; ++i) {  // more often than it may die without an answer between
    const std::string died = Call(client, "die", Json::object());
    EXPECT_THAT(died, HasSubstr("error: scripted: the server has ended with exit code 3"));
    EXPECT_THAT(died, HasSubstr("no use for ***"));
    EXPECT_THAT(died, Not(HasSubstr("canary")));
    EXPECT_EQ(Call(client, "live", Json::object()), "canary-4711False");
  }
  ::unsetenv("UTU_LLM_API_KEY");
}

TEST_F(StdioTest, SecretsInArgumentsAndPartsOfThemAreToldNowhere) {
  ServerSettings settings = ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        secret = sys.argv[1].split(":")[2].split("@")[0]
        token = os.environ["AUTH"].split()[1]
        if message["params"]["name"] == "short":
            sys.stderr.write(sys.argv[1] + " has " + secret + " and " + token)
        else:  # of which what is kept begins in the secret
            sys.stderr.write(secret + "\u00e4" * 993 + 2 * token)
        sys.exit(3)
)PY");
  settings.args.push_back("postgresql://user:canary-4711@db/x");
  settings.env["AUTH"] = "Bearer sparrow-4711";
  Client client(std::move(settings));
  EXPECT_THAT(Call(client, "short", Json::object()),
              HasSubstr("it said: postgresql://***@db/x has *** and ***"));
  const std::string died = Call(client, "long", Json::object());
  EXPECT_THAT(died, AllOf(HasSubstr("\u00e4\u00e4***"), Not(HasSubstr("4711"))));
}

TEST_F(StdioTest, OneThatAlwaysDiesIsLeftInPeace) {
  Client client(ScriptedServer(folder_.path(), "    sys.exit(1)"));
  std::string error;
  for (int i = 0; i < 6; ++i) error = Call(client, "t", Json::object());
  EXPECT_THAT(error, HasSubstr("started 5 times and answered nothing"));
}

TEST_F(StdioTest, GarbageAndFloods) {
  Client few(ScriptedServer(folder_.path(), R"PY(
    print("a line that is no message")
    print("[1, 2]")
    if message.get("method") == "tools/call":
        text(message, "fine")
)PY"));
  EXPECT_EQ(Call(few, "t", Json::object()), "fine");
  Client many(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        while True:
            print("garbage")
)PY"));
  EXPECT_THAT(Call(many, "t", Json::object()), HasSubstr("no messages of JSON-RPC"));
  Client flood(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        while True:
            sys.stdout.write("x" * 65536)
)PY"));
  EXPECT_THAT(Call(flood, "t", Json::object()), HasSubstr("more than 8388608 bytes"));
}

// A call is half written when the server asks and then says more than a pipe holds.
TEST_F(StdioTest, OneThatIsToBeReadBeforeItReadsOn) {
  Client client(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "notifications/initialized":
        begin = sys.stdin.read(1)
        send({"id": "p", "method": "ping"})
        for _ in range(100):
            send({"method": "notifications/message", "params": {"data": "x" * 10000}})
        call = json.loads(begin + sys.stdin.readline())
        pong = json.loads(sys.stdin.readline())
        text(call, str(len(call["params"]["arguments"]["x"])) + json.dumps(pong["result"]))
)PY"));
  EXPECT_EQ(Call(client, "t", {{"x", std::string(1 << 20, 'x')}},
                 {Clock::Real().Monotonic() + absl::Seconds(10), nullptr}),
            "1048576{}");
}

TEST_F(StdioTest, OneThatAsksAndNeverReads) {
  Client client(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "notifications/initialized":
        while True:
            send({"id": "p" * 10000, "method": "ping"})
)PY"));
  EXPECT_THAT(Call(client, "t", {{"x", std::string(1 << 20, 'x')}}),
              HasSubstr("asks and does not read what it is answered"));
}

TEST_F(StdioTest, AStartMayTakeLongerThanACall) {
  ServerSettings settings = ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "tools/call":
        text(message, "ready")
time.sleep(2)
)PY");
  settings.timeout = absl::Seconds(1);
  Client client(std::move(settings));
  EXPECT_EQ(Call(client, "t", Json::object()), "ready");
}

TEST_F(StdioTest, WhoWaitsForAnothersStartKeepsItsOwnLimits) {
  Client client(ScriptedServer(folder_.path(), Mute("pass")));
  absl::Notification is_starting;
  std::atomic<bool> is_over = false;
  std::thread starter([&] {
    const CallLimits limits{.is_stopped = [&] {
      if (!is_starting.HasBeenNotified()) is_starting.Notify();
      return is_over.load();
    }};
    EXPECT_TRUE(absl::IsCancelled(client.CallTool("t", Json::object(), limits).status()));
  });
  is_starting.WaitForNotification();
  const absl::Duration begin = Clock::Real().Monotonic();
  const auto late =
      client.CallTool("t", Json::object(), {begin + absl::Milliseconds(100), nullptr});
  EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
  EXPECT_LT(Clock::Real().Monotonic() - begin, absl::Seconds(10));
  is_over = true;
  starter.join();
}

TEST_F(StdioTest, AStartThatItsCallerEndsIsNoFailureAndNotCancelled) {
  const std::string seen = folder_ / "cancelled";
  {
    Client client(ScriptedServer(
        folder_.path(), Mute(absl::StrCat("if 'cancelled' in line: open('", seen, "', 'w')"))));
    for (int i = 0; i < 7; ++i) {
      const auto late = client.CallTool(
          "t", Json::object(), {Clock::Real().Monotonic() + absl::Milliseconds(100), nullptr});
      EXPECT_TRUE(absl::IsDeadlineExceeded(late.status())) << late.status();
    }
  }
  EXPECT_FALSE(std::filesystem::exists(seen)) << "the protocol forbids it";
}

TEST_F(StdioTest, OneThatDoesNotReadItsInput) {
  Client client(ScriptedServer(folder_.path(), R"PY(
    if message.get("method") == "notifications/initialized":
        threading.Event().wait()
)PY"));
  const auto result = client.CallTool("t", {{"x", std::string(1 << 20, 'x')}},
                                      {Clock::Real().Monotonic() + absl::Seconds(2), nullptr});
  EXPECT_TRUE(absl::IsDeadlineExceeded(result.status())) << result.status();
}

TEST_F(StdioTest, NoSuchProgram) {
  ServerSettings settings;
  settings.name = "gone";
  settings.command = "/no/such/program";
  Client client(std::move(settings));
  EXPECT_THAT(Call(client, "t", Json::object()), HasSubstr("error: gone: "));
}

}  // namespace
}  // namespace flowmesh::mcp
