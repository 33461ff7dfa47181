#include "executors/retrieval/ingest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <future>
#include <limits>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/fetch/file_lock.h"
#include "common/files.h"
#include "common/test_http_server.h"
#include "executors/retrieval/documents.h"
#include "executors/retrieval/test_pdf.h"

namespace flowmesh::retrieval {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

class IngestTest : public testing::Test {
 protected:
  IngestTest() {
    fs::create_directories(dir_ / "docs/sub/.hidden");
    options_.sources = {(dir_ / "docs").string()};
    options_.field = "spec.store";
    options_.chunking = {.size = 4, .overlap = 0};
    Open();
  }

  void Open() {
    store_.reset();
    auto store = Store::Open(dir_ / "store.db", "m", 2);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  void Write(const std::string& name, const std::string& text) {
    std::ofstream(dir_ / "docs" / name, std::ios::binary) << text;
  }
  absl::StatusOr<IngestCounts> Run() {
    const Embedder embedder = {
        .embed = [this](const std::vector<std::string>& texts,
                        const auto& go_on) -> absl::StatusOr<std::vector<std::vector<float>>> {
          if (budget_ == 0 || !go_on(texts.size())) return absl::CancelledError("stopped");
          --budget_;
          embedded_ += texts.size();
          return std::vector<std::vector<float>>(texts.size(), {1, 0});
        },
        .count_tokens = [](std::string_view) { return int64_t{1}; },
        .dimension = 2,
        .max_tokens = 50};
    embedded_ = 0;
    progress_.clear();
    return Ingest(options_, embedder, *store_,
                  [this](const std::string& stage, size_t done, size_t total) {
                    progress_.push_back(absl::StrCat(stage, " ", done, "/", total));
                    return goes_on_ && embedded_ < most_embedded_;
                  });
  }
  Json Payloads(const Json& filter) {
    const auto items = store_->Search({.vector = {1, 0}, .limit = 100, .filter = filter});
    EXPECT_TRUE(items.ok()) << items.status();
    Json payloads = Json::array();
    if (items.ok()) {
      for (const Json& item : *items) payloads.push_back(item["payload"]);
    }
    return payloads;
  }

  TempDir dir_;
  IngestOptions options_;
  std::unique_ptr<Store> store_;
  int budget_ = 1000;  // calls of the model
  size_t embedded_ = 0;
  bool goes_on_ = true;
  size_t most_embedded_ = std::numeric_limits<size_t>::max();  // stopped from there on
  std::vector<std::string> progress_;
};

TEST_F(IngestTest, EveryKindOfFileBelowAFolder) {
  Write("a.txt", "one two three four five");
  Write("b.md", "# Leave\nbook it");
  Write("c.html", "<title>Page</title><h1>Travel</h1><p>by train</p><script>no</script>");
  Write("d.pdf", TestPdf("printed words"));
  Write("sub/e.jsonl", "{\"text\": \"first row\", \"year\": 1990}\n{\"text\": \"second row\"}\n");
  Write("sub/.hidden/f.txt", "hidden");
  Write("g.bin", "binary");
  options_.metadata = {{"lang", "en"}};
  const auto counts = Run();
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->files, 5);
  EXPECT_EQ(counts->unchanged, 0);
  EXPECT_EQ(counts->passages, 7);
  const auto of = [&](const std::string& name) {
    return Payloads({{"source", (dir_ / "docs" / name).string()}});
  };
  EXPECT_EQ(of("a.txt")[0]["text"], "one two three four");
  EXPECT_EQ(of("a.txt")[1]["text"], "five");
  EXPECT_EQ(of("b.md")[0], (Json{{"text", "# Leave\n\nbook it"},
                                 {"source", (dir_ / "docs/b.md").string()},
                                 {"heading", "Leave"},
                                 {"lang", "en"}}));
  EXPECT_EQ(of("c.html")[0]["title"], "Page");
  EXPECT_EQ(of("c.html")[0]["text"], "# Travel\n\nby train");
  EXPECT_EQ(of("d.pdf")[0]["text"], "printed words");
  EXPECT_EQ(of("sub/e.jsonl")[0]["year"], 1990);
  EXPECT_EQ(of("sub/e.jsonl")[1]["row"], 2);
}

TEST_F(IngestTest, SectionsAreThoseOfTheFormat) {
  Write("a.md", "Setext\n===\n\n```\n# code\n```\n\n[more](http://x) &amp; more\n");
  Write("b.html", "<h2>Two</h2><pre># code</pre>");
  Write("c.txt", "# plain");
  options_.chunking = {.by = ChunkOptions::By::kHeadings, .size = 50, .overlap = 0};
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(*store_->Count(), 3);
  const auto of = [&](const std::string& name) {
    return Payloads({{"source", (dir_ / "docs" / name).string()}})[0];
  };
  EXPECT_EQ(of("a.md")["text"], "# Setext\n\n# code\n\nmore & more");
  EXPECT_EQ(of("a.md")["heading"], "Setext");
  EXPECT_EQ(of("b.html")["heading"], "Two");
  EXPECT_FALSE(of("c.txt").contains("heading"));
}

TEST_F(IngestTest, WhatIsAsItWasDoesNothing) {
  Write("a.txt", "one two");
  Write("b.txt", "three");
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(embedded_, 2u);
  auto counts = Run();
  EXPECT_EQ(counts->unchanged, 2);
  EXPECT_EQ(embedded_, 0u);
  // Written again with the same content: read, but not embedded.
  fs::last_write_time(dir_ / "docs/a.txt",
                      fs::file_time_type::clock::now() + std::chrono::hours(1));
  counts = Run();
  EXPECT_EQ(counts->unchanged, 2);
  EXPECT_EQ(embedded_, 0u);
  Write("b.txt", "three and more");
  counts = Run();
  EXPECT_EQ(counts->unchanged, 1);
  EXPECT_EQ(embedded_, 1u);
  EXPECT_EQ(*store_->Count(), 2);
  // Cut otherwise, all is new.
  options_.chunking.size = 1;
  counts = Run();
  EXPECT_EQ(counts->unchanged, 0);
  EXPECT_EQ(*store_->Count(), 5);
}

TEST_F(IngestTest, GoesOnWhereItWasInterrupted) {
  std::string text;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&text, "word", i, " ");
  Write("a.txt", text);
  budget_ = 2;
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(*store_->Count(), 0);  // that can be found
  const std::string name = (dir_ / "docs/a.txt").string();
  const int64_t present = (*store_->Find(name))->passages;
  EXPECT_GT(present, 0);
  EXPECT_LT(present, 500);
  Open();
  budget_ = 1000;
  const auto counts = Run();
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->passages, 500 - present);
  EXPECT_EQ(embedded_, static_cast<size_t>(500 - present));
  EXPECT_EQ(*store_->Count(), 500);
  EXPECT_EQ(Run()->unchanged, 1);
}

TEST_F(IngestTest, StopsWhileItsPassagesTakeTheirPlace) {
  std::string text;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&text, "word", i, " ");
  Write("a.txt", text);
  most_embedded_ = 500;  // all of it
  const absl::Status stopped = Run().status();
  EXPECT_TRUE(absl::IsCancelled(stopped)) << stopped;
  EXPECT_EQ(*store_->Count(), 0);
  const auto counts = Run();
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(counts->passages, 0);
  EXPECT_EQ(*store_->Count(), 500);
  // It also looks while it passes over what is there.
  EXPECT_GT(std::count(progress_.begin(), progress_.end(), "embedding passages 0/0"), 3);
}

TEST_F(IngestTest, ASecondIngestionWaitsAndFindsNothingToDo) {
  std::string text;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&text, "word", i, " ");
  Write("a.txt", text);
  fs::create_symlink(dir_ / "store.db", dir_ / "link.db");
  const auto other = Store::Open(dir_ / "link.db", "m", 2);
  ASSERT_TRUE(other.ok()) << other.status();
  std::promise<void> waits;
  absl::StatusOr<IngestCounts> second = absl::UnknownError("not run");
  std::thread thread;
  int calls = 0;
  const auto embedder = [&](const std::function<void()>& look) {
    return Embedder{.embed =
                        [look](const std::vector<std::string>& texts, const auto&) {
                          look();
                          return std::vector<std::vector<float>>(texts.size(), {1, 0});
                        },
                    .count_tokens = [](std::string_view) { return int64_t{1}; },
                    .dimension = 2,
                    .max_tokens = 50};
  };
  const auto run_second = [&] {
    bool is_told = false;
    const auto tell = [&] {
      if (!std::exchange(is_told, true)) waits.set_value();
    };
    second =
        Ingest(options_, embedder([] {}), **other, [&](const std::string& stage, size_t, size_t) {
          if (stage == "waiting for another ingestion") tell();
          return true;
        });
    tell();
  };
  // The first has written some when the second comes.
  const auto first = Ingest(options_, embedder([&] {
                              if (++calls != 2) return;
                              thread = std::thread(run_second);
                              waits.get_future().wait();
                              EXPECT_EQ(*(*other)->Count(), 0);  // others may search
                            }),
                            *store_, [](const std::string&, size_t, size_t) { return true; });
  thread.join();
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->passages, 500);
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->unchanged, 1);
  EXPECT_EQ(*store_->Count(), 500);
}

TEST_F(IngestTest, StopsWhileItWaitsForAnother) {
  Write("a.txt", "one");
  const auto held = FileLock::Take(dir_ / "store.db.lock", nullptr);
  ASSERT_TRUE(held.ok()) << held.status();
  goes_on_ = false;
  EXPECT_TRUE(absl::IsCancelled(Run().status()));
  EXPECT_THAT(progress_, testing::ElementsAre("waiting for another ingestion 0/1"));
}

TEST_F(IngestTest, AnOlderVersionStaysUntilTheNewOneIsWhole) {
  Write("a.txt", "old words");
  ASSERT_TRUE(Run().ok());
  Write("a.txt", "new words");
  budget_ = 0;
  EXPECT_FALSE(Run().ok());
  EXPECT_EQ(Payloads(Json::object())[0]["text"], "old words");
  budget_ = 1000;
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Payloads(Json::object())[0]["text"], "new words");
  EXPECT_EQ(*store_->Count(), 1);
}

TEST_F(IngestTest, FilesThatHaveGoneFromAFolderGo) {
  Write("a.txt", "one");
  Write("b.txt", "two");
  std::ofstream(dir_ / "c.txt") << "three";
  options_.sources.push_back(dir_ / "c.txt");
  EXPECT_EQ(Run()->removed, 0);
  fs::remove(dir_ / "docs/a.txt");
  fs::remove(dir_ / "c.txt");
  options_.sources.pop_back();  // a file that is not asked for stays
  EXPECT_EQ(Run()->removed, 1);
  EXPECT_EQ(*store_->Count(), 2);
  EXPECT_EQ(Run()->removed, 0);
}

TEST_F(IngestTest, AFileThatWentBeforeAllOfItCameInLeavesNothing) {
  Write("a.txt", "one");
  Write("b.txt", "two");
  ASSERT_TRUE(Run().ok());
  std::string text;
  for (int i = 0; i < 2000; ++i) absl::StrAppend(&text, "word", i, " ");
  Write("c.txt", text);
  budget_ = 2;
  EXPECT_FALSE(Run().ok());
  const std::string name = (dir_ / "docs/c.txt").string();
  ASSERT_GT((*store_->Find(name))->passages, 0);
  fs::remove(name);
  budget_ = 1000;
  EXPECT_EQ(Run()->removed, 1);
  EXPECT_FALSE(store_->Find(name)->has_value());
  EXPECT_EQ(*store_->Count(), 2);
}

TEST_F(IngestTest, ColumnsDoNotHideTextAndSource) {
  Write("a.jsonl", R"({"body": "the words", "text": 5, "source": "elsewhere", "year": 1990})");
  options_.text_column = "body";
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Payloads({{"source", (dir_ / "docs/a.jsonl").string()}}),
            (Json{{{"text", "the words"},
                   {"source", (dir_ / "docs/a.jsonl").string()},
                   {"year", 1990},
                   {"row", 1}}}));
}

TEST_F(IngestTest, AnOverlapThatIsNotGivenIsATenthOfTheSize) {
  std::string text;
  for (int i = 0; i < 90; ++i) absl::StrAppend(&text, "word", i, " ");
  Write("a.txt", text);
  options_.chunking = {.size = 0, .overlap = -1};
  ASSERT_TRUE(Run().ok());
  const Json passages = Payloads(Json::object());
  ASSERT_EQ(passages.size(), 2u);  // of 50, what the model reads
  EXPECT_THAT(passages[0]["text"].get<std::string>(), testing::EndsWith(" word49"));
  EXPECT_THAT(passages[1]["text"].get<std::string>(), testing::StartsWith("word45 "));
}

TEST_F(IngestTest, StopsBetweenThePagesOfAPdf) {
  int looks = 0;
  const auto stopped =
      ReadDocument(TestPdf("printed words"), ".pdf", [&looks] { return ++looks > 0; });
  EXPECT_TRUE(absl::IsCancelled(stopped.status())) << stopped.status();
}

TEST_F(IngestTest, WrongSourcesAreNamed) {
  const auto error = [&](const std::string& source) {
    options_.sources = {source};
    return Message(Run().status());
  };
  EXPECT_EQ(
      error((dir_ / "nowhere").string()),
      absl::StrCat("spec.store.sources[0]: no such file or folder: ", (dir_ / "nowhere").string()));
  EXPECT_THAT(error((dir_ / "docs").string()), HasSubstr("spec.store.sources[0]: no document in"));
  Write("a.pdf", "this is no PDF");
  EXPECT_THAT(error((dir_ / "docs").string()),
              HasSubstr("docs/a.pdf: expected a PDF, got something else"));
  Write("b.bin", "x");
  EXPECT_THAT(error((dir_ / "docs/b.bin").string()),
              HasSubstr("expected a file that ends in .txt"));
  Write("c.txt", "\xff\xfe");
  EXPECT_THAT(error((dir_ / "docs/c.txt").string()), HasSubstr("c.txt: expected text in UTF-8"));
  Write("d.jsonl", "{\"body\": \"x\"}\n");
  EXPECT_THAT(error((dir_ / "docs/d.jsonl").string()),
              HasSubstr("column 'text' not found; columns are: body"));
  EXPECT_EQ(*store_->Count(), 0);
}

TEST_F(IngestTest, PagesByTheirUrl) {
  std::string body = "<title>Page</title><p>first text</p>", type = "text/html; charset=utf-8";
  TestHttpServer server([&](const httplib::Request& request, httplib::Response& reply) {
    if (request.path == "/away") {
      reply.set_redirect("http://169.254.169.254/latest/meta-data/");
    } else if (request.path == "/gone") {
      reply.status = 404;
    } else {
      reply.set_content(body, type);
    }
  });
  options_.sources = {server.url("/page")};
  auto counts = Run();
  ASSERT_TRUE(counts.ok()) << counts.status();
  EXPECT_EQ(Payloads(Json::object())[0],
            (Json{{"text", "first text"}, {"source", server.url("/page")}, {"title", "Page"}}));
  EXPECT_EQ(Run()->unchanged, 1);
  body = "<p>another text</p>";
  EXPECT_EQ(Run()->unchanged, 0);
  EXPECT_EQ(Payloads(Json::object())[0]["text"], "another text");
  EXPECT_EQ(*store_->Count(), 1);
  // Of another encoding, and of none that is named.
  body = "<p>caf\xe9</p>";
  type = "text/html; charset=iso-8859-1";
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Payloads(Json::object())[0]["text"], "café");
  body = "<p>th\xe9</p>";
  type = "text/html";
  ASSERT_TRUE(Run().ok());
  EXPECT_EQ(Payloads(Json::object())[0]["text"], "thé");

  const auto error = [&](const std::string& url) {
    options_.sources = {url};
    return Message(Run().status());
  };
  type = "application/pdf";
  EXPECT_THAT(error(server.url("/pdf?token=canary")),
              AllOf(HasSubstr("spec.store.sources[0]: "), HasSubstr("expected a PDF"),
                    Not(HasSubstr("canary"))));
  type = "image/png";
  EXPECT_THAT(error(server.url("/image")), HasSubstr("expected HTML, Markdown, text or a PDF, got "
                                                     "image/png"));
  EXPECT_THAT(error(server.url("/gone")), HasSubstr("/gone: answered 404"));
  for (const std::string& url : {std::string("http://169.254.169.254/latest/meta-data/"),
                                 std::string("http://[fe80::1]/"), server.url("/away")}) {
    options_.sources = {url};
    EXPECT_EQ(Run().status().code(), absl::StatusCode::kPermissionDenied) << url;
  }
}

}  // namespace
}  // namespace flowmesh::retrieval
