#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/clock.h"
#include "common/test_http_server.h"
#include "executors/agent/tools/catalogue.h"
#include "executors/agent/tools/toolbox.h"
#include "executors/retrieval/test_pdf.h"

namespace flowmesh::agent {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

class WebToolsTest : public ::testing::Test {
 protected:
  void Add(const std::string& name, const Json& options, bool allow_private = true) {
    const auto tools =
        MakeTools({.name = name, .options = options, .path = "tools[0]"},
                  {.env = [this](std::string_view key) -> std::optional<std::string> {
                     const auto it = env_.find(std::string(key));
                     return it == env_.end() ? std::nullopt : std::optional(it->second);
                   },
                   .allow_private_addresses = allow_private,
                   .warn = [](const std::string& text) { ADD_FAILURE() << text; }});
    ASSERT_TRUE(tools.ok()) << tools.status();
    for (const auto& tool : *tools) ASSERT_TRUE(box_.Add(tool).ok());
  }
  std::string Call(const std::string& name, const Json& arguments) {
    return box_
        .Call({.name = name, .arguments = DumpJson(arguments)},
              {.deadline = Clock::Real().Monotonic() + absl::Seconds(20)})
        ->text;
  }
  static TestHttpServer::Handler Content(const std::string& body, const std::string& type) {
    return
        [=](const httplib::Request&, httplib::Response& reply) { reply.set_content(body, type); };
  }

  std::map<std::string, std::string> env_;
  Toolbox box_{100000};
};

TEST_F(WebToolsTest, SearchIsAskedAndWritten) {
  TestHttpServer server(Content(R"({"answerBox": {"answer": "42", "link": "http://a"},
      "knowledgeGraph": {"title": "T", "description": "D"},
      "organic": [{"title": "One", "link": "http://one", "snippet": "first", "date": "1 May"},
                  {"title": "Two", "link": "http://two"}]})",
                                "application/json"));
  env_["SERPER_API_KEY"] = "key";
  Add("web_search", {{"base_url", server.url()}, {"results", 2}});
  EXPECT_EQ(Call("web_search", {{"query", "life"}}),
            "Answer: 42\nhttp://a\n\nT: D\n\n1. One\nhttp://one\n1 May: first\n\n2. Two\n"
            "http://two");
  ASSERT_THAT(server.requests(), SizeIs(1));
  EXPECT_EQ(server.requests()[0].path, "/search");
  EXPECT_EQ(server.requests()[0].get_header_value("X-API-KEY"), "key");
  EXPECT_EQ(ParseJson(server.requests()[0].body).value(), (Json{{"q", "life"}, {"num", 2}}));
}

TEST_F(WebToolsTest, AServersFailureIsToldWithoutTheKey) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.status = 403;
    reply.set_content("bad key canary-key", "text/plain");
  });
  env_["SERPER_API_KEY"] = "canary-key";
  Add("web_search", {{"base_url", server.url()}});
  EXPECT_EQ(Call("web_search", {{"query", "x"}}),
            absl::StrCat("error: ", server.url(), ": HTTP 403: bad key ***"));
}

TEST_F(WebToolsTest, AKeyDoesNotFollowARedirect) {
  TestHttpServer other(Content("{}", "application/json"));
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    reply.set_redirect(other.url(), 307);
  });
  env_["SERPER_API_KEY"] = "canary-key";
  Add("web_search", {{"base_url", server.url()}});
  EXPECT_THAT(Call("web_search", {{"query", "x"}}), HasSubstr("HTTP 307"));
  EXPECT_THAT(other.requests(), IsEmpty());
}

TEST_F(WebToolsTest, APageIsReadAsText) {
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    if (request.path == "/moved") return reply.set_redirect("/page", 302);
    if (request.path == "/far") return reply.set_redirect("/folder/page", 302);
    if (request.path == "/folder/page") return reply.set_content("<a href='y'>y</a>", "text/html");
    if (request.path == "/latin")
      return reply.set_content("caf\xE9", "text/plain; charset=ISO-8859-1");
    if (request.path == "/image") return reply.set_content("x", "image/png");
    if (request.path == "/long") return reply.set_content(std::string(25000, 'x'), "text/plain");
    if (request.path == "/once") return reply.set_content("{\"a\": 1}", "application/json");
    if (request.path == "/paper") {
      return reply.set_content(retrieval::TestPdf("printed words"), "application/pdf");
    }
    if (request.path == "/broken") return reply.set_content("no PDF", "application/pdf");
    if (request.path != "/page") {
      reply.status = 404;
      return;
    }
    reply.set_content("<title>T</title><h1>H</h1><p>x <a href='/y'>y</a>", "text/html");
  });
  Add("read_page", Json::object());
  const auto read = [&](const std::string& path) {
    return Call("read_page", {{"url", server.url(path)}});
  };
  const std::string page = absl::StrCat("T\n\n# H\n\nx [y](", server.url("/y"), ")");
  EXPECT_EQ(read("/page"), page);
  EXPECT_EQ(read("/moved"), page);
  EXPECT_EQ(read("/far"), absl::StrCat("[y](", server.url("/folder/y"), ")"));
  EXPECT_EQ(read("/latin"), "caf\xC3\xA9");
  EXPECT_EQ(read("/once"), "{\"a\": 1}");
  EXPECT_EQ(read("/image"), "error: the page is image/png; HTML, text and PDFs can be read");
  EXPECT_EQ(read("/paper"), "printed words");
  EXPECT_EQ(read("/broken"), "error: expected a PDF, got something else");
  EXPECT_THAT(read("/none"), HasSubstr("HTTP 404"));
  EXPECT_THAT(read("/long"), HasSubstr("[bytes 0 to 20000 of 25000; read on with start 20000]"));
  const std::string rest = Call("read_page", {{"url", server.url("/long")}, {"start", 20000}});
  EXPECT_EQ(rest, std::string(5000, 'x') + "\n[bytes 20000 to 25000 of 25000]");
  EXPECT_EQ(Call("read_page", {{"url", "file:///etc/passwd"}}),
            "error: url: expected an http:// or https:// URL");
}

// By address, by name, and after a redirect of a server that may be asked.
TEST_F(WebToolsTest, ThisMachineAndItsNetworkAreOutOfReach) {
  TestHttpServer server(Content("secret", "text/plain"));
  Add("read_page", Json::object(), /*allow_private=*/false);
  const int port = std::stoi(server.url().substr(server.url().rfind(':') + 1));
  for (const std::string host : {"127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0.0.0.0"}) {
    const std::string answer =
        Call("read_page", {{"url", absl::StrCat("http://", host, ":", port, "/")}});
    EXPECT_THAT(answer, AllOf(StartsWith("error: "), HasSubstr("may not be connected to"))) << host;
  }
  // No server is there: it must be the guard that says no, before anything is sent.
  for (const std::string url : {"http://169.254.169.254/latest/meta-data", "http://10.0.0.1/",
                                "http://[fd00:ec2::254]/", "http://[fe80::1]/"}) {
    EXPECT_THAT(Call("read_page", {{"url", url}}), HasSubstr("may not be connected to")) << url;
  }
  EXPECT_THAT(server.requests(), IsEmpty());
}

TEST_F(WebToolsTest, WhereCloudsServeCredentialsIsOutOfReachInAnyCase) {
  TestHttpServer server([](const httplib::Request&, httplib::Response& reply) {
    reply.set_redirect("http://169.254.169.254/", 302);
  });
  Add("read_page", Json::object(), /*allow_private=*/true);
  for (const std::string& url : {std::string("http://169.254.169.254/latest/meta-data"),
                                 std::string("http://[fd00:ec2::254]/"), server.url()}) {
    EXPECT_THAT(Call("read_page", {{"url", url}}), HasSubstr("may not be connected to")) << url;
  }
  EXPECT_THAT(server.requests(), SizeIs(1));
}

TEST_F(WebToolsTest, NorIsItReadThroughJina) {
  TestHttpServer server(Content("secret", "text/plain"));
  env_["JINA_API_KEY"] = "jina-key";
  Add("read_page", {{"jina_url", server.url()}}, /*allow_private=*/true);
  EXPECT_THAT(Call("read_page", {{"url", "http://168.63.129.16/"}}),
              HasSubstr("an address that may not be read"));
  EXPECT_EQ(Call("read_page", {{"url", "http://10.0.0.1/"}}), "secret");
  EXPECT_THAT(server.requests(), SizeIs(1));
}

TEST_F(WebToolsTest, WithAKeyPagesAreReadThroughJina) {
  TestHttpServer server(Content("Title: x", "text/plain"));
  env_["JINA_API_KEY"] = "jina-key";
  Add("read_page", {{"jina_url", server.url()}}, /*allow_private=*/false);
  EXPECT_EQ(Call("read_page", {{"url", "https://example.org/a?b=c"}}), "Title: x");
  ASSERT_THAT(server.requests(), SizeIs(1));
  EXPECT_EQ(server.requests()[0].target, "/https://example.org/a?b=c");
  EXPECT_EQ(server.requests()[0].get_header_value("Authorization"), "Bearer jina-key");
  EXPECT_THAT(Call("read_page", {{"url", "http://169.254.169.254/"}}),
              HasSubstr("public internet"));
  EXPECT_THAT(server.requests(), SizeIs(1));
}

TEST_F(WebToolsTest, ArxivsFeedIsWritten) {
  TestHttpServer server(Content(R"(<?xml version="1.0"?><feed><title>ArXiv Query</title>
<entry><id>http://arxiv.org/abs/1</id><published>2017-06-12T17:57:34Z</published>
<title>Attention Is
  All You Need</title><summary> We &lt;propose&gt; &amp;amp; show.
</summary><author><name>A. One</name></author><author><name>B. Two</name></author>
<link href="x" rel="alternate"/></entry>
<entry><id>http://arxiv.org/abs/2</id><title>Second</title></entry></feed>)",
                                "application/atom+xml"));
  Add("arxiv", {{"base_url", server.url()}, {"results", 2}});
  EXPECT_EQ(Call("arxiv_search", {{"query", "attention & more"}}),
            "Attention Is All You Need\nhttp://arxiv.org/abs/1\nA. One, B. Two; 2017-06-12\n"
            "We <propose> &amp; show.\n\nSecond\nhttp://arxiv.org/abs/2\n;");
  EXPECT_EQ(server.requests()[0].target,
            "/api/query?search_query=all%3Aattention%20%26%20more&max_results=2");
  EXPECT_THAT(Call("arxiv_search", {{"query", "au:x"}}), StartsWith("Attention"));
  EXPECT_THAT(server.requests()[1].target, HasSubstr("search_query=au%3Ax&"));
}

TEST_F(WebToolsTest, WikipediaIsSearchedAndRead) {
  TestHttpServer server([](const httplib::Request& request, httplib::Response& reply) {
    if (request.has_param("list")) {
      return reply.set_content(R"({"query": {"search": [{"title": "Thimphu",
          "snippet": "the <span class=\"x\">capital</span> &amp; more"}]}})",
                               "application/json");
    }
    if (request.get_param_value("titles") == "Thimphu") {
      return reply.set_content(
          R"({"query": {"pages": [{"title": "Thimphu", "extract": "A city."}]}})",
          "application/json");
    }
    reply.set_content(R"({"query": {"pages": [{"title": "X", "missing": true}]}})",
                      "application/json");
  });
  Add("wikipedia", {{"base_url", server.url()}});
  EXPECT_EQ(Call("wikipedia_search", {{"query", "bhutan"}}), "1. Thimphu: the capital & more");
  EXPECT_EQ(Call("wikipedia_article", {{"title", "Thimphu"}}), "Thimphu\n\nA city.");
  EXPECT_THAT(Call("wikipedia_article", {{"title", "X"}}),
              StartsWith("error: there is no article 'X'"));
}

TEST_F(WebToolsTest, AServerInTroubleIsAskedAgain) {
  std::atomic<int> count = 0;
  TestHttpServer server([&](const httplib::Request&, httplib::Response& reply) {
    if (++count == 1) reply.status = 503;
    reply.set_content("fine", "text/plain");
  });
  Add("read_page", Json::object());
  EXPECT_EQ(Call("read_page", {{"url", server.url()}}), "fine");
  EXPECT_EQ(count, 2);
}

}  // namespace
}  // namespace flowmesh::agent
