#include "executors/retrieval/qdrant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "absl/strings/str_cat.h"
#include "common/endpoint.h"
#include "common/test_certificate.h"
#include "common/test_listener.h"
#include "executors/retrieval/fake_qdrant.h"

namespace flowmesh::retrieval {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr char kKey[] = "canary-key-93417";

class QdrantTest : public testing::Test {
 protected:
  QdrantTest() {
    qdrant_.collections["hand book"] = {.size = 2,
                                        .points = {{7, {1, 0}, {{"text", "leave"}}},
                                                   {"b-2", {0, 1}, nullptr},
                                                   {9, {0.6f, 0.8f}, {{"text", "travel"}}}}};
    options_ = {.url = qdrant_.url(),
                .collection = "hand book",
                .limit = 2,
                .retry_limit = absl::Seconds(5)};
  }

  absl::StatusOr<Json> Search(std::vector<float> vector) {
    return QdrantClient(options_).Search({.vector = std::move(vector)});
  }
  absl::Status Error() {
    const absl::Status status = Search({1, 0}).status();
    EXPECT_THAT(Message(status), Not(HasSubstr(kKey)));
    return status;
  }

  FakeQdrant qdrant_;
  QdrantOptions options_;
};

TEST_F(QdrantTest, TheNearestPointsComeFirst) {
  options_.url += "/";
  const auto items = Search({1, 0});
  ASSERT_TRUE(items.ok()) << items.status();
  ASSERT_EQ(items->size(), 2u);
  EXPECT_EQ((*items)[0], (Json{{"id", 7}, {"score", 1.0}, {"payload", {{"text", "leave"}}}}));
  EXPECT_EQ((*items)[1]["id"], 9);
  EXPECT_NEAR((*items)[1]["score"].get<double>(), 0.6, 1e-6);
  options_.limit = 3;
  EXPECT_EQ((*Search({0, 1}))[0], (Json{{"id", "b-2"}, {"score", 1.0}, {"payload", nullptr}}));
  EXPECT_EQ(qdrant_.requests()[0].path, "/collections/hand book/points/query");  // decoded
}

TEST_F(QdrantTest, TheKeyIsAHeader) {
  qdrant_.api_key = options_.api_key = kKey;
  ASSERT_TRUE(Search({1, 0}).ok());
  options_.api_key = "canary-key-of-another";
  const absl::Status wrong = Error();
  EXPECT_EQ(wrong.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(Message(wrong),
              AllOf(HasSubstr("Qdrant at http://127.0.0.1:"), HasSubstr("scheme http, host 127.0"),
                    HasSubstr("collection 'hand book', API key set"), HasSubstr("answered 401"),
                    HasSubstr("Must provide an API key"), Not(HasSubstr("canary-key-of"))));
  options_.api_key.clear();
  EXPECT_THAT(Message(Error()), HasSubstr("API key not set"));
}

// A real server of TLS whose certificate no system knows.
class TlsServer {
 public:
  TlsServer() {
    server_.Post(".*", [](const httplib::Request&, httplib::Response& reply) {
      reply.set_content(R"({"result": {"points": [{"id": 1, "score": 0.5}]}})", "application/json");
    });
    port_ = server_.bind_to_any_port("127.0.0.1");
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~TlsServer() {
    server_.stop();
    thread_.join();
  }

  std::string url() const { return absl::StrCat("https://127.0.0.1:", port_); }
  std::string certificate() const { return certificate_.file(); }

 private:
  Certificate certificate_{"IP:127.0.0.1"};
  httplib::SSLServer server_{certificate_.file().c_str(), certificate_.key().c_str()};
  int port_ = -1;
  std::thread thread_;
};

TEST_F(QdrantTest, AnAuthorityMayBeNamed) {
  const TlsServer server;
  options_.url = server.url();
  options_.retry_limit = absl::ZeroDuration();
  const absl::Status unknown = Error();
  EXPECT_TRUE(absl::IsUnavailable(unknown)) << unknown;
  EXPECT_THAT(Message(unknown), AllOf(HasSubstr("scheme https"), HasSubstr("certificate")));
  options_.ca_cert = server.certificate();
  const auto items = Search({1, 0});
  ASSERT_TRUE(items.ok()) << items.status();
  EXPECT_EQ((*items)[0]["id"], 1);
  const Certificate another("IP:127.0.0.1");
  options_.ca_cert = another.file();
  EXPECT_THAT(Message(Error()), HasSubstr("certificate"));
}

TEST_F(QdrantTest, NamedVectors) {
  qdrant_.collections["hand book"].name = "title";
  EXPECT_THAT(Message(Error()), HasSubstr("Not existing vector name"));
  options_.using_name = "title";
  ASSERT_TRUE(Search({1, 0}).ok());
  qdrant_.is_old = true;
  ASSERT_TRUE(Search({1, 0}).ok());
}

TEST_F(QdrantTest, AnOldServerIsAskedByItsOwnPathFromThenOn) {
  qdrant_.is_old = true;
  QdrantClient client(options_);
  for (int i = 0; i < 2; ++i) {
    const auto items = client.Search({.vector = {1, 0}});
    ASSERT_TRUE(items.ok()) << items.status();
    EXPECT_EQ((*items)[0]["id"], 7);
  }
  std::vector<std::string> actions;
  for (const httplib::Request& request : qdrant_.requests()) {
    actions.push_back(request.path.substr(request.path.rfind('/') + 1));
  }
  EXPECT_THAT(actions, testing::ElementsAre("query", "search", "search"));
}

TEST_F(QdrantTest, TheServerEmbedsATextItself) {
  qdrant_.models["its/model"]["How do I book leave?"] = {1, 0};
  QdrantClient client(options_);
  const auto items = client.Search({.text = "How do I book leave?", .model = "its/model"});
  ASSERT_TRUE(items.ok()) << items.status();
  EXPECT_EQ((*items)[0]["id"], 7);
  EXPECT_THAT(Message(client.Search({.text = "x", .model = "other"}).status()),
              HasSubstr("unknown model"));
}

TEST_F(QdrantTest, AMissingCollectionIsSaid) {
  options_.collection = "attic";
  const absl::Status status = Error();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Message(status), AllOf(HasSubstr("collection 'attic'"),
                                     HasSubstr("Collection `attic` doesn't exist")));
}

TEST_F(QdrantTest, ASizeThatDiffersNamesBoth) {
  const absl::Status status = Search({1, 0, 0}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(Message(status), HasSubstr("the vectors of the embedding model have 3 components, "
                                         "those of the collection 2"));
}

TEST_F(QdrantTest, WhatMayPassIsTriedAgain) {
  for (const int status : {429, 500, 503}) {
    qdrant_.failures = 2;
    qdrant_.failure_status = status;
    EXPECT_TRUE(Search({1, 0}).ok()) << status;
  }
  qdrant_.failures = 100;
  options_.retry_limit = absl::ZeroDuration();
  const absl::Status given_up = Error();
  EXPECT_EQ(given_up.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(given_up), HasSubstr("answered 503"));
  // What will not pass is not.
  const size_t before = qdrant_.requests().size();
  qdrant_.failures = 1;
  qdrant_.failure_status = 403;
  EXPECT_EQ(Error().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(qdrant_.requests().size(), before + 1);
}

TEST_F(QdrantTest, NobodyListens) {
  options_.url = absl::StrCat("http://user:", kKey, "@127.0.0.1:", FreeLoopbackPort().value());
  options_.retry_limit = absl::ZeroDuration();
  const absl::Status status = Error();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(Message(status), HasSubstr("Qdrant at http://127.0.0.1:"));
}

TEST_F(QdrantTest, AddressesThatServeCredentialsAreRefused) {
  options_.timeout = absl::Milliseconds(200);
  options_.retry_limit = absl::ZeroDuration();
  for (const char* host : {"169.254.169.254", "168.63.129.16", "[fd00:ec2::254]"}) {
    options_.url = absl::StrCat("http://", host, ":6333");
    const absl::Status status = Error();
    EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied) << status;
    EXPECT_THAT(Message(status), HasSubstr("may not be connected to"));
  }
}

TEST_F(QdrantTest, AServerThatSaysNothingIsGivenUp) {
  const TestListener silent;
  options_.url = absl::StrCat("http://127.0.0.1:", silent.port());
  options_.timeout = absl::Milliseconds(100);
  options_.retry_limit = absl::ZeroDuration();
  EXPECT_EQ(Error().code(), absl::StatusCode::kDeadlineExceeded);
}

TEST_F(QdrantTest, StopsWhileItWaitsForAnotherTry) {
  qdrant_.failures = 1000;
  options_.is_cancelled = [this] { return qdrant_.requests().size() >= 1; };
  EXPECT_EQ(Error().code(), absl::StatusCode::kCancelled);
}

TEST(QdrantAnswerTest, OfAnotherFormIsAnError) {
  std::string body;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.set_content(body, "application/json");
  });
  QdrantClient client({.url = server.url(), .collection = "c"});
  const auto error = [&](const std::string& text) {
    body = text;
    const absl::Status status = client.Search({.vector = {1}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    return Message(status);
  };
  EXPECT_THAT(error("<html>"), HasSubstr("an answer of another form"));
  EXPECT_THAT(error("{}"), HasSubstr("result: expected a list of points, got nothing"));
  EXPECT_THAT(error(R"({"result": {"points": [{"id": 1.5, "score": 1}]}})"),
              HasSubstr("result.points[0].id: expected an integer or a string, got 1.5"));
  EXPECT_THAT(error(R"({"result": [{"id": 1}]})"), HasSubstr("result[0].score: expected"));
}

}  // namespace
}  // namespace flowmesh::retrieval
