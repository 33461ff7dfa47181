#include "common/retry.h"

#include <gtest/gtest.h>

#include <atomic>

#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/test_http_server.h"
#include "common/test_jumping_clock.h"

namespace flowmesh {
namespace {

std::function<double()> Always(double value) {
  return [value] { return value; };
}

TEST(RetryTest, OnlyTroubleThatMayPassIsRetried) {
  for (const int status : {408, 425, 429, 500, 502, 503, 504, 599}) {
    EXPECT_TRUE(IsRetryable(status)) << status;
  }
  for (const int status : {400, 401, 403, 404, 409, 413, 415, 422, 499}) {
    EXPECT_FALSE(IsRetryable(status)) << status;
  }
  EXPECT_TRUE(IsRetryable(absl::UnavailableError("refused")));
  EXPECT_TRUE(IsRetryable(absl::DeadlineExceededError("silent")));
  EXPECT_FALSE(IsRetryable(absl::CancelledError("cancelled")));
  EXPECT_FALSE(IsRetryable(absl::InvalidArgumentError("no URL")));
  EXPECT_FALSE(IsRetryable(absl::NotFoundError("no file")));
}

TEST(RetryTest, RetryAfterIsSecondsOrADate) {
  const absl::Time now = absl::FromUnixSeconds(784111777);  // Sun, 06 Nov 1994 08:49:37 GMT
  EXPECT_EQ(ParseRetryAfter("120", now), absl::Seconds(120));
  EXPECT_EQ(ParseRetryAfter(" 0 ", now), absl::ZeroDuration());
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:50:00 GMT", now), absl::Seconds(23));
  EXPECT_EQ(ParseRetryAfter("Sun, 06 Nov 1994 08:49:00 GMT", now), absl::ZeroDuration());
  for (const char* other : {"", "-1", "1.5", "soon", "Sun, 06 Nov 1994", "12 s"}) {
    EXPECT_EQ(ParseRetryAfter(other, now), std::nullopt) << other;
  }
}

TEST(RetryTest, PausesDoubleFromHalfASecondToThirty) {
  RetrySchedule schedule(absl::Hours(1), Always(1));
  for (const double seconds : {0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0}) {
    EXPECT_EQ(schedule.Next(absl::ZeroDuration(), std::nullopt), absl::Seconds(seconds));
  }
  schedule.Reset();
  EXPECT_EQ(schedule.Next(absl::ZeroDuration(), std::nullopt), absl::Milliseconds(500));
}

TEST(RetryTest, ThePauseStaysBoundedHoweverManyFailures) {
  RetrySchedule schedule(absl::Hours(1), Always(1));
  for (int i = 0; i < 5000; ++i) {
    ASSERT_LE(*schedule.Next(absl::ZeroDuration(), std::nullopt), absl::Seconds(30)) << i;
  }
}

TEST(RetryTest, TheJitterIsFull) {
  RetrySchedule none(absl::Hours(1), Always(0));
  EXPECT_EQ(none.Next(absl::ZeroDuration(), std::nullopt), absl::ZeroDuration());
  RetrySchedule quarter(absl::Hours(1), Always(0.25));
  EXPECT_EQ(quarter.Next(absl::ZeroDuration(), std::nullopt), absl::Milliseconds(125));
  EXPECT_EQ(quarter.Next(absl::ZeroDuration(), std::nullopt), absl::Milliseconds(250));
}

TEST(RetryTest, RetryAfterIsTheLeastPause) {
  RetrySchedule schedule(absl::Hours(1), Always(1));
  EXPECT_EQ(schedule.Next(absl::ZeroDuration(), absl::Seconds(45)), absl::Seconds(45));
  EXPECT_EQ(schedule.Next(absl::ZeroDuration(), absl::Milliseconds(1)), absl::Seconds(1));
}

TEST(RetryTest, NoPauseReachesTheLimit) {
  RetrySchedule schedule(absl::Seconds(10), Always(1));
  EXPECT_EQ(schedule.Next(absl::Seconds(9.4), std::nullopt), absl::Milliseconds(500));
  EXPECT_EQ(schedule.Next(absl::Seconds(9), std::nullopt), std::nullopt);
  EXPECT_EQ(schedule.Next(absl::Seconds(1), absl::Seconds(9)), std::nullopt);
  // As large as a peer can say it.
  EXPECT_EQ(schedule.Next(absl::ZeroDuration(),
                          ParseRetryAfter("9223372036854775807", absl::UnixEpoch())),
            std::nullopt);
}

TEST(RetryTest, ARequestIsSentAgainWhileThatMayHelp) {
  std::atomic<int> asked = 0;
  TestHttpServer server([&](const httplib::Request& request, httplib::Response& reply) {
    const int count = ++asked;
    if (request.path == "/gone") {
      reply.status = 404;
    } else if (request.path == "/broken" || count < 3) {
      reply.status = count == 1 ? 503 : 429;
      reply.set_header("Retry-After", "0");
    }
  });
  HttpClient client;
  const Clock& clock = Clock::Real();
  HttpRequest request{.url = server.url()};
  EXPECT_EQ(SendWithRetries(client, request, absl::Minutes(1), clock)->status, 200);
  EXPECT_EQ(asked, 3);
  request.url = server.url("/gone");
  EXPECT_EQ(SendWithRetries(client, request, absl::Minutes(1), clock)->status, 404);
  EXPECT_EQ(asked, 4);
  // The last try's outcome, when there is no time for another.
  request.url = server.url("/broken");
  EXPECT_EQ(SendWithRetries(client, request, absl::ZeroDuration(), clock)->status, 429);
  EXPECT_EQ(asked, 5);
  const absl::Duration deadline = clock.Monotonic() + absl::Milliseconds(200);
  const auto late = SendWithRetries(client, request, absl::Hours(1), clock, deadline);
  EXPECT_TRUE(late.ok() ? late->status == 429 : absl::IsDeadlineExceeded(late.status()))
      << late.status();
  request.cancelled = [&, last = asked + 2] { return asked >= last; };
  EXPECT_TRUE(absl::IsCancelled(SendWithRetries(client, request, absl::Hours(1), clock).status()));
}

TEST(RetriesTest, AFailureThatHardlyPassesEndsThemSooner) {
  JumpingClock clock;
  std::vector<std::string> said;
  HttpClient client;
  const absl::Status lasting =
      client.Send({.url = absl::StrCat("http://", std::string(64, 'x'), ".invalid")}).status();
  ASSERT_TRUE(IsLasting(lasting)) << lasting;
  const absl::Status passing = client.Send({.url = "http://127.0.0.1:1"}).status();
  ASSERT_TRUE(absl::IsUnavailable(passing) && !IsLasting(passing)) << passing;
  Retries retries("GET x", absl::Seconds(300), clock,
                  [&](const std::string& text) { said.push_back(text); });
  const absl::Duration begin = clock.Monotonic();
  // An outage of the name servers in the middle of a longer one has its time of its own.
  while (clock.Monotonic() - begin < absl::Seconds(100)) {
    ASSERT_TRUE(retries.WaitAfter(passing, std::nullopt, nullptr).ok());
  }
  const size_t before = said.size();
  const absl::Duration then = clock.Monotonic();
  absl::Status end;
  while (end.ok()) end = retries.WaitAfter(lasting, absl::Seconds(4), nullptr);
  EXPECT_EQ(end, lasting);
  EXPECT_LT(clock.Monotonic() - then, absl::Seconds(20));
  EXPECT_GT(said.size(), before);
  EXPECT_EQ(said.back().substr(0, 7), "GET x: ");
  // Until something new comes, all of them count; from then on none does.
  retries.Progressed();
  EXPECT_TRUE(retries.WaitAfter(passing, std::nullopt, nullptr).ok());
  EXPECT_TRUE(absl::IsCancelled(retries.WaitAfter(passing, std::nullopt, [] { return true; })));
}

}  // namespace
}  // namespace flowmesh
