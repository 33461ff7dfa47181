#include "sidecar/delivery/sender.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "common/test_jumping_clock.h"

namespace flowmesh::sidecar {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;
using Kind = DeliveryAttempt::Kind;
using Outcome = DeliveryAttempt::Outcome;

// Answers with `statuses` one after the other, the last one for ever.
TestHttpServer::Handler Statuses(std::vector<int> statuses) {
  auto next = std::make_shared<std::atomic<size_t>>(0);
  return [=](const httplib::Request&, httplib::Response& reply) {
    reply.status = statuses[std::min(next->fetch_add(1), statuses.size() - 1)];
    reply.set_content("so it is", "text/plain");
  };
}

class SenderTest : public ::testing::Test {
 protected:
  SenderTest() {
    options_.on_attempt = [this](const DeliveryAttempt& attempt) { attempts_.push_back(attempt); };
  }

  static HttpRequest Post(const std::string& url, const std::string& body = R"({"a":1})") {
    HttpRequest request;
    request.method = "POST";
    request.url = url;
    request.headers = {{"Content-Type", "application/json"}};
    request.body = body;
    return request;
  }

  absl::Status Send(const HttpRequest& request) { return Send(request, clock_); }
  absl::Status Send(const HttpRequest& request, const Clock& clock) {
    Throttle throttle(options_.bandwidth);
    return Sender(options_, clock, throttle, is_cancelled_)
        .Send(Kind::kResult, request, request.body.size());
  }

  // As Send, for requests that fail: one try only.
  std::string Error(const HttpRequest& request) {
    options_.delivery_timeout = absl::ZeroDuration();
    const absl::Status status = Send(request);
    EXPECT_FALSE(status.ok());
    return Message(status);
  }

  std::vector<Outcome> outcomes() const {
    std::vector<Outcome> outcomes;
    for (const DeliveryAttempt& attempt : attempts_) outcomes.push_back(attempt.outcome);
    return outcomes;
  }

  JumpingClock clock_;
  DelivererOptions options_;
  std::function<bool()> is_cancelled_;
  std::vector<DeliveryAttempt> attempts_;
};

// --- What is a success, and what is tried again --------------------------------------------------

TEST_F(SenderTest, AnyFinalStatusBelow400IsSuccess) {
  for (const int status : {200, 201, 202, 204, 302, 304}) {  // redirects to nowhere
    TestHttpServer server(Statuses({status}));
    EXPECT_TRUE(Send(Post(server.url("/r"))).ok()) << status;
    EXPECT_THAT(server.requests(), SizeIs(1)) << status;
  }
  TestHttpServer rubbish([](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(std::string("\0\xff{]", 4), "application/json");
  });
  EXPECT_TRUE(Send(Post(rubbish.url("/r"))).ok());
}

TEST_F(SenderTest, WhatIsSaidWithASuccessDoesNotMatter) {
  std::atomic<bool> over{false};
  const auto provider = [](std::function<bool(httplib::DataSink&)> write) {
    return [=](const httplib::Request&, httplib::Response& reply) {
      reply.set_chunked_content_provider(
          "text/plain", [=](size_t, httplib::DataSink& sink) { return write(sink); });
    };
  };
  const std::string piece(1 << 20, 'x');
  TestHttpServer endless(
      provider([&](httplib::DataSink& sink) { return sink.write(piece.data(), piece.size()); }));
  EXPECT_TRUE(Send(Post(endless.url("/r"))).ok());
  EXPECT_THAT(endless.requests(), SizeIs(1));
  TestHttpServer slow(provider([&](httplib::DataSink& sink) {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return !over && sink.write("x", 1);
  }));
  HttpRequest request = Post(slow.url("/r"));
  request.timeout = absl::Milliseconds(300);
  EXPECT_TRUE(Send(request).ok());
  over = true;
  EXPECT_THAT(slow.requests(), SizeIs(1));
}

TEST_F(SenderTest, TroubleThatMayPassIsTriedAgain) {
  for (const int status : {408, 425, 429, 500, 502, 503, 504}) {
    attempts_.clear();
    TestHttpServer server(Statuses({status, status, 200}));
    EXPECT_TRUE(Send(Post(server.url("/r"), "the same body")).ok()) << status;
    EXPECT_THAT(outcomes(), ElementsAre(Outcome::kRetried, Outcome::kRetried, Outcome::kDelivered));
    ASSERT_THAT(server.requests(), SizeIs(3)) << status;
    for (const httplib::Request& request : server.requests()) {
      EXPECT_EQ(request.method, "POST");
      EXPECT_EQ(request.body, "the same body");
    }
  }
  EXPECT_EQ(attempts_.back().kind, Kind::kResult);
  EXPECT_EQ(attempts_.back().bytes, 13u);
}

TEST_F(SenderTest, OtherClientErrorsFailAtOnce) {
  for (const int status : {400, 401, 403, 404, 409, 413, 415, 422}) {
    attempts_.clear();
    TestHttpServer server(Statuses({status, 200}));
    EXPECT_EQ(Message(Send(Post(server.url("/r")))),
              absl::StrCat("POST ", server.url("/r"), ": status ", status, ": so it is"));
    EXPECT_THAT(outcomes(), ElementsAre(Outcome::kFailed));
    EXPECT_THAT(server.requests(), SizeIs(1)) << status;
  }
  EXPECT_EQ(clock_.Monotonic(), absl::ZeroDuration());
}

TEST_F(SenderTest, APortThatRefusesIsTriedAgainUntilItAnswers) {
  // Bound but not listening: it refuses, and nobody else can take it.
  const UniqueFd held(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const int on = 1;
  ASSERT_EQ(::setsockopt(held.get(), SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)), 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  ASSERT_EQ(::bind(held.get(), reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::getsockname(held.get(), reinterpret_cast<sockaddr*>(&address), &size), 0);
  const int port = ntohs(address.sin_port);

  std::unique_ptr<TestHttpServer> server;
  options_.on_attempt = [&](const DeliveryAttempt& attempt) {
    attempts_.push_back(attempt);
    if (attempts_.size() == 2) server = std::make_unique<TestHttpServer>(Statuses({200}), port);
  };
  EXPECT_TRUE(Send(Post(absl::StrCat("http://127.0.0.1:", port, "/r"))).ok());
  EXPECT_THAT(outcomes(), ElementsAre(Outcome::kRetried, Outcome::kRetried, Outcome::kDelivered));
  server.reset();
  EXPECT_THAT(Error(Post(absl::StrCat("http://127.0.0.1:", port, "/r?token=canary"))),
              AllOf(StartsWith(absl::StrCat("POST http://127.0.0.1:", port, "/r: ")),
                    Not(HasSubstr("canary"))));
}

TEST_F(SenderTest, AnAnswerThatBreaksOffIsTriedAgain) {
  std::atomic<int> count = 0;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    if (++count > 1) return;
    reply.set_content_provider(100, "text/plain",
                               [](size_t, size_t, httplib::DataSink&) { return false; });
  });
  EXPECT_TRUE(Send(Post(server.url("/r"))).ok());
  EXPECT_THAT(outcomes(), ElementsAre(Outcome::kRetried, Outcome::kDelivered));
}

TEST_F(SenderTest, SilenceIsATimeOutAndTriedAgain) {
  absl::Notification over;
  std::atomic<int> count = 0;
  TestHttpServer server([&](const httplib::Request&, httplib::Response&) {
    if (++count == 1) over.WaitForNotification();
  });
  HttpRequest request = Post(server.url("/r"));
  request.timeout = absl::Milliseconds(100);
  EXPECT_TRUE(Send(request).ok());
  EXPECT_THAT(outcomes(), ElementsAre(Outcome::kRetried, Outcome::kDelivered));
  count = 0;
  EXPECT_THAT(Error(request), HasSubstr("no answer within 100ms"));
  over.Notify();
}

TEST_F(SenderTest, TheTimeForRetriesIsBoundedAndShared) {
  options_.delivery_timeout = absl::Seconds(60);
  TestHttpServer server(Statuses({503}));
  EXPECT_THAT(Message(Send(Post(server.url("/r")))), HasSubstr("status 503: so it is"));
  EXPECT_LT(clock_.Monotonic(), absl::Seconds(60));
  EXPECT_EQ(attempts_.back().outcome, Outcome::kFailed);
  // Pauses of at most 0.5, 1, 2, ... 30 s: the sixth is the first that can pass the limit.
  EXPECT_GE(attempts_.size(), 6u);
  EXPECT_EQ(server.requests().size(), attempts_.size());

  // What one send spent, the next one lacks.
  std::atomic<int> count = 0;
  TestHttpServer slow([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = ++count == 2 ? 200 : 503;
    reply.set_header("Retry-After", "40");
  });
  Throttle throttle(std::nullopt);
  Sender sender(options_, clock_, throttle, nullptr);
  EXPECT_TRUE(sender.Send(Kind::kUpload, Post(slow.url("/a")), 1).ok());
  const absl::Duration before = clock_.Monotonic();
  EXPECT_FALSE(sender.Send(Kind::kResult, Post(slow.url("/b")), 1).ok());
  EXPECT_EQ(clock_.Monotonic(), before) << "it waited although the time was over";
}

TEST_F(SenderTest, EverySendStartsFromTheFirstPause) {
  options_.delivery_timeout = absl::Hours(1);
  Throttle throttle(std::nullopt);
  Sender sender(options_, clock_, throttle, nullptr);
  std::vector<int> statuses(10, 503);
  statuses.push_back(200);
  TestHttpServer server(Statuses(statuses));
  EXPECT_TRUE(sender.Send(Kind::kUpload, Post(server.url("/a")), 1).ok());
  TestHttpServer next(Statuses({503, 200}));
  const absl::Duration before = clock_.Monotonic();
  EXPECT_TRUE(sender.Send(Kind::kResult, Post(next.url("/b")), 1).ok());
  EXPECT_LE(clock_.Monotonic() - before, absl::Milliseconds(500));
}

TEST_F(SenderTest, RetryAfterIsHonoured) {
  for (const std::string& value :
       {std::string("7"),
        absl::FormatTime("%a, %d %b %Y %H:%M:%S GMT", clock_.Now() + absl::Seconds(14),
                         absl::UTCTimeZone())}) {
    std::atomic<int> count = 0;
    TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
      if (++count > 1) return;
      reply.status = 429;
      reply.set_header("Retry-After", value);
    });
    const absl::Duration before = clock_.Monotonic();
    EXPECT_TRUE(Send(Post(server.url("/r"))).ok());
    EXPECT_EQ(clock_.Monotonic() - before, absl::Seconds(7)) << value;
  }
}

// --- Redirects -----------------------------------------------------------------------------------

TEST_F(SenderTest, RedirectsKeepMethodBodyAndToken) {
  for (const int status : {301, 302, 303, 307, 308}) {
    TestHttpServer server([&](const httplib::Request& request, httplib::Response& reply) {
      if (request.path != "/r/") return;
      reply.status = status;
      reply.set_header("Location", "/r");
    });
    HttpRequest request = Post(server.url("/r/"), "the body");
    request.method = "PUT";
    request.headers.emplace_back("Authorization", "Bearer secret");
    EXPECT_TRUE(Send(request).ok()) << status;
    ASSERT_THAT(server.requests(), SizeIs(2)) << status;
    const httplib::Request second = server.requests()[1];
    EXPECT_EQ(second.path, "/r");
    EXPECT_EQ(second.method, "PUT") << status;
    EXPECT_EQ(second.body, "the body") << status;
    EXPECT_EQ(second.get_header_value("Authorization"), "Bearer secret") << status;
    EXPECT_EQ(second.get_header_value("Content-Type"), "application/json") << status;
  }
}

TEST_F(SenderTest, AnotherOriginLosesTheTokenForGood) {
  std::string back;
  TestHttpServer other([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = 307;
    reply.set_header("Location", back);
  });
  TestHttpServer first([&](const httplib::Request& request, httplib::Response& reply) {
    if (request.path != "/start") return;
    reply.status = 307;
    reply.set_header("Location", other.url("/there"));
  });
  back = first.url("/back");
  HttpRequest request = Post(first.url("/start"), "the body");
  request.headers.emplace_back("AUTHORIZATION", "Bearer secret");
  EXPECT_TRUE(Send(request).ok());
  ASSERT_THAT(other.requests(), SizeIs(1));
  EXPECT_FALSE(other.requests()[0].has_header("Authorization"));
  EXPECT_EQ(other.requests()[0].body, "the body");
  ASSERT_THAT(first.requests(), SizeIs(2));
  EXPECT_TRUE(first.requests()[0].has_header("Authorization"));
  EXPECT_FALSE(first.requests()[1].has_header("Authorization"));
  EXPECT_EQ(first.requests()[1].body, "the body");
}

TEST_F(SenderTest, RedirectsThatLeadNowhereFail) {
  TestHttpServer loop([](const httplib::Request&, httplib::Response& reply) {
    reply.status = 307;
    reply.set_header("Location", "/again");
  });
  EXPECT_THAT(Error(Post(loop.url("/r"))), HasSubstr("more than 5 redirects"));
  EXPECT_THAT(loop.requests(), SizeIs(6));
  TestHttpServer file([](const httplib::Request&, httplib::Response& reply) {
    reply.status = 307;
    reply.set_header("Location", "file:///etc/passwd");
  });
  EXPECT_THAT(Error(Post(file.url("/r"))), HasSubstr("no http(s) URL"));
}

// --- Secrets -------------------------------------------------------------------------------------

TEST_F(SenderTest, ErrorsHoldNoSecret) {
  options_.orchestrator_token = "canary-token";
  const std::string echo = "canary-token canary-key canary-basic canary-password";
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = 401;
    reply.set_content("no: " + echo, "text/plain");
  });
  HttpRequest request = Post(server.url("/r?token=canary-query#canary-fragment"));
  request.url.replace(0, 7, "http://user:canary-password@");
  request.headers.emplace_back("X-Key", "canary-key");
  request.headers.emplace_back("Authorization", "Basic canary-basic");
  EXPECT_EQ(Error(request),
            absl::StrCat("POST ", server.url("/r"), ": status 401: no: *** *** *** ***"));
}

TEST_F(SenderTest, ACutAnswerHoldsNoHalfOfASecret) {
  options_.orchestrator_token = "canarycanarycanary";
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = 500;
    reply.set_content(std::string(190, 'x') + options_.orchestrator_token, "text/plain");
  });
  EXPECT_THAT(Error(Post(server.url("/r"))), AllOf(HasSubstr("xxx"), Not(HasSubstr("can"))));
}

TEST_F(SenderTest, AnAnswerThatIsNoTextIsLeftOut) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.status = 500;
    reply.set_content("\xff\xfe", "application/octet-stream");
  });
  EXPECT_EQ(Error(Post(server.url("/r"))), "POST " + server.url("/r") + ": status 500");
}

// --- Throttle ------------------------------------------------------------------------------------

TEST_F(SenderTest, AThrottledResultWaitsItsTime) {
  options_.bandwidth = 1000;
  TestHttpServer server(Statuses({200}));
  EXPECT_TRUE(Send(Post(server.url("/r"), std::string(4500, 'x'))).ok());
  EXPECT_EQ(clock_.Monotonic(), absl::Seconds(4.5));
}

TEST_F(SenderTest, WaitingForTheThrottleIsNotWaitingForTheServer) {
  options_.bandwidth = 100;
  options_.delivery_timeout = absl::Seconds(5);
  TestHttpServer server(Statuses({503, 503, 200}));
  EXPECT_TRUE(Send(Post(server.url("/r"), std::string(1000, 'x'))).ok());
  EXPECT_GE(clock_.Monotonic(), absl::Seconds(30)) << "each try takes 10 s";
  EXPECT_LE(clock_.Monotonic(), absl::Seconds(31.5)) << "and two pauses";
}

TEST_F(SenderTest, AThrottledUploadIsPacedOnItsWay) {
  options_.bandwidth = 200'000;
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "f", std::string(100'000, 'x')).ok());
  TestHttpServer server(Statuses({200}));
  HttpRequest request;
  request.method = "POST";
  request.url = server.url("/r");
  request.file_part = HttpRequest::FilePart{.path = temp / "f", .file_name = "f"};
  Throttle throttle(options_.bandwidth);
  Sender sender(options_, Clock::Real(), throttle, nullptr);
  const absl::Duration before = Clock::Real().Monotonic();
  EXPECT_TRUE(sender.Send(Kind::kUpload, request, 100'000).ok());
  EXPECT_GE(Clock::Real().Monotonic() - before, absl::Seconds(0.5));
  ASSERT_THAT(server.requests(), SizeIs(1));
  EXPECT_EQ(server.requests()[0].get_file_value("file").content, std::string(100'000, 'x'));
}

// --- Cancellation --------------------------------------------------------------------------------

TEST_F(SenderTest, CancellationEndsAPauseAtOnce) {
  std::atomic<bool> cancelled = false;
  is_cancelled_ = [&] { return cancelled.load(); };
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.status = 503;
    reply.set_header("Retry-After", "100");
  });
  absl::Notification failed_once;
  options_.on_attempt = [&](const DeliveryAttempt&) { failed_once.Notify(); };
  std::thread canceller([&] {
    failed_once.WaitForNotification();
    cancelled = true;
  });
  EXPECT_TRUE(absl::IsCancelled(Send(Post(server.url("/r")), Clock::Real())));
  canceller.join();
  EXPECT_THAT(server.requests(), SizeIs(1));
}

TEST_F(SenderTest, CancellationEndsAWaitForTheThrottle) {
  options_.bandwidth = 1;
  is_cancelled_ = [this] { return clock_.Monotonic() > absl::Seconds(3); };
  TestHttpServer server(Statuses({200}));
  EXPECT_TRUE(absl::IsCancelled(Send(Post(server.url("/r"), std::string(1000, 'x')))));
  EXPECT_LT(clock_.Monotonic(), absl::Seconds(3.2));
  EXPECT_THAT(server.requests(), IsEmpty());
}

TEST_F(SenderTest, CancellationEndsATransfer) {
  std::atomic<bool> cancelled = false;
  absl::Notification over;
  is_cancelled_ = [&] { return cancelled.load(); };
  TestHttpServer server([&](const httplib::Request&, httplib::Response&) {
    cancelled = true;
    over.WaitForNotification();
  });
  EXPECT_TRUE(absl::IsCancelled(Send(Post(server.url("/r")))));  // its time-out is 15 s
  over.Notify();
  EXPECT_THAT(outcomes(), ElementsAre(Outcome::kFailed));
}

}  // namespace
}  // namespace flowmesh::sidecar
