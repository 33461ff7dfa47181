#include "common/fetch/downloader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "common/fetch/raw_server.h"
#include "common/files.h"
#include "common/strings.h"
#include "common/test_http_server.h"
#include "common/test_jumping_clock.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::StartsWith;

std::string Content(size_t size) {
  std::string content;
  for (int i = 0; content.size() < size; ++i) absl::StrAppend(&content, i, ",");
  content.resize(size);
  return content;
}

std::string HeaderOf(const std::string& head, const std::string& name) {
  const size_t at = head.find("\r\n" + name + ": ");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 4;
  return head.substr(begin, head.find("\r\n", begin) - begin);
}

std::string Answer(const std::string& status_and_headers, std::string_view body) {
  return absl::StrCat("HTTP/1.1 ", status_and_headers, "\r\n\r\n", ToAbsl(body));
}

// A server of `content` that answers ranges as its version allows, and cuts its first answers after
// `cut` bytes of the body.
struct CuttingServer {
  explicit CuttingServer(std::string content) : content_(std::move(content)) {}

  std::string operator()(const std::string& head) {
    heads.push_back(head);
    const std::string range = HeaderOf(head, "Range");
    size_t begin = 0;
    std::string status = "200 OK";
    std::string headers = validator;
    if (ranges && !range.empty() &&
        validator.find(HeaderOf(head, "If-Range")) != std::string::npos) {
      begin = std::stoul(range.substr(range.find('=') + 1));
      status = "206 Partial Content";
      absl::StrAppend(&headers, "\r\nContent-Range: bytes ", begin, "-", content_.size() - 1, "/",
                      content_.size());
    }
    const std::string_view body = std::string_view(content_).substr(begin);
    const size_t sent = cuts-- > 0 ? cut : body.size();
    return Answer(absl::StrCat(status, "\r\nContent-Length: ", body.size(), "\r\n", headers),
                  body.substr(0, sent));
  }

  std::string content_;
  std::string validator = "ETag: \"v1\"";
  bool ranges = true;
  int cuts = 0;
  size_t cut = 0;
  std::vector<std::string> heads;
};

class DownloaderTest : public ::testing::Test {
 protected:
  absl::StatusOr<DownloadedFile> Get(DownloadRequest request) {
    request.to = to_;
    return Downloader(options_, clock_).Download(request, is_cancelled_);
  }

  // Of a download that must fail and leave nothing.
  absl::Status Error(DownloadRequest request) {
    const absl::Status status = Get(std::move(request)).status();
    EXPECT_FALSE(status.ok());
    EXPECT_TRUE(fs::is_empty(temp_.path()));
    return status;
  }

  void ExpectWhole(const absl::StatusOr<DownloadedFile>& file, const std::string& content) {
    ASSERT_TRUE(file.ok()) << file.status();
    EXPECT_EQ(file->bytes, content.size());
    EXPECT_EQ(file->sha256, Sha256Hex(content));
    EXPECT_TRUE(ReadFile(to_).value() == content);
    EXPECT_EQ(std::distance(fs::directory_iterator(temp_.path()), fs::directory_iterator()), 1);
  }

  const TempDir temp_;
  const fs::path to_ = temp_ / "weights.bin";
  DownloaderOptions options_;
  std::function<bool()> is_cancelled_;
  JumpingClock clock_;
};

TEST_F(DownloaderTest, AFileAppearsWholeInPlaceOfAnOlderOne) {
  const std::string content = Content(3'000'000);
  CuttingServer answers(content);
  RawServer server(std::ref(answers));
  ASSERT_TRUE(WriteFileAtomically(to_, "old").ok());
  ASSERT_TRUE(WriteFileAtomically(temp_ / ".weights.bin.0123abcd", "half").ok());
  ExpectWhole(Get({.url = server.url("/w")}), content);
  ExpectWhole(Get({.url = server.url("/w"), .sha256 = Sha256Hex(content)}), content);
}

TEST_F(DownloaderTest, AnEmptyFileIsAFile) {
  RawServer server([](const std::string&) { return Answer("200 OK\r\nContent-Length: 0", ""); });
  ExpectWhole(Get({.url = server.url()}), "");
}

TEST_F(DownloaderTest, AFileWithoutALengthIsTakenToItsEnd) {
  const std::string content = Content(500'000);
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.set_chunked_content_provider("text/plain", [&](size_t, httplib::DataSink& sink) {
      sink.write(content.data(), content.size());
      sink.done();
      return true;
    });
  });
  ExpectWhole(Get({.url = server.url()}), content);
}

// --- Cuts and what comes after them --------------------------------------------------------------

TEST_F(DownloaderTest, P17_ACutAnywhereIsMadeUpFor) {
  const std::string content = Content(400'000);
  for (const size_t cut : {0, 1, 1000, 399'999}) {
    CuttingServer answers(content);
    answers.cuts = 1;
    answers.cut = cut;
    RawServer server(std::ref(answers));
    ExpectWhole(Get({.url = server.url()}), content);
    EXPECT_EQ(HeaderOf(answers.heads[1], "Range"),
              cut == 0 ? "" : absl::StrCat("bytes=", cut, "-"));
    EXPECT_EQ(HeaderOf(answers.heads[1], "If-Range"), cut == 0 ? "" : "\"v1\"");
  }
}

TEST_F(DownloaderTest, P17_ItGoesOnOnlyWhenTheFileIsTheSame) {
  const std::string content = Content(400'000), other = Content(300'000) + "other";
  // Without a range: the whole again. With another version: the whole of that.
  for (const bool ranges : {false, true}) {
    CuttingServer answers(content);
    answers.cuts = 1;
    answers.cut = 100'000;
    answers.ranges = ranges;
    RawServer server([&](const std::string& head) {
      std::string answer = answers(head);
      if (ranges) {
        answers.content_ = other;
        answers.validator = "ETag: \"v2\"";
      }
      return answer;
    });
    ExpectWhole(Get({.url = server.url()}), ranges ? other : content);
  }
}

TEST_F(DownloaderTest, P17_NothingToTellVersionsApartMeansFromTheStart) {
  const std::string content = Content(400'000);
  for (const char* validator : {"X: y", "ETag: W/\"weak\""}) {
    CuttingServer answers(content);
    answers.validator = validator;
    answers.cuts = 2;
    answers.cut = 100'000;
    RawServer server(std::ref(answers));
    ExpectWhole(Get({.url = server.url()}), content);
    for (const std::string& head : answers.heads) EXPECT_THAT(head, Not(HasSubstr("Range")));
  }
  CuttingServer dated(content);
  dated.validator = "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT";
  dated.cuts = 1;
  dated.cut = 100'000;
  RawServer server(std::ref(dated));
  ExpectWhole(Get({.url = server.url()}), content);
  EXPECT_EQ(HeaderOf(dated.heads[1], "If-Range"), "Sun, 06 Nov 1994 08:49:37 GMT");
}

TEST_F(DownloaderTest, P17_AnotherPartThanAskedForIsNotTaken) {
  const std::string content = Content(400'000);
  for (const char* range : {"Content-Range: bytes 99-399999/400000", "X: no range at all",
                            "Content-Range: bytes 100000-400000/400001", "Content-Range: nonsense",
                            "Content-Range: bytes 100000-399999/400000\r\nETag: \"v2\""}) {
    std::vector<std::string> heads;
    RawServer server([&](const std::string& head) {
      heads.push_back(head);
      const std::string_view whole = content;
      if (heads.size() == 1) {
        return Answer("200 OK\r\nETag: \"v1\"\r\nContent-Length: 400000", whole.substr(0, 100'000));
      }
      if (!HeaderOf(head, "Range").empty()) {
        return Answer(absl::StrCat("206 Partial Content\r\nContent-Length: 300000\r\n", range),
                      std::string(300'000, '!'));
      }
      return Answer("200 OK\r\nContent-Length: 400000", whole);
    });
    ExpectWhole(Get({.url = server.url()}), content);
    EXPECT_EQ(heads.size(), 3u);
  }
}

TEST_F(DownloaderTest, ARangeThatIsGoneMeansFromTheStart) {
  const std::string content = Content(1000);
  int count = 0;
  RawServer server([&](const std::string& head) {
    ++count;
    if (count == 1) {
      return Answer("200 OK\r\nETag: \"v1\"\r\nContent-Length: 5000", Content(4000));
    }
    return HeaderOf(head, "Range").empty()
               ? Answer("200 OK\r\nContent-Length: 1000", content)
               : Answer("416 Range Not Satisfiable\r\nContent-Length: 0", "");
  });
  ExpectWhole(Get({.url = server.url()}), content);
}

TEST_F(DownloaderTest, P17_ACutForEverFailsAndLeavesNothing) {
  CuttingServer answers(Content(400'000));
  answers.cuts = 1 << 30;
  answers.cut = 0;
  RawServer server(std::ref(answers));
  const absl::Status status = Error({.url = server.url("/w?token=canary")});
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_THAT(Message(status), AllOf(StartsWith("GET " + server.url("/w") + ": "),
                                     HasSubstr("400000 bytes remaining")));
  EXPECT_GT(clock_.Monotonic(), absl::Seconds(200));
  EXPECT_LT(clock_.Monotonic(), absl::Seconds(300));
}

TEST_F(DownloaderTest, TriesThatBringSomethingNewDoNotUseTheirTimeUp) {
  const std::string content = Content(400'000);
  CuttingServer answers(content);
  answers.cuts = 39;
  answers.cut = 10'000;
  RawServer server([&](const std::string& head) {
    clock_.Advance(absl::Seconds(100));  // each try takes long
    return answers(head);
  });
  ExpectWhole(Get({.url = server.url()}), content);
  EXPECT_GT(clock_.Monotonic(), 10 * options_.retry_limit);
}

TEST_F(DownloaderTest, LongerThanAnnouncedIsAnError) {
  const std::string content = Content(2000);
  RawServer server(
      [&](const std::string&) { return Answer("200 OK\r\nContent-Length: 1000", content); });
  const absl::Status status = Error({.url = server.url()});
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(Message(status), HasSubstr("answer longer than its Content-Length"));
  EXPECT_EQ(server.requests(), 1);
}

TEST_F(DownloaderTest, AnotherDigestIsAnError) {
  RawServer server([](const std::string&) { return Answer("200 OK\r\nContent-Length: 3", "abc"); });
  const absl::Status status = Error({.url = server.url(), .sha256 = std::string(64, 'A')});
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_EQ(Message(status), absl::StrCat("GET ", server.url(), ": expected SHA-256 ",
                                          std::string(64, 'a'), ", got ", Sha256Hex("abc")));
}

// --- Statuses, limits, silence -------------------------------------------------------------------

TEST_F(DownloaderTest, StatusesThatMayPassAreTriedAgain) {
  const std::vector<int> statuses = {503, 429, 500, 408};
  std::atomic<size_t> next = 0;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    const size_t i = next++;
    reply.status = i < statuses.size() ? statuses[i] : 200;
    if (i == 1) reply.set_header("Retry-After", "77");
    reply.set_content("content", "text/plain");
  });
  ExpectWhole(Get({.url = server.url()}), "content");
  EXPECT_GE(clock_.Monotonic(), absl::Seconds(77));
}

TEST_F(DownloaderTest, EachTryIsSaidWithItsReasonAndPause) {
  std::vector<std::string> said;
  options_.on_retry = [&](const std::string& text) { said.push_back(text); };
  std::atomic<int> requests = 0;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = requests++ < 2 ? 503 : 200;
    if (requests == 2) reply.set_header("Retry-After", "77");
    reply.set_content(reply.status == 200 ? "content" : "busy", "text/plain");
  });
  ExpectWhole(Get({.url = server.url("/f?key=hidden")}), "content");
  ASSERT_EQ(said.size(), 2u);
  EXPECT_THAT(
      said[0],
      AllOf(StartsWith(absl::StrCat("GET ", server.url("/f"), ": status 503: busy; try 2 in 0.")),
            Not(HasSubstr("hidden"))));
  EXPECT_EQ(said[1], absl::StrCat("GET ", server.url("/f"), ": status 503: busy; try 3 in 77.0 s"));
}

TEST_F(DownloaderTest, AHostThatNobodyKnowsIsGivenUpSoonerThanOneThatIsAway) {
  int tries = 1;
  options_.on_retry = [&](const std::string&) { ++tries; };
  // A name with a part that is too long for one: no server is asked for it.
  const std::string unknown = absl::StrCat("http://", std::string(64, 'x'), ".invalid/f");
  const absl::Duration begin = clock_.Monotonic();
  EXPECT_THAT(Message(Error({.url = unknown})), HasSubstr("Could not resolve host"));
  EXPECT_LE(clock_.Monotonic() - begin, absl::Seconds(20));
  EXPECT_GE(tries, 3);
  const absl::Duration then = clock_.Monotonic();
  EXPECT_THAT(Message(Error({.url = "http://127.0.0.1:1/f"})), HasSubstr("connect"));
  EXPECT_GE(clock_.Monotonic() - then, options_.retry_limit - absl::Seconds(30));
}

TEST_F(DownloaderTest, SaysHowMuchHasCome) {
  const std::string content = Content(300'000);
  CuttingServer answers(content);
  answers.cuts = 1;
  answers.cut = 100'000;
  RawServer server(std::ref(answers));
  uint64_t last = 0;
  const auto on_progress = [&](uint64_t done, uint64_t total) {
    EXPECT_GT(done, last);
    EXPECT_EQ(total, content.size());
    last = done;
  };
  ExpectWhole(Get({.url = server.url(), .on_progress = on_progress}), content);
  EXPECT_EQ(last, content.size());
}

TEST_F(DownloaderTest, OtherStatusesFailAtOnce) {
  std::atomic<int> status = 0;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = status;
    reply.set_content("because", "text/plain");
  });
  for (const auto& [code, expected] :
       std::vector<std::pair<int, absl::StatusCode>>{{401, absl::StatusCode::kPermissionDenied},
                                                     {403, absl::StatusCode::kPermissionDenied},
                                                     {404, absl::StatusCode::kNotFound},
                                                     {400, absl::StatusCode::kUnknown}}) {
    status = code;
    const absl::Status error = Error({.url = server.url("/f")});
    EXPECT_EQ(error.code(), expected);
    EXPECT_EQ(Message(error),
              absl::StrCat("GET ", server.url("/f"), ": status ", code, ": because"));
  }
  EXPECT_EQ(server.requests().size(), 4u);
}

TEST_F(DownloaderTest, TooLargeIsSeenInTheHeaderAndOnTheWay) {
  RawServer announced([](const std::string&) {
    return Answer("200 OK\r\nContent-Length: 99999999999", Content(100));
  });
  RawServer unannounced([](const std::string&) { return Answer("200 OK", Content(5000)); });
  for (const std::string& url : {announced.url(), unannounced.url()}) {
    const absl::Status status = Error({.url = url, .max_bytes = 4000});
    EXPECT_TRUE(absl::IsResourceExhausted(status));
    EXPECT_EQ(Message(status), absl::StrCat("GET ", url, ": larger than 4000 bytes"));
  }
  ExpectWhole(Get({.url = unannounced.url(), .max_bytes = 5000}), Content(5000));
}

TEST_F(DownloaderTest, HeadersWithoutEndAreAnError) {
  RawServer server([](const std::string&) {
    std::string answer = "HTTP/1.1 200 OK\r\n";
    while (answer.size() < 1'000'000) absl::StrAppend(&answer, "X-More: ", answer.size(), "\r\n");
    return answer;
  });
  const absl::Status status = Error({.url = server.url()});
  EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("headers larger than"));
}

TEST_F(DownloaderTest, ASilentServerIsLeft) {
  std::atomic<bool> over = false;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.set_content_provider(100'000, "text/plain",
                               [&](size_t at, size_t, httplib::DataSink& sink) {
                                 if (at == 0) return sink.write("x", 1);
                                 while (!over) std::this_thread::yield();
                                 return false;
                               });
  });
  options_.retry_limit = absl::ZeroDuration();
  const absl::Status status = Error({.url = server.url(), .timeout = absl::Milliseconds(100)});
  over = true;
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
}

TEST_F(DownloaderTest, AFolderThatIsNotThereIsAnError) {
  EXPECT_TRUE(absl::IsNotFound(
      Downloader(options_, clock_)
          .Download({.url = "http://127.0.0.1:1/", .to = temp_ / "none/f"}, nullptr)
          .status()));
  EXPECT_TRUE(absl::IsInvalidArgument(Error({.url = "ftp://127.0.0.1/f"})));
}

TEST_F(DownloaderTest, CancellationEndsATransferAndAPause) {
  std::atomic<bool> cancelled = false;
  is_cancelled_ = [&] { return cancelled.load(); };
  RawServer failing([&](const std::string&) {
    cancelled = true;
    return Answer("503 Busy\r\nContent-Length: 0", "");
  });
  EXPECT_TRUE(absl::IsCancelled(Error({.url = failing.url()})));
  cancelled = false;
  TestHttpServer hanging([&](const httplib::Request&, httplib::Response& reply) {
    reply.set_content_provider(100'000, "text/plain",
                               [&](size_t at, size_t, httplib::DataSink& sink) {
                                 cancelled = true;
                                 return at == 0 && sink.write("x", 1);
                               });
  });
  EXPECT_TRUE(absl::IsCancelled(Error({.url = hanging.url()})));
}

// --- Tokens --------------------------------------------------------------------------------------

TEST_F(DownloaderTest, TheTokenGoesToKnownOriginsOnly) {
  std::string authorization;
  const auto answer = [&](const std::string& head) {
    authorization = HeaderOf(head, "Authorization");
    return Answer("200 OK\r\nContent-Length: 0", "");
  };
  RawServer ours(answer), destination(answer), other(answer);
  options_.token = "canary";
  options_.token_urls = {ours.url("/base"), destination.url("/results")};
  for (const auto& [url, expected] :
       std::vector<std::pair<std::string, std::string>>{{ours.url("/f"), "Bearer canary"},
                                                        {destination.url("/f"), "Bearer canary"},
                                                        {other.url("/f"), ""}}) {
    ASSERT_TRUE(Get({.url = url}).ok());
    EXPECT_EQ(authorization, expected) << url;
  }
  ASSERT_TRUE(Get({.url = ours.url("/f"), .headers = {{"authorization", "Basic own"}}}).ok());
  EXPECT_EQ(authorization, "");  // it is sent as it was written: in lower case
  options_.token_without_origin = true;
  ASSERT_TRUE(Get({.url = other.url("/f")}).ok());
  EXPECT_EQ(authorization, "") << "some origin is known";
  options_.token_urls = {"", ""};
  ASSERT_TRUE(Get({.url = other.url("/f")}).ok());
  EXPECT_EQ(authorization, "Bearer canary");
  options_.token_without_origin = false;
  ASSERT_TRUE(Get({.url = other.url("/f")}).ok());
  EXPECT_EQ(authorization, "");
}

TEST_F(DownloaderTest, NoTokenFollowsARedirectToAnotherHost) {
  std::string authorization = "none came";
  RawServer other([&](const std::string& head) {
    authorization = HeaderOf(head, "Authorization");
    return Answer("200 OK\r\nContent-Length: 4", "here");
  });
  RawServer ours([&](const std::string&) {
    return Answer("302 Found\r\nContent-Length: 0\r\nLocation: " + other.url("/f"), "");
  });
  options_.token = "canary";
  options_.token_urls = {ours.url()};
  ExpectWhole(Get({.url = ours.url("/f")}), "here");
  EXPECT_EQ(authorization, "");
}

TEST_F(DownloaderTest, ErrorsHoldNoSecret) {
  options_.token = "canary-token";
  RawServer server([](const std::string&) {
    return Answer("401 No\r\nContent-Length: 38", "canary-token canary-key canary-password");
  });
  options_.token_urls = {server.url()};
  std::string url = server.url("/f?key=canary-query");
  url.replace(0, 7, "http://user:canary-password@");
  const absl::Status status = Error({.url = url, .headers = {{"X-Key", "canary-key"}}});
  EXPECT_THAT(Message(status), Not(HasSubstr("canary")));
}

}  // namespace
}  // namespace flowmesh
