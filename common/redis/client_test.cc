// Commands and replies of a client whose server is well; client_faults_test.cc has the rest.
#include "common/redis/client.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/redis/state_log.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::redis {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class ClientTest : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_TRUE(states_.WaitFor(State::kReady)); }

  // Waited for without the bound of the default: sanitizers are slow.
  std::vector<Reply> Run(const std::vector<Command>& commands) {
    Replies replies = client_.Run(commands, absl::Seconds(60));
    EXPECT_TRUE(replies.ok()) << replies.status();
    return replies.ok() ? *std::move(replies) : std::vector<Reply>(commands.size());
  }

  testing::RedisServer server_;
  testing::RedisPeer peer_{server_.port()};
  StateLog states_;
  Client client_{ParseRedisUrl(server_.url()).value(), states_.Listen()};
};

TEST_F(ClientTest, RepliesOfEveryKind) {
  const std::vector<Reply> replies =
      Run({{"SET", "key", "value"},
           {"GET", "key"},
           {"GET", "nothing"},
           {"INCRBY", "number", "-7"},
           {"EVAL", "return {1, {'two', false, {}}, {err='ERR three'}}", "0"},
           {"LPUSH", "key", "x"},
           {"NOSUCH"},
           {"GET", "key"}});
  ASSERT_EQ(replies.size(), 8u);
  EXPECT_EQ(replies[0].kind, Reply::Kind::kText);
  EXPECT_EQ(replies[0].text, "OK");
  EXPECT_EQ(replies[1].text, "value");
  EXPECT_EQ(replies[2].kind, Reply::Kind::kNil);
  EXPECT_EQ(replies[3].kind, Reply::Kind::kInteger);
  EXPECT_EQ(replies[3].integer, -7);
  ASSERT_EQ(replies[4].kind, Reply::Kind::kArray);
  ASSERT_EQ(replies[4].elements.size(), 3u);
  EXPECT_EQ(replies[4].elements[0].integer, 1);
  EXPECT_EQ(replies[4].elements[1].elements[0].text, "two");
  EXPECT_EQ(replies[4].elements[1].elements[1].kind, Reply::Kind::kNil);
  EXPECT_EQ(replies[4].elements[1].elements[2].kind, Reply::Kind::kArray);
  EXPECT_TRUE(replies[4].elements[2].is_error());
  EXPECT_TRUE(replies[5].is_error());
  EXPECT_THAT(replies[5].text, HasSubstr("WRONGTYPE"));
  EXPECT_THAT(replies[6].text, HasSubstr("unknown command"));
  // Errors of commands concern nobody else.
  EXPECT_EQ(replies[7].text, "value");
  EXPECT_EQ(client_.state(), State::kReady);
  EXPECT_EQ(client_.reconnects(), 0u);
}

TEST_F(ClientTest, BytesTravelUnchanged) {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  bytes += "\r\n$3\r\n";
  EXPECT_EQ(Run({{"SET", bytes, bytes}, {"GET", bytes}})[1].text, bytes);
  EXPECT_EQ(Run({{"SET", "empty", ""}, {"GET", "empty"}})[1].kind, Reply::Kind::kText);
}

TEST_F(ClientTest, TenMegabytesThereAndBack) {
  std::string large(10 << 20, ' ');
  for (size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 2654435761u >> 13);
  const std::vector<Reply> replies = Run({{"SET", "large", large}, {"GET", "large"}, {"PING"}});
  EXPECT_TRUE(replies[1].text == large);
  EXPECT_EQ(replies[2].text, "PONG");
}

TEST_F(ClientTest, AskGivesTheReplyOrTheServersWords) {
  EXPECT_EQ(client_.Ask({"ECHO", "hello"}).value().text, "hello");
  const absl::Status refused = client_.Ask({"HSET", "key"}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(refused), HasSubstr("Redis: ERR wrong number of arguments"));
}

TEST_F(ClientTest, NoCommandsAreAnsweredAtOnceAndShiftNoReplies) {
  EXPECT_THAT(client_.Run({}, absl::ZeroDuration()).value(), ElementsAre());
  client_.Post({});
  bool called = false;
  client_.Post({}, [&](const Replies& replies) { called = replies.ok() && replies->empty(); });
  EXPECT_TRUE(called);
  EXPECT_EQ(client_.Ask({"ECHO", "still mine"}).value().text, "still mine");
}

// Posts of several threads, of different sizes, with and without callbacks.
TEST_F(ClientTest, PipelinedPostsKeepTheirOrderAndTheirReplies) {
  constexpr int kThreads = 4, kPosts = 300;
  absl::Mutex mutex;
  std::vector<int> answered[kThreads];
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kPosts; ++i) {
        const std::string name = absl::StrCat(t, ":", i);
        std::vector<Command> commands = {{"RPUSH", absl::StrCat("list", t), absl::StrCat(i)}};
        for (int more = 0; more < i % 4; ++more) commands.push_back({"ECHO", name});
        if (i % 5 == 0) {
          client_.Post(commands);
          continue;
        }
        client_.Post(commands, [&, t, i, name, size = commands.size()](const Replies& replies) {
          ASSERT_TRUE(replies.ok()) << replies.status();
          ASSERT_EQ(replies->size(), size);
          EXPECT_EQ((*replies)[0].integer, i + 1);
          for (size_t more = 1; more < size; ++more) EXPECT_EQ((*replies)[more].text, name);
          absl::MutexLock lock(&mutex);
          answered[t].push_back(i);
        });
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  Run({{"PING"}});  // behind all of them
  absl::MutexLock lock(&mutex);
  for (int t = 0; t < kThreads; ++t) {
    const Json list = peer_.Command({"LRANGE", absl::StrCat("list", t), "0", "-1"});
    ASSERT_EQ(list.size(), static_cast<size_t>(kPosts));
    std::vector<int> expected;
    for (int i = 0; i < kPosts; ++i) {
      EXPECT_EQ(list[i], absl::StrCat(i));
      if (i % 5 != 0) expected.push_back(i);
    }
    EXPECT_EQ(answered[t], expected);
  }
}

TEST_F(ClientTest, ACallbackMayPost) {
  absl::Notification done;
  std::string text;
  client_.Post({{"SET", "step", "1"}}, [&](const Replies&) {
    client_.Post({{"APPEND", "step", "2"}}, [&](const Replies&) {
      client_.Post({{"GET", "step"}}, [&](const Replies& replies) {
        text = replies.ok() ? (*replies)[0].text : "";
        done.Notify();
      });
    });
  });
  ASSERT_TRUE(done.WaitForNotificationWithTimeout(absl::Seconds(20)));
  EXPECT_EQ(text, "12");
}

TEST_F(ClientTest, TransactionsAreAllOrNothing) {
  EXPECT_TRUE(TransactionStatus(client_.Run(Transaction({{"SET", "a", "1"}, {"INCR", "a"}}))).ok());
  EXPECT_EQ(peer_.Command({"GET", "a"}), "2");

  // A command that is refused before EXEC: nothing is done.
  const absl::Status queued =
      TransactionStatus(client_.Run(Transaction({{"SET", "a", "7"}, {"NOSUCH"}})));
  EXPECT_EQ(queued.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(queued), HasSubstr("unknown command"));
  EXPECT_EQ(peer_.Command({"GET", "a"}), "2");

  // One that fails inside EXEC: Redis does the others, and we say what failed.
  const absl::Status inside =
      TransactionStatus(client_.Run(Transaction({{"LPUSH", "a", "x"}, {"SET", "a", "3"}})));
  EXPECT_EQ(inside.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(Message(inside), HasSubstr("WRONGTYPE"));
  EXPECT_EQ(peer_.Command({"GET", "a"}), "3");

  // A watched key that changed: EXEC answers nil.
  Run({{"WATCH", "a"}});
  peer_.Command({"SET", "a", "4"});
  EXPECT_EQ(TransactionStatus(client_.Run(Transaction({{"SET", "a", "5"}}))),
            absl::InternalError("Redis: the transaction was not executed"));
  EXPECT_EQ(peer_.Command({"GET", "a"}), "4");
}

TEST_F(ClientTest, RunGivesUpAloneAndTheConnectionGoesOn) {
  const absl::Status late = client_.Run({{"BLPOP", "queue", "0"}}, absl::Milliseconds(50)).status();
  EXPECT_EQ(late.code(), absl::StatusCode::kDeadlineExceeded);
  peer_.Command({"RPUSH", "queue", "x"});
  EXPECT_EQ(Run({{"ECHO", "next"}})[0].text, "next");
  EXPECT_EQ(client_.reconnects(), 0u);
}

TEST_F(ClientTest, WhatStillWaitsAtTheEndIsTold) {
  absl::Status told;
  StateLog states;
  {
    Client client(ParseRedisUrl(server_.url()).value(), states.Listen());
    ASSERT_TRUE(states.WaitFor(State::kReady));
    client.Post({{"BLPOP", "nothing", "0"}},
                [&](const Replies& replies) { told = replies.status(); });
  }
  EXPECT_EQ(told, absl::UnavailableError("the client is stopping"));
  EXPECT_FALSE(states.Told(State::kLost));  // an end is no loss
}

TEST_F(ClientTest, TheUrlsDatabaseUserAndSocketAreUsed) {
  peer_.Command({"ACL", "SETUSER", "ann", "on", ">p@ss", "~*", "+@all"});
  peer_.Command({"ACL", "SETUSER", "bob", "on", "nopass", "~*", "+@all"});
  const auto who = [&](const std::string& url) {
    StateLog states;
    Client client(ParseRedisUrl(url).value(), states.Listen());
    EXPECT_TRUE(states.WaitFor(State::kReady)) << url;
    return client.Ask({"ACL", "WHOAMI"}).value_or(Reply{}).text + " " +
           client.Ask({"CLIENT", "INFO"}).value_or(Reply{}).text;
  };
  const std::string tcp = absl::StrCat("127.0.0.1:", server_.port());
  EXPECT_THAT(who("redis://" + tcp + "/3"), HasSubstr(" db=3 "));
  EXPECT_THAT(who("redis://" + tcp), ::testing::StartsWith("default "));
  EXPECT_THAT(who("redis://ann:p%40ss@" + tcp), ::testing::StartsWith("ann "));
  EXPECT_THAT(who("redis://bob@" + tcp), ::testing::StartsWith("bob "));
  const std::string over_socket = who("unix://ann:p%40ss@" + server_.socket().string() + "?db=2");
  EXPECT_THAT(over_socket, ::testing::StartsWith("ann "));
  EXPECT_THAT(over_socket, HasSubstr(" db=2 "));
  EXPECT_THAT(over_socket, HasSubstr("redis.sock"));
}

}  // namespace
}  // namespace flowmesh::redis
