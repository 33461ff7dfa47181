#include "common/redis/reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace flowmesh::redis {
namespace {

using ::testing::ElementsAre;

Reply Text(const std::string& text) { return {.kind = Reply::Kind::kText, .text = text}; }
Reply Error(const std::string& text) { return {.kind = Reply::Kind::kError, .text = text}; }
Reply List(std::vector<Reply> elements) {
  return {.kind = Reply::Kind::kArray, .elements = std::move(elements)};
}

TEST(AppendCommandTest, CountsBytesAndAppends) {
  std::string out;
  AppendCommand({"SET", std::string("k\0\r\n", 4), "é"}, out);
  EXPECT_EQ(out, "*3\r\n$3\r\nSET\r\n$4\r\n" + std::string("k\0\r\n", 4) + "\r\n$2\r\né\r\n");
  out = "before";
  AppendCommand({"PING", ""}, out);
  EXPECT_EQ(out, "before*2\r\n$4\r\nPING\r\n$0\r\n\r\n");
}

TEST(TransactionTest, StandsBetweenMultiAndExec) {
  EXPECT_THAT(Transaction({{"SET", "a", "1"}, {"DEL", "b"}}),
              ElementsAre(Command{"MULTI"}, Command{"SET", "a", "1"}, Command{"DEL", "b"},
                          Command{"EXEC"}));
}

TEST(TransactionStatusTest, IsOkOnlyWhenEverythingWasExecuted) {
  const Reply queued = Text("QUEUED");
  using All = std::vector<Reply>;
  EXPECT_TRUE(TransactionStatus(All{Text("OK"), queued, List({Text("OK")})}).ok());
  EXPECT_TRUE(TransactionStatus(All{Text("OK"), List({})}).ok());

  const absl::Status inside = TransactionStatus(All{Text("OK"), queued, List({Error("ERR no")})});
  EXPECT_EQ(inside, absl::InternalError("Redis: ERR no"));
  // The first error is the cause, EXECABORT its consequence.
  EXPECT_EQ(TransactionStatus(All{Text("OK"), Error("ERR bad"), Error("EXECABORT discarded")}),
            absl::InternalError("Redis: ERR bad"));
  EXPECT_EQ(TransactionStatus(All{Text("OK"), queued, Reply{}}),
            absl::InternalError("Redis: the transaction was not executed"));
  EXPECT_EQ(TransactionStatus(All{}),
            absl::InternalError("Redis: the transaction was not executed"));
  EXPECT_EQ(TransactionStatus(absl::UnavailableError("gone")), absl::UnavailableError("gone"));
}

TEST(WithoutErrorsTest, LetsAnswersThroughAndFindsErrorsAtAnyDepth) {
  const Replies good = WithoutErrors(std::vector<Reply>{Text("a"), List({Text("b")})});
  ASSERT_TRUE(good.ok());
  EXPECT_EQ((*good)[1].elements[0].text, "b");
  EXPECT_EQ(WithoutErrors(std::vector<Reply>{Text("a"), List({List({Error("ERR x")})})}).status(),
            absl::InternalError("Redis: ERR x"));
  EXPECT_EQ(WithoutErrors(absl::UnavailableError("gone")).status(), absl::UnavailableError("gone"));
}

}  // namespace
}  // namespace flowmesh::redis
