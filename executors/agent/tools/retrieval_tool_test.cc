// The tool over a real store, with an encoder that counts letters. executors/tasks has tests with a
// real one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/yaml.h"
#include "executors/agent/tools/catalogue.h"
#include "executors/agent/tools/toolbox.h"
#include "executors/retrieval/embedded_store.h"

namespace flowmesh::agent {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

retrieval::Embedder Letters(int64_t dimension) {
  return {
      .embed = [dimension](const std::vector<std::string>& texts,
                           const auto& go_on) -> absl::StatusOr<std::vector<std::vector<float>>> {
        std::vector<std::vector<float>> vectors;
        for (const std::string& text : texts) {
          vectors.emplace_back(static_cast<size_t>(dimension), 0.0f);
          for (const char c : text) {
            if (c >= 'a' && c <= 'z') ++vectors.back()[(c - 'a') % dimension];
          }
        }
        if (!go_on(texts.size())) return absl::CancelledError("stopped");
        return vectors;
      },
      .count_tokens = [](std::string_view) { return int64_t{1}; },
      .dimension = dimension,
      .max_tokens = 30};
}

class RetrievalToolTest : public ::testing::Test {
 protected:
  RetrievalToolTest() {
    fs::create_directories(dir_ / "docs");
    std::ofstream(dir_ / "docs/zoo.md") << "# Birds\nan owl\n# Apes\na gibbon\n";
    std::ofstream(dir_ / "docs/sea.txt") << "a crab";
    environment_.env = [](std::string_view) { return std::nullopt; };
    environment_.make_embedder =
        [this](const std::string& model) -> absl::StatusOr<retrieval::Embedder> {
      if (model == "letters") return Letters(26);
      if (model == "few") return Letters(5);
      return absl::NotFoundError(absl::StrCat("no such model: ", model));
    };
    environment_.on_ingest = [this](const std::string& stage, size_t, size_t) {
      stages_.push_back(stage);
      return !stops_;
    };
  }

  // `more`: options beside the store's path and model.
  absl::StatusOr<Tools> Make(const std::string& more = "", const std::string& model = "letters") {
    const Json options =
        ParseYaml(absl::StrCat("{path: '", store(), "', model: ", model, ", ", more, "}")).value();
    return MakeTools({.name = "retrieval", .options = options, .path = "tools[0].retrieval"},
                     environment_);
  }
  std::string Error(const std::string& more, const std::string& model = "letters") {
    return Message(Make(more, model).status());
  }
  std::string Sources() const {
    return absl::StrCat("sources: ['", (dir_ / "docs").string(), "']");
  }
  std::string store() const { return dir_ / "store.db"; }
  static std::string Ask(const Tools& tools, const std::string& query,
                         const ToolContext& context = {}) {
    Toolbox box(10000);
    EXPECT_TRUE(box.Add(tools.at(0)).ok());
    return box
        .Call({.name = tools[0]->spec().name, .arguments = DumpJson(Json{{"query", query}})},
              context)
        .value()
        .text;
  }

  TempDir dir_;
  ToolEnvironment environment_;
  std::vector<std::string> stages_;
  bool stops_ = false;
};

TEST_F(RetrievalToolTest, BringsDocumentsInAndFindsPassages) {
  const auto tools = Make(Sources() + ", chunking: {by: headings}, metadata: {lang: en}, top_k: 2");
  ASSERT_TRUE(tools.ok()) << tools.status();
  EXPECT_EQ((*tools)[0]->spec().name, "search_passages");
  EXPECT_THAT(stages_,
              ElementsAre("reading", "embedding passages", "reading", "embedding passages"));
  const std::string zoo = dir_ / "docs/zoo.md";
  EXPECT_THAT(
      Ask(*tools, "gibbons"),
      AllOf(StartsWith(absl::StrCat("[1] source: ", zoo, "; heading: Apes; lang: en; score: 0.")),
            HasSubstr("\n# Apes\n\na gibbon\n\n[2] source: ")));
  EXPECT_THAT(Ask(*tools, "the crab"), HasSubstr("\na crab"));
  EXPECT_EQ(Ask(*tools, " "), "error: query: expected a text");
}

TEST_F(RetrievalToolTest, UsesAStoreThatIsThere) {
  ASSERT_TRUE(Make(Sources() + ", chunking: {by: headings}").ok());
  fs::remove_all(dir_ / "docs");
  const auto tools =
      Make("name: look_up, description: The zoo's handbook., filter: {heading: Birds}");
  ASSERT_TRUE(tools.ok()) << tools.status();
  EXPECT_EQ((*tools)[0]->spec().name, "look_up");
  EXPECT_EQ((*tools)[0]->spec().description, "The zoo's handbook.");
  EXPECT_THAT(Ask(*tools, "a gibbon"), HasSubstr("an owl"));
  EXPECT_EQ(Ask(*Make("score_threshold: 0.99"), "xyz"), "nothing was found");
  EXPECT_THAT(Ask(*Make("hybrid: true, top_k: 1"), "crab"), HasSubstr("a crab"));
}

TEST_F(RetrievalToolTest, SeveralThreadsMaySearch) {
  const auto tools = Make(Sources() + ", top_k: 1");
  ASSERT_TRUE(tools.ok()) << tools.status();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 50; ++n) EXPECT_THAT(Ask(*tools, "crab"), HasSubstr("\na crab"));
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(RetrievalToolTest, WhatIsWrongIsNamed) {
  EXPECT_EQ(Error(""), absl::StrCat("tools[0].retrieval.path: no store at ", store(),
                                    ", and no `sources` to make one of"));
  EXPECT_EQ(Error(Sources(), "none"), "tools[0].retrieval.model: no such model: none");
  EXPECT_THAT(Error("sources: [/nowhere]"),
              "tools[0].retrieval.sources[0]: no such file or folder: /nowhere");
  EXPECT_EQ(Error(Sources() + ", chunking: {size: 31}"),
            "tools[0].retrieval.chunking.size: expected at most 30, the tokens that the model "
            "reads, got 31");
  EXPECT_THAT(Error(Sources() + ", depth: 2"),
              StartsWith("tools[0].retrieval.depth: unknown field"));
  EXPECT_THAT(Error(Sources() + ", chunking: {bye: x}"),
              StartsWith("tools[0].retrieval.chunking.bye: unknown field"));
  EXPECT_EQ(Error(Sources() + ", top_k: 0"),
            "tools[0].retrieval.top_k: expected an integer from 1 to 10000, got 0");
  EXPECT_EQ(Error(Sources() + ", name: look up"),
            "tools[0].retrieval.name: expected at most 64 letters, digits, '-' and '_', got "
            "\"look up\"");
  std::ofstream(dir_ / "docs/broken.pdf") << "no PDF";
  EXPECT_THAT(Error(Sources()), HasSubstr("broken.pdf: expected a PDF, got something else"));
  fs::remove(dir_ / "docs/broken.pdf");
  ASSERT_TRUE(Make(Sources()).ok());
  EXPECT_EQ(Error("", "few"),
            absl::StrCat("tools[0].retrieval.path: ", store(),
                         ": the store was made with the model letters (dimension 26), not with few "
                         "(dimension 5)"));
  std::ofstream(store(), std::ios::trunc) << "this is no database, and long enough to show it";
  EXPECT_THAT(Error(""), AllOf(StartsWith("tools[0].retrieval.path: "), HasSubstr(store())));
  environment_.make_embedder = {};
  EXPECT_EQ(Error(Sources()), "tools[0].retrieval: this worker runs no encoders");
}

TEST_F(RetrievalToolTest, StopsWhileDocumentsComeInAndInACall) {
  stops_ = true;
  EXPECT_TRUE(absl::IsCancelled(Make(Sources()).status()));
  stops_ = false;
  const auto tools = Make(Sources());
  ASSERT_TRUE(tools.ok()) << tools.status();
  Toolbox box(10000);
  ASSERT_TRUE(box.Add(tools->at(0)).ok());
  const auto answer = box.Call({.name = "search_passages", .arguments = R"({"query": "a"})"},
                               {.is_stopped = [] { return true; }});
  EXPECT_TRUE(absl::IsCancelled(answer.status())) << answer.status();
}

}  // namespace
}  // namespace flowmesh::agent
