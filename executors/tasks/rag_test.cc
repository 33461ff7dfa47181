// The runner in this process, with a small encoder whose vectors sentence-transformers computed,
// and a server on loopback that checks its requests.
#include "executors/tasks/rag.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "absl/strings/str_cat.h"
#include "executors/model/golden_encoder.h"
#include "executors/model/model_goldens.h"
#include "executors/retrieval/fake_qdrant.h"
#include "executors/tasks/test_task.h"

namespace flowmesh::tasks {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kKey[] = "canary-key-40172";

class RagTest : public TaskTest {
 protected:
  // The collection holds the golden's own texts with sentence-transformers' vectors.
  RagTest() {
    encoder_ = (dir_ / "encoder").string();
    const model::GoldenEncoder golden = model::MakeGoldenEncoder(encoder_);
    retrieval::FakeQdrant::Collection& collection = qdrant_.collections["handbook"];
    collection.size = 32;
    for (size_t i = 0; i < golden.texts.size(); ++i) {
      collection.points.push_back({i, golden.embeddings[i], {{"text", golden.texts[i]}}});
    }
    spec_ = {{"taskType", "rag"},
             {"qdrant", {{"url", qdrant_.url()}, {"collection", "handbook"}}},
             {"embedding", {{"model", encoder_}}},
             {"search", {{"top_k", 2}}},
             {"data", {{"type", "list"}, {"items", {"good dog", "kind"}}}}};
  }

  absl::StatusOr<TaskOutcome> Run(Json children = nullptr) {
    TaskContext context = Context();
    if (!children.is_null()) context.document["merge_children"] = std::move(children);
    return runner_.Run(context);
  }
  Json Result(Json children = nullptr) {
    auto outcome = Run(std::move(children));
    EXPECT_TRUE(outcome.ok()) << outcome.status();
    return outcome.ok() ? outcome->result : Json();
  }
  std::string Error() {
    const std::string error = Message(Run().status());
    EXPECT_THAT(error, Not(HasSubstr(kKey)));
    return error;
  }

  std::string encoder_;
  retrieval::FakeQdrant qdrant_;
  RagRunner runner_{false, at::kCPU,
                    [](std::string_view) -> std::optional<std::string> { return "/none"; }};
};

TEST_F(RagTest, AnswersWithTheKeysOfTheContract) {
  const Json result = Result();
  std::vector<std::string> keys;
  for (const auto& [key, value] : result.items()) keys.push_back(key);
  EXPECT_THAT(keys,
              ElementsAre("ok", "executor", "qdrant", "embedding", "search", "queries", "usage"));
  EXPECT_EQ(result["ok"], true);
  EXPECT_EQ(result["executor"], "rag");
  EXPECT_EQ(result["qdrant"], (Json{{"collection", "handbook"}, {"url", qdrant_.url()}}));
  EXPECT_EQ(result["embedding"], (Json{{"model", encoder_}}));
  EXPECT_EQ(result["search"], (Json{{"top_k", 2}}));
  ASSERT_EQ(result["queries"].size(), 2u);
  const Json& query = result["queries"][1];
  EXPECT_EQ(query["index"], 1);
  EXPECT_EQ(query["query"], "kind");
  ASSERT_EQ(query["items"].size(), 2u);
  EXPECT_EQ(query["items"][0]["payload"], (Json{{"text", "kind"}}));
  // Its own vector: the native one is that of sentence-transformers.
  EXPECT_NEAR(query["items"][0]["score"].get<double>(), 1.0, 1e-5);
  const Json& usage = result["usage"];
  EXPECT_EQ(usage["num_queries"], 2);
  EXPECT_EQ(usage["total_results"], 4);
  const double latency = usage["latency_sec"];
  EXPECT_GT(latency, 0);
  EXPECT_NEAR(latency * 1e4, std::round(latency * 1e4), 1e-6);
  EXPECT_FALSE(result.contains("children"));
  EXPECT_EQ(progress_.back().stage, "searching");
  EXPECT_EQ(progress_.back().done, 2u);
}

TEST_F(RagTest, QueriesFromEverySource) {
  spec_.erase("data");
  spec_["query"] = "good dog";
  EXPECT_EQ(Result()["queries"][0]["items"][0]["payload"]["text"], "good dog");
  std::ofstream(dir_ / "rows.jsonl") << R"({"q": "kind"})"
                                     << "\n"
                                     << R"({"q": "bad"})"
                                     << "\n";
  spec_["data"] = {{"type", "dataset"}, {"url", dir_ / "rows.jsonl"}, {"column", "q"}};
  Json result = Result();
  ASSERT_EQ(result["queries"].size(), 2u);
  EXPECT_EQ(result["queries"][1]["items"][0]["payload"]["text"], "bad");
  spec_["_upstreamResults"] = {{"draft", {{"result", {{"output", "kind"}}}}}};
  spec_["data"] = Json::parse(R"({"type": "graph_template", "template": {"name": "x",
      "text": "{col0_value}", "columns": [{"expr": "draft.result.output"}]}})");
  EXPECT_EQ(Result()["queries"][0]["query"], "kind");
}

TEST_F(RagTest, TheServerMayEmbed) {
  spec_["embedding"] = {{"model", "its/model"}, {"mode", "server"}};
  spec_["data"]["items"] = {"q"};
  qdrant_.models["its/model"]["q"] = qdrant_.collections["handbook"].points[9].vector;
  EXPECT_EQ(Result()["queries"][0]["items"][0]["id"], 9);
  EXPECT_THAT(log_, Not(Contains(HasSubstr("loaded model"))));
}

TEST_F(RagTest, EveryChildGetsItsOwnAnswers) {
  Json child = spec_;
  child["data"] = {{"type", "list"}, {"items", {"bad", "kind", "good dog"}}};
  const Json result = Result({{{"task_id", "C1"}, {"spec", child}}, {{"task_id", "C2"}}});
  EXPECT_EQ(result["queries"].size(), 2u);
  EXPECT_EQ(result["usage"]["num_queries"], 5);
  EXPECT_EQ(result["usage"]["total_results"], 10);
  ASSERT_EQ(result["children"].size(), 1u);
  const Json& own = result["children"]["C1"];
  EXPECT_EQ(own["queries"][0]["items"][0]["payload"]["text"], "bad");
  EXPECT_EQ(own["queries"][2]["index"], 2);
  EXPECT_EQ(own["usage"]["num_queries"], 3);
  EXPECT_EQ(own["usage"]["total_results"], 6);
  EXPECT_EQ(own["usage"]["latency_sec"], result["usage"]["latency_sec"]);
  for (const char* key : {"ok", "executor", "qdrant", "embedding", "search"}) {
    EXPECT_EQ(own[key], result[key]) << key;
  }
  EXPECT_THAT(log_, Contains(HasSubstr("merge_children[1] has no task_id or no spec")));
  child["search"]["top_k"] = 7;
  EXPECT_THAT(Message(Run({{{"task_id", "C1"}, {"spec", child}}}).status()),
              HasSubstr("merge_children[0] (task C1): spec.search differs from the parent's"));
  child["search"]["top_k"] = 2;
  child["data"]["items"] = {"x", " "};
  EXPECT_THAT(Message(Run({{{"task_id", "C1"}, {"spec", child}}}).status()),
              HasSubstr("merge_children[0] (task C1): spec.data.items[1]: expected a query, got an "
                        "empty text"));
}

TEST_F(RagTest, TheModelStaysWarmUntilItsFilesChange) {
  Result();
  EXPECT_THAT(log_, Contains(HasSubstr("loaded model")));
  Result();
  EXPECT_THAT(log_, Contains(HasSubstr("is warm")));
  std::ofstream(fs::path(encoder_) / "sentence_bert_config.json") << R"({"max_seq_length": 5})";
  Result();
  EXPECT_THAT(log_, Contains(HasSubstr("loaded model")));
}

TEST_F(RagTest, WhatQdrantRefuses) {
  qdrant_.api_key = kKey;
  spec_["qdrant"]["api_key"] = "canary-key-40172-wrong";
  EXPECT_THAT(Error(),
              AllOf(HasSubstr("query 0: Qdrant at http://127.0.0.1:"),
                    HasSubstr("collection 'handbook', API key set"), HasSubstr("answered 401")));
  spec_["qdrant"]["api_key"] = kKey;
  EXPECT_EQ(Result()["qdrant"].size(), 2u);
  EXPECT_THAT(DumpJson(Result()), Not(HasSubstr(kKey)));
  spec_["qdrant"]["collection"] = "attic";
  EXPECT_THAT(Error(), HasSubstr("Collection `attic` doesn't exist"));
  qdrant_.collections["attic"].size = 384;
  EXPECT_THAT(Error(), HasSubstr("the vectors of the embedding model have 32 components, those of "
                                 "the collection 384"));
}

TEST_F(RagTest, WrongFieldsAreNamedBeforeAnythingIsLoaded) {
  const Json good = spec_;
  const auto error = [&](const std::string& pointer, const Json& value) {
    spec_ = good;
    spec_[Json::json_pointer(pointer)] = value;
    const absl::Status status = Run().status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return Message(status);
  };
  EXPECT_EQ(error("/qdrant", nullptr), "spec.qdrant.url: required");
  EXPECT_EQ(error("/qdrant", "x"), "spec.qdrant: expected a map, got \"x\"");
  EXPECT_THAT(
      error("/qdrant/url", "ftp://u:canary@host"),
      AllOf(HasSubstr("spec.qdrant.url: expected an http or https URL"), Not(HasSubstr("canary"))));
  EXPECT_EQ(error("/qdrant/collection", " "), "spec.qdrant.collection: required");
  EXPECT_EQ(error("/qdrant/api_key", 93417), "spec.qdrant.api_key: expected a string");
  EXPECT_THAT(error("/qdrant/ca_cert", encoder_ + "/config.json"),
              HasSubstr("spec.qdrant.ca_cert: expected a file with certificates in PEM, got "));
  EXPECT_EQ(error("/search/top_k", 0),
            "spec.search.top_k: expected an integer from 1 to 10000, got 0");
  EXPECT_EQ(error("/embedding/mode", "remote"),
            "spec.embedding.mode: expected local or server, got \"remote\"");
  EXPECT_EQ(error("/data", nullptr), "spec.data: required, or spec.query");
  EXPECT_EQ(error("/data/type", "static"),
            "spec.data.type: expected list, dataset or graph_template, got \"static\"");
  EXPECT_THAT(error("/data/items", {1}), HasSubstr("spec.data.items[0]: expected a string"));
  EXPECT_THAT(progress_, testing::IsEmpty());
  spec_ = good;
  spec_["qdrant"]["ca_cert"] = "/no/such.pem";
  EXPECT_THAT(Error(), HasSubstr("spec.qdrant.ca_cert: cannot open /no/such.pem"));
  spec_ = good;
  spec_["embedding"]["model"] = "./nowhere";
  EXPECT_THAT(Error(), HasSubstr("spec.embedding.model: no such model"));
  spec_["embedding"]["model"] = encoder_;
  spec_["search"]["depth"] = 3;
  Result();
  EXPECT_THAT(log_, Contains("ignored field spec.search.depth"));
}

class RagStoreTest : public RagTest {
 protected:
  RagStoreTest() {
    fs::create_directories(dir_ / "docs");
    std::ofstream(dir_ / "docs/good.md") << "# Dogs\ngood dog\n# Answers\nkind\n";
    std::ofstream(dir_ / "docs/bad.txt") << "bad answers";
    spec_.erase("qdrant");
    spec_["store"] = {{"type", "embedded"},
                      {"path", (dir_ / "store.db").string()},
                      {"sources", {(dir_ / "docs").string()}},
                      {"chunking", {{"by", "headings"}}}};
  }
};

TEST_F(RagStoreTest, WhatIsBroughtInIsFound) {
  Json result = Result();
  std::vector<std::string> keys;
  for (const auto& [key, value] : result.items()) keys.push_back(key);
  EXPECT_THAT(keys, ElementsAre("ok", "executor", "store", "embedding", "search", "queries",
                                "usage", "ingested"));
  EXPECT_EQ(result["store"], (Json{{"type", "embedded"}, {"path", spec_["store"]["path"]}}));
  EXPECT_EQ(result["ingested"],
            (Json{{"files", 2}, {"unchanged", 0}, {"passages", 3}, {"removed", 0}}));
  EXPECT_EQ(result["usage"]["total_results"], 4);
  // A passage's own words are the nearest to it.
  spec_["query"] = "# Dogs good dog";
  spec_.erase("data");
  result = Result();
  EXPECT_EQ(result["ingested"],
            (Json{{"files", 2}, {"unchanged", 2}, {"passages", 0}, {"removed", 0}}));
  const Json& best = result["queries"][0]["items"][0];
  EXPECT_EQ(best["payload"], (Json{{"text", "# Dogs\n\ngood dog"},
                                   {"source", (dir_ / "docs/good.md").string()},
                                   {"heading", "Dogs"}}));
  EXPECT_NEAR(best["score"].get<double>(), 1.0, 1e-5);
  // Without sources it is searched as it is.
  spec_["store"].erase("sources");
  spec_["search"] = {{"top_k", 3},
                     {"hybrid", true},
                     {"score_threshold", -1},
                     {"filter", {{"source", (dir_ / "docs/bad.txt").string()}}}};
  result = Result();
  EXPECT_FALSE(result.contains("ingested"));
  ASSERT_EQ(result["queries"][0]["items"].size(), 1u);
  EXPECT_EQ(result["queries"][0]["items"][0]["payload"]["text"], "bad answers");
}

TEST_F(RagStoreTest, WrongFieldsAreNamed) {
  const Json good = spec_;
  const auto error = [&](const std::string& pointer, const Json& value) {
    spec_ = good;
    spec_[Json::json_pointer(pointer)] = value;
    return Message(Run().status());
  };
  EXPECT_EQ(error("/qdrant", {{"url", "http://h"}}), "spec.store: excludes spec.qdrant");
  EXPECT_EQ(error("/store/type", "faiss"), "spec.store.type: expected embedded, got \"faiss\"");
  EXPECT_EQ(error("/store/path", nullptr), "spec.store.path: expected a string, got nothing");
  EXPECT_THAT(error("/store/sources", "docs"), HasSubstr("spec.store.sources: expected a list"));
  EXPECT_EQ(error("/store/chunking/by", "page"),
            "spec.store.chunking.by: expected tokens, sentences or headings, got \"page\"");
  EXPECT_EQ(error("/store/chunking", {{"size", 5}, {"overlap", 5}}),
            "spec.store.chunking.overlap: expected less than the size 5, got 5");
  EXPECT_EQ(error("/store/metadata", 1), "spec.store.metadata: expected a map, got 1");
  EXPECT_EQ(error("/store/metadata", {{"text", "x"}}),
            "spec.store.metadata.text: every passage has this of its own: expected another name");
  EXPECT_EQ(error("/embedding/mode", "server"),
            "spec.embedding.mode: server: a store has no server that embeds");
  EXPECT_THAT(error("/search/filter", {{"year", {{"near", 1}}}}),
              HasSubstr("spec.search.filter.year.near: expected gte, gt, lte or lt"));
  // These need the model.
  EXPECT_EQ(error("/store/chunking/size", 11),
            "spec.store.chunking.size: expected at most 10, the tokens that the model reads, got "
            "11");
  EXPECT_THAT(error("/store/sources", {"/nowhere"}),
              HasSubstr("spec.store.sources[0]: no such file or folder: /nowhere"));
  std::ofstream(dir_ / "a.pdf") << "no PDF";
  EXPECT_THAT(error("/store/sources", {(dir_ / "a.pdf").string()}),
              HasSubstr("a.pdf: expected a PDF, got something else"));
  spec_ = good;
  spec_["embedding"]["model"] = model::ModelGolden("../encoders/bert").string();
  EXPECT_THAT(Error(), AllOf(HasSubstr("spec.store.path: "),
                             HasSubstr("the store was made with the model " + encoder_)));
}

TEST_F(RagTest, AnswersAreMadeFromThePassages) {
  spec_["generation"] = {{"model", model::ModelGolden("llama").string()},
                         {"max_tokens", 4},
                         {"instructions", "Passages:"}};
  Json child = spec_;
  child["data"]["items"] = {"bad"};
  const Json result = Result({{{"task_id", "C1"}, {"spec", child}}});
  for (const Json& queries : {result["queries"], result["children"]["C1"]["queries"]}) {
    for (const Json& query : queries) {
      EXPECT_TRUE(query["answer"].is_string());
      EXPECT_TRUE(query["citations"].is_array());
    }
  }
  // Greedy: the same again, from the warm model.
  EXPECT_EQ(Result()["queries"][1]["answer"], result["queries"][1]["answer"]);
  EXPECT_THAT(log_, Not(Contains(HasSubstr("loaded model"))));
  spec_["generation"]["instructions"] = std::string(20000, 'x');
  EXPECT_THAT(Error(), HasSubstr("spec.generation: query 0 and the instructions have"));
  spec_["generation"] = {{"model", "./nowhere"}};
  const size_t asked = qdrant_.requests().size();
  EXPECT_THAT(Error(), HasSubstr("spec.generation.model: no such model"));
  EXPECT_EQ(qdrant_.requests().size(), asked) << "before anything is searched";
  spec_["generation"] = {{"max_tokens", 3}};
  EXPECT_EQ(Error(), "spec.generation.model: expected a string, got nothing");
  spec_["generation"] = {{"model", "x"}, {"temperature", -1}};
  EXPECT_EQ(Error(), "spec.generation.temperature: expected a number of at least 0, got -1");
}

TEST_F(RagTest, PassagesThatDoNotFitAreLeftOut) {
  retrieval::FakeQdrant::Collection& collection = qdrant_.collections["handbook"];
  for (auto& point : collection.points) point.payload = {{"text", std::string(400, 'x')}};
  spec_["data"]["items"] = {"good dog"};
  spec_["search"]["top_k"] = 8;
  spec_["generation"] = {{"model", model::ModelGolden("llama").string()}, {"max_tokens", 4}};
  const Json result = Result();
  EXPECT_EQ(result["queries"][0]["items"].size(), 8u);
  EXPECT_THAT(log_, Contains(AllOf(HasSubstr("query 0: only "), HasSubstr(" of 8 passages fit"))));
}

TEST(CitationTest, NumbersInBrackets) {
  EXPECT_THAT(CitedNumbers("As [2] says, and [1, 3] too [2].", 3), ElementsAre(2, 1, 3));
  EXPECT_THAT(CitedNumbers("[0] [4] [x] [] [1", 3), testing::IsEmpty());
  EXPECT_THAT(CitedNumbers("[a [3]]", 3), ElementsAre(3));
}

TEST(CitationTest, OnlyPassagesThatTheModelSaw) {
  const Json items = {{{"id", 7}, {"payload", {{"source", "a.md"}}}}, {{"id", 8}}, {{"id", 9}}};
  EXPECT_EQ(CitationsOf("[1] [2] [3]", items, 2),
            (Json{{{"number", 1}, {"id", 7}, {"source", "a.md"}}, {{"number", 2}, {"id", 8}}}));
}

TEST_F(RagTest, StopsBetweenSteps) {
  stopped_ = true;
  EXPECT_EQ(Run().status().code(), absl::StatusCode::kCancelled);
  EXPECT_TRUE(qdrant_.requests().empty());
}

}  // namespace
}  // namespace flowmesh::tasks
