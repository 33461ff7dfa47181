#include "common/http.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/notification.h"
#include "common/clock.h"
#include "common/endpoint.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "common/test_listener.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

HttpRequest Request(const std::string& method, const std::string& url,
                    const std::string& body = "") {
  HttpRequest request;
  request.method = method;
  request.url = url;
  request.body = body;
  return request;
}

absl::StatusOr<HttpResponse> Send(const HttpRequest& request) { return HttpClient().Send(request); }

absl::Status Error(const HttpRequest& request) {
  const absl::StatusOr<HttpResponse> response = Send(request);
  EXPECT_FALSE(response.ok()) << "status " << response->status;
  return response.status();
}

TestHttpServer::Handler Text(const std::string& text) {
  return [=](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(text, "text/plain");
  };
}

// An answer that promises 100 bytes and ends after 3.
void BreakOff(const httplib::Request&, httplib::Response& reply) {
  reply.set_content_provider(100, "text/plain", [](size_t offset, size_t, httplib::DataSink& sink) {
    if (offset > 0) return false;
    return sink.write("abc", 3);
  });
}

// --- Requests and answers ------------------------------------------------------------------------

TEST(HttpTest, AnyStatusIsAnAnswer) {
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    reply.status = std::stoi(request.path.substr(1));
    reply.set_header("X-Some", "one");
    reply.set_header("X-Some", "two");
    reply.set_content("body", "text/plain");
  });
  for (const int status : {200, 201, 304, 302, 400, 404, 422, 500, 503}) {  // 302: without Location
    const absl::StatusOr<HttpResponse> response =
        Send(Request("GET", server.url(absl::StrCat("/", status))));
    ASSERT_TRUE(response.ok()) << response.status();
    EXPECT_EQ(response->status, status);
    EXPECT_EQ(response->body, status == 304 ? "" : "body");
    EXPECT_EQ(response->Header("x-some"), "one");
    EXPECT_EQ(response->Header("X-SOME"), "one");
    EXPECT_EQ(response->headers.count("x-some"), 2u);
    EXPECT_EQ(response->Header("x-other"), "");
  }
}

TEST(HttpTest, MethodsBodiesAndHeadersArrive) {
  TestHttpServer server(Text("ok"));
  const std::string body("a\0b\xff", 4);
  for (const char* method : {"GET", "POST", "PUT", "PATCH", "DELETE"}) {
    HttpRequest request = Request(method, server.url("/p/q?x=1&y=%20"), body);
    request.headers = {{"X-A", "text: with; signs"}};
    ASSERT_TRUE(Send(request).ok()) << method;
    const httplib::Request got = server.requests().back();
    EXPECT_EQ(got.method, method);
    EXPECT_EQ(got.target, "/p/q?x=1&y=%20");
    EXPECT_EQ(got.get_header_value("X-A"), "text: with; signs");
    EXPECT_FALSE(got.has_header("Expect"));
    EXPECT_EQ(got.body, got.method == "GET" ? "" : body) << method;  // httplib reads none of a GET
  }
}

TEST(HttpTest, WithoutABodyOnlyAPostSaysSo) {
  TestHttpServer server(Text("ok"));
  ASSERT_TRUE(Send(Request("POST", server.url())).ok());
  EXPECT_EQ(server.requests().back().get_header_value("Content-Length"), "0");
  ASSERT_TRUE(Send(Request("GET", server.url())).ok());
  EXPECT_FALSE(server.requests().back().has_header("Content-Length"));
}

TEST(HttpTest, AHeadHasHeadersOnly) {
  TestHttpServer server(Text("four"));
  const HttpResponse response = Send(Request("HEAD", server.url())).value();
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(response.Header("Content-Length"), "4");
  EXPECT_EQ(response.body, "");
}

TEST(HttpTest, AClientSendsOneRequestAfterTheOther) {
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    reply.set_content(request.method + request.body, "text/plain");
  });
  HttpClient client;
  EXPECT_EQ(client.Send(Request("POST", server.url(), "x")).value().body, "POSTx");
  EXPECT_EQ(client.Send(Request("HEAD", server.url())).value().body, "");
  EXPECT_EQ(client.Send(Request("GET", server.url())).value().body, "GET");
  EXPECT_EQ(client.Send(Request("PUT", server.url(), "y")).value().body, "PUTy");
}

TEST(HttpTest, AFilePartIsStreamedWithAKnownLength) {
  TempDir temp;
  const std::string content = std::string(3 << 20, 'x') + std::string("\0\r\n--", 5);
  ASSERT_TRUE(WriteFileAtomically(temp / "local name", content).ok());
  TestHttpServer server(Text("ok"));
  HttpRequest request = Request("POST", server.url("/files"));
  request.file_part = HttpRequest::FilePart{.path = temp / "local name",
                                            .file_name = "größe \"1\".jsonl",
                                            .content_type = "application/json"};
  ASSERT_TRUE(Send(request).ok());
  const httplib::Request got = server.requests().back();
  EXPECT_THAT(got.get_header_value("Content-Type"), StartsWith("multipart/form-data; boundary="));
  EXPECT_TRUE(got.has_header("Content-Length"));
  EXPECT_FALSE(got.has_header("Transfer-Encoding"));
  ASSERT_THAT(got.files, SizeIs(1));
  const httplib::MultipartFormData part = got.get_file_value("file");
  EXPECT_EQ(part.content_type, "application/json");
  EXPECT_THAT(part.filename, StartsWith("größe "));
  EXPECT_TRUE(part.content == content);

  request.file_part->path = temp / "none";
  const absl::Status missing = Error(request);
  EXPECT_TRUE(absl::IsNotFound(missing));
  EXPECT_EQ(Message(missing),
            "cannot read " + (temp / "none").string() + ": No such file or directory");
}

// --- Redirects -----------------------------------------------------------------------------------

TEST(HttpTest, RedirectsAreFollowedWithMethodBodyAndFile) {
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "f", "content").ok());
  for (const int status : {301, 302, 303, 307, 308}) {
    TestHttpServer server([=](const httplib::Request& request, httplib::Response& reply) {
      if (request.path == "/a/end") return;
      reply.status = status;
      reply.set_header("Location", request.path == "/a/start" ? "next" : "/a/end?q=1");
    });
    ASSERT_TRUE(Send(Request("PATCH", server.url("/a/start"), "body")).ok());
    ASSERT_THAT(server.requests(), SizeIs(3)) << status;
    const httplib::Request last = server.requests()[2];
    EXPECT_EQ(last.method, "PATCH") << status;
    EXPECT_EQ(last.target, "/a/end?q=1") << status;
    EXPECT_EQ(last.body, "body") << status;

    HttpRequest upload = Request("POST", server.url("/a/start"));
    upload.file_part = HttpRequest::FilePart{.path = temp / "f", .file_name = "f"};
    ASSERT_TRUE(Send(upload).ok());
    EXPECT_EQ(server.requests()[5].get_file_value("file").content, "content") << status;
  }
}

TEST(HttpTest, WhoAsksStaysWithItsOrigin) {
  TestHttpServer other(Text("other"));
  TestHttpServer first([&](const httplib::Request& request, httplib::Response& reply) {
    if (request.path == "/end") return;
    reply.status = 302;
    reply.set_header("Location", request.path == "/here" ? "/end" : other.url());
  });
  HttpRequest request = Request("GET", first.url("/here"));
  request.headers = {{"authorization", "Bearer secret"},
                     {"Cookie", "secret"},
                     {"X-Api-Key", "secret"},
                     {"Accept", "text/csv"}};
  ASSERT_TRUE(Send(request).ok());
  EXPECT_TRUE(first.requests()[1].has_header("Authorization"));
  EXPECT_TRUE(first.requests()[1].has_header("Cookie"));
  EXPECT_TRUE(first.requests()[1].has_header("X-Api-Key"));
  request.url = first.url("/there");
  EXPECT_EQ(Send(request).value().body, "other");
  EXPECT_FALSE(other.requests()[0].has_header("Authorization"));
  EXPECT_FALSE(other.requests()[0].has_header("Cookie"));
  EXPECT_FALSE(other.requests()[0].has_header("X-Api-Key"));
  EXPECT_EQ(other.requests()[0].get_header_value("Accept"), "text/csv");
  request.stays_at_origin = true;
  EXPECT_EQ(Send(request).value().status, 302);
  EXPECT_THAT(other.requests(), SizeIs(1));
  request.url = first.url("/here");
  EXPECT_EQ(Send(request).value().status, 200);
}

TEST(HttpTest, RedirectsDoNotGiveMoreTime) {
  absl::Mutex mutex;
  bool is_over = false;
  int hops = 0;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    absl::MutexLock lock(&mutex);
    ++hops;
    mutex.AwaitWithTimeout(absl::Condition(&is_over), absl::Milliseconds(300));
    reply.set_redirect("/again");
  });
  HttpRequest request = Request("GET", server.url("/"));
  request.total_timeout = absl::Milliseconds(500);
  request.max_redirects = 100;
  const absl::Status status = Error(request);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
  EXPECT_THAT(Message(status), HasSubstr("not over within 500ms"));
  absl::MutexLock lock(&mutex);
  is_over = true;
  EXPECT_LE(hops, 2);
}

TEST(HttpTest, RedirectsAreBoundedAndStayHttp) {
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    reply.status = 302;
    reply.set_header("Location", request.path == "/file" ? "file:///etc/passwd" : "/again");
  });
  HttpRequest request = Request("GET", server.url("/loop"));
  request.max_redirects = 2;
  const absl::Status loop = Error(request);
  EXPECT_TRUE(absl::IsUnavailable(loop));
  EXPECT_EQ(Message(loop), server.url() + ": more than 2 redirects");
  EXPECT_THAT(server.requests(), SizeIs(3));
  const absl::Status file = Error(Request("GET", server.url("/file")));
  EXPECT_TRUE(absl::IsUnavailable(file));
  EXPECT_THAT(Message(file), HasSubstr("redirected to something that is no http(s) URL"));
}

// --- Failures ------------------------------------------------------------------------------------

TEST(HttpTest, WhatIsNoHttpUrlIsRefused) {
  for (const char* url :
       {"", "host/path", "ftp://host/x", "file:///etc/passwd", "http://", "http//x"}) {
    const absl::Status status = Error(Request("GET", url));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << url << ": " << status;
    EXPECT_EQ(Message(status), "expected an http:// or https:// URL");
  }
}

TEST(HttpTest, ErrorsNameTheOriginAndNoSecret) {
  const std::string port = absl::StrCat(FreeLoopbackPort().value());
  const absl::Status refused =
      Error(Request("GET", "http://user:canary@127.0.0.1:" + port + "/p?token=canary"));
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(Message(refused),
              AllOf(StartsWith("http://127.0.0.1:" + port + ": "), Not(HasSubstr("canary"))));
}

TEST(HttpTest, AnAnswerThatIsTooLargeIsRefused) {
  TestHttpServer server(Text(std::string(1000, 'x')));
  HttpRequest request = Request("GET", server.url());
  request.max_response_bytes = 1000;
  EXPECT_EQ(Send(request).value().body.size(), 1000u);
  request.max_response_bytes = 999;
  const absl::Status status = Error(request);
  EXPECT_TRUE(absl::IsResourceExhausted(status));
  EXPECT_EQ(Message(status), server.url() + ": answer larger than 999 bytes");
}

TEST(HttpTest, OfAnAnswerThatMattersLittleOnlyTheBeginningIsKept) {
  TestHttpServer server(Text("abc" + std::string(1000, 'x')));
  HttpRequest request = Request("GET", server.url());
  request.keep_response_bytes = 4;
  EXPECT_EQ(Send(request).value().body, "abcx");
  request.max_response_bytes = 500;  // the rest is not waited for
  EXPECT_EQ(Send(request).value().body, "abcx");
  EXPECT_EQ(Send(request).value().status, 200);
  request.keep_response_bytes = 0;
  EXPECT_EQ(Send(request).value().body, "");
}

TEST(HttpTest, AnAnswerThatMattersLittleAndDoesNotEndIsTakenAsItIs) {
  std::atomic<bool> over{false};
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.status = 503;
    reply.set_chunked_content_provider("text/plain", [&](size_t, httplib::DataSink& sink) {
      if (over) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      return sink.write("x", 1);
    });
  });
  HttpRequest request = Request("POST", server.url());
  request.body = "sent";
  request.timeout = absl::Milliseconds(300);
  request.keep_response_bytes = 4;
  const absl::StatusOr<HttpResponse> response = Send(request);
  over = true;
  ASSERT_TRUE(response.ok()) << response.status();
  EXPECT_EQ(response->status, 503);
  EXPECT_EQ(response->body, "xxxx");
}

TEST(HttpTest, AnAnswerThatBreaksOffIsNoAnswer) {
  TestHttpServer server(BreakOff);
  EXPECT_TRUE(absl::IsUnavailable(Error(Request("GET", server.url()))));
}

// What drips in without an end of the headers is no answer that goes on.
TEST(HttpTest, HeadersThatNeverEndAreSilence) {
  const TestListener listener;
  std::thread server([&] {
    const UniqueFd connection = listener.Accept();
    const std::string_view head = "HTTP/1.1 200 OK\r\n";
    ::send(connection.get(), head.data(), head.size(), MSG_NOSIGNAL);
    pollfd gone{connection.get(), POLLRDHUP, 0};
    // A header after the other, until the client hangs up.
    while (::poll(&gone, 1, 10) == 0) ::send(connection.get(), "X: y\r\n", 6, MSG_NOSIGNAL);
  });
  HttpRequest request = Request("GET", absl::StrCat("http://127.0.0.1:", listener.port(), "/"));
  request.timeout = absl::Milliseconds(200);
  EXPECT_TRUE(absl::IsDeadlineExceeded(Error(request)));
  server.join();
}

TEST(HttpTest, SilenceEndsARequest) {
  absl::Notification over;
  TestHttpServer server(
      [&](const httplib::Request&, httplib::Response&) { over.WaitForNotification(); });
  HttpRequest request = Request("GET", server.url());
  request.timeout = absl::Milliseconds(50);
  const absl::Status status = Error(request);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_EQ(Message(status), server.url() + ": no answer within 50ms");
  over.Notify();
}

// The time-out is for silence: an answer that goes on may take longer.
TEST(HttpTest, ASlowAnswerIsNoSilence) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.set_content_provider(10, "text/plain", [](size_t, size_t, httplib::DataSink& sink) {
      absl::SleepFor(absl::Milliseconds(150));
      return sink.write("x", 1);
    });
  });
  HttpRequest request = Request("GET", server.url());
  request.timeout = absl::Seconds(1);
  const absl::Duration before = Clock::Real().Monotonic();
  EXPECT_EQ(Send(request).value().body, "xxxxxxxxxx");
  EXPECT_GT(Clock::Real().Monotonic() - before, request.timeout);

  request.total_timeout = absl::Milliseconds(200);
  const absl::Status status = Error(request);
  EXPECT_TRUE(absl::IsDeadlineExceeded(status));
  EXPECT_EQ(Message(status), server.url() + ": not over within 200ms");
}

TEST(HttpTest, ARequestCanBeCancelled) {
  std::atomic<bool> cancelled = false;
  absl::Notification over;
  TestHttpServer server([&](const httplib::Request&, httplib::Response&) {
    cancelled = true;
    over.WaitForNotification();
  });
  HttpRequest request = Request("GET", server.url());
  request.cancelled = [&] { return cancelled.load(); };
  EXPECT_TRUE(absl::IsCancelled(Error(request)));
  over.Notify();
}

TEST(HttpTest, AddressesMayBeRefusedAlsoAfterARedirectAndOnAKeptConnection) {
  TestHttpServer there(Text("secret"));
  TestHttpServer here([&](const httplib::Request&, httplib::Response& reply) {
    reply.set_redirect(there.url(), 307);
  });
  std::vector<int> asked;
  HttpRequest request = Request("GET", here.url());
  request.may_connect = [&](const sockaddr& address) {
    asked.push_back(ntohs(reinterpret_cast<const sockaddr_in&>(address).sin_port));
    return asked.size() < 2;
  };
  const absl::Status refused = Error(request);
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
  EXPECT_EQ(Message(refused),
            absl::StrCat(there.url(), ": its address 127.0.0.1 may not be connected to"));
  EXPECT_THAT(asked, SizeIs(2));
  EXPECT_THAT(there.requests(), IsEmpty());

  HttpClient client;
  ASSERT_TRUE(client.Send(Request("GET", there.url())).ok());
  request.url = there.url();
  request.may_connect = [](const sockaddr&) { return false; };
  EXPECT_TRUE(absl::IsPermissionDenied(client.Send(request).status()));
  request.may_connect = [](const sockaddr&) { return true; };
  EXPECT_EQ(client.Send(request)->body, "secret");
}

// It would be the proxy that connects to the address in the URL.
TEST(HttpTest, AddressesInUrlsAreAskedForBeforeAProxyIs) {
  TestHttpServer proxy(Text("secret"));
  ::setenv("http_proxy", proxy.url().c_str(), 1);
  HttpRequest request = Request("GET", "http://192.0.2.7/");
  request.may_use_proxy = true;
  request.may_connect = [](const sockaddr& address) {
    return reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr != htonl(0xC0000207);
  };
  const absl::Status refused = Error(request);
  request.url = "http://192.0.2.8/";
  const auto answer = HttpClient().Send(request);
  ::unsetenv("http_proxy");
  EXPECT_TRUE(absl::IsPermissionDenied(refused)) << refused;
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->body, "secret");
  EXPECT_THAT(proxy.requests(), SizeIs(1));
}

TEST(HttpTest, AConnectionThatWasAskedForMayBeUsedAgain) {
  const TestListener listener;
  std::thread server([&] {
    const UniqueFd connection = listener.Accept();
    const std::string_view answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx";
    char request[4096];
    while (::recv(connection.get(), request, sizeof(request), 0) > 0) {
      ::send(connection.get(), answer.data(), answer.size(), MSG_NOSIGNAL);
    }
  });
  int asked = 0;
  {
    HttpRequest request = Request("GET", absl::StrCat("http://127.0.0.1:", listener.port(), "/"));
    request.timeout = absl::Seconds(1);
    request.may_connect = [&](const sockaddr&) { return ++asked > 0; };
    HttpClient client;
    request.may_reuse_connection = true;
    for (int i = 0; i < 3; ++i) EXPECT_TRUE(client.Send(request).ok());
  }  // hangs up
  server.join();
  EXPECT_EQ(asked, 1);
}

TEST(HttpTest, ConnectionsAreNotInherited) {
  TestHttpServer server(Text("x"));
  const int port = std::stoi(server.url().substr(server.url().rfind(':') + 1));
  HttpRequest request = Request("GET", server.url());
  int connections = 0;
  request.on_body = [&](const HttpResponse&, std::string_view) {
    for (int fd = 3; fd < 200; ++fd) {
      sockaddr_in peer{};
      socklen_t size = sizeof(peer);
      if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) != 0) continue;
      if (ntohs(peer.sin_port) != port) continue;
      ++connections;
      EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
    }
    return absl::OkStatus();
  };
  ASSERT_TRUE(Send(request).ok());
  EXPECT_EQ(connections, 1);
}

TEST(HttpTest, ABodyLeavesInThePiecesThatMayGo) {
  TempDir temp;
  const std::string content = std::string(60'000, 'x') + std::string(60'000, 'y');
  ASSERT_TRUE(WriteFileAtomically(temp / "f", content).ok());
  TestHttpServer server(Text("ok"));
  size_t pieces = 0, most = 0;
  HttpRequest request = Request("POST", server.url(), content);
  request.headers = {{"Content-Type", "text/plain"}};
  request.pace = [&](size_t bytes) {
    ++pieces;
    most = std::max(most, bytes);
    return std::min<size_t>(bytes, 1000);
  };
  ASSERT_TRUE(Send(request).ok());
  EXPECT_EQ(pieces, 120u);
  EXPECT_GT(most, 1000u);
  request.headers.clear();
  request.file_part = HttpRequest::FilePart{.path = temp / "f", .file_name = "f"};
  ASSERT_TRUE(Send(request).ok());
  EXPECT_EQ(pieces, 240u);
  ASSERT_THAT(server.requests(), SizeIs(2));
  EXPECT_TRUE(server.requests()[0].body == content);
  EXPECT_TRUE(server.requests()[1].get_file_value("file").content == content);
}

TEST(HttpTest, APaceOfNothingEndsTheTransfer) {
  TestHttpServer server(Text("ok"));
  HttpRequest request = Request("POST", server.url(), "body");
  request.pace = [](size_t) { return 0; };
  EXPECT_TRUE(absl::IsCancelled(Error(request)));
  EXPECT_THAT(server.requests(), IsEmpty());
}

TEST(HttpTest, AFileThatGetsShorterWhileItIsSentEndsTheTransfer) {
  TempDir temp;
  ASSERT_TRUE(WriteFileAtomically(temp / "f", std::string(300'000, 'x')).ok());
  TestHttpServer server(Text("ok"));
  HttpRequest request = Request("POST", server.url());
  request.file_part = HttpRequest::FilePart{.path = temp / "f", .file_name = "f"};
  request.pace = [&](size_t bytes) {
    fs::resize_file(temp / "f", 100'000);
    return bytes;
  };
  EXPECT_EQ(Message(Error(request)), (temp / "f").string() + ": changed while it was sent");
  EXPECT_THAT(server.requests(), IsEmpty());
}

// --- Bodies in pieces ----------------------------------------------------------------------------

TEST(HttpTest, ABodyMayBeTakenInPieces) {
  const std::string content(1 << 20, 'x');
  TestHttpServer server(Text(content));
  HttpRequest request = Request("GET", server.url());
  request.max_response_bytes = 10;  // of the answer in memory
  std::string got;
  request.on_body = [&](const HttpResponse& head, std::string_view piece) {
    EXPECT_EQ(head.status, 200);
    EXPECT_EQ(head.Header("Content-Length"), "1048576");
    got.append(piece);
    return absl::OkStatus();
  };
  EXPECT_EQ(Send(request).value().body, "");
  EXPECT_TRUE(got == content);

  request.on_body = [](const HttpResponse&, std::string_view) {
    return absl::ResourceExhaustedError("no room");
  };
  EXPECT_EQ(Error(request), absl::ResourceExhaustedError("no room"));
}

TEST(HttpTest, TheBodyOfAnErrorIsKeptWhole) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.status = 404;
    reply.set_content("no such file", "text/plain");
  });
  HttpRequest request = Request("GET", server.url("/none"));
  request.on_body = [](const HttpResponse&, std::string_view) {
    ADD_FAILURE();
    return absl::OkStatus();
  };
  EXPECT_EQ(Send(request).value().body, "no such file");
}

// --- Origins -------------------------------------------------------------------------------------

TEST(HttpTest, PercentEncoding) {
  EXPECT_EQ(PercentEncoded("aZ09-_.~"), "aZ09-_.~");
  EXPECT_EQ(PercentEncoded("a/b c?\xc3\xa9"), "a%2Fb%20c%3F%C3%A9");
  EXPECT_EQ(PercentEncoded("a/b c", "/"), "a/b%20c");
}

TEST(HttpTest, OriginsHaveTheirPortInThem) {
  EXPECT_EQ(UrlOrigin("http://Host/path?q#f"), "http://host:80");
  EXPECT_EQ(UrlOrigin("HTTPS://host"), "https://host:443");
  EXPECT_EQ(UrlOrigin("https://user:password@host:8443/"), "https://host:8443");
  EXPECT_EQ(UrlOrigin("http://[::1]:5/x"), "http://[::1]:5");
  EXPECT_EQ(UrlOrigin("http://host:80/a"), UrlOrigin("http://host/b"));
  EXPECT_NE(UrlOrigin("http://host"), UrlOrigin("https://host"));
  EXPECT_NE(UrlOrigin("http://host"), UrlOrigin("http://host.evil"));
  for (const char* other :
       {"", "host", "host/path", "ftp://host", "file:///x", "http://", "http://host:port"}) {
    EXPECT_EQ(UrlOrigin(other), "") << other;
  }
}

}  // namespace
}  // namespace flowmesh
