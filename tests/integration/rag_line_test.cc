// Retrieval through the whole line: queries in over Redis, a server that holds the passages,
// answers out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_replace.h"
#include "executors/model/golden_encoder.h"
#include "executors/retrieval/fake_qdrant.h"
#include "tests/integration/line.h"

namespace flowmesh::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kKey[] = "canary-key-58231";

// A collection that holds the vectors which sentence-transformers made of the golden's texts.
class RagLineTest : public ::testing::Test {
 protected:
  RagLineTest() {
    const model::GoldenEncoder golden = model::MakeGoldenEncoder(encoder());
    retrieval::FakeQdrant::Collection& collection = qdrant_.collections["handbook"];
    collection.size = 32;
    for (size_t i = 0; i < golden.texts.size(); ++i) {
      collection.points.push_back({i, golden.embeddings[i], {{"text", golden.texts[i]}}});
    }
    qdrant_.api_key = kKey;
  }

  std::filesystem::path encoder() const { return dir_ / "encoder"; }

  TempDir dir_;
  retrieval::FakeQdrant qdrant_;
};

TEST_F(RagLineTest, TheContractsExampleIsAnsweredAndDelivered) {
  Line line({.orchestrator = true});
  const std::vector<std::string> ids = line.Submit(absl::StrReplaceAll(
      R"(
apiVersion: flowmesh/v1
kind: RetrievalTask
metadata: {name: handbook-lookup}
spec:
  taskType: rag
  resources: {hardware: {cpu: "2", memory: "4Gi"}}
  qdrant: {url: "$QDRANT", collection: handbook, api_key: $KEY}
  embedding: {model: $ENCODER}
  search: {top_k: 3}
  data:
    type: list
    items:
      - "good dog"
      - "kind"
  output:
    destination: {type: http, url: "$URL/api/v1/results"}
    artifacts: [responses.json]
)",
      {{"$QDRANT", qdrant_.url()},
       {"$KEY", kKey},
       {"$ENCODER", encoder().string()},
       {"$URL", line.orchestrator_url()}}));
  ASSERT_EQ(ids.size(), 1u);
  ASSERT_EQ(line.WaitForRecord(ids[0])["status"], "DONE");
  const Json result = line.Get("/api/v1/results/" + ids[0])["result"];
  EXPECT_EQ(result["executor"], "rag");
  ASSERT_EQ(result["queries"].size(), 2u);
  EXPECT_EQ(result["queries"][0]["items"].size(), 3u);
  EXPECT_EQ(result["queries"][0]["items"][0]["payload"]["text"], "good dog");
  EXPECT_EQ(result["queries"][1]["items"][0]["payload"]["text"], "kind");
  EXPECT_EQ(result["usage"]["total_results"], 6);
  EXPECT_THAT(DumpJson(result), Not(HasSubstr(kKey)));
}

TEST_F(RagLineTest, ChildrenGetTheirOwnAnswersAndARefusalFailsTheTaskOnly) {
  Line line;
  const auto spec = [&](const std::string& query, const std::string& collection) {
    return Json{{"taskType", "rag"},
                {"qdrant", {{"url", qdrant_.url()}, {"collection", collection}, {"api_key", kKey}}},
                {"embedding", {{"model", encoder().string()}}},
                {"query", query}};
  };
  const std::string id = line.Dispatch(spec("bad", "attic"));
  const auto failed = line.events().WaitForTerminal(id);
  ASSERT_TRUE(failed);
  EXPECT_EQ((*failed)["type"], "TASK_FAILED");
  EXPECT_THAT((*failed)["error"].get<std::string>(), HasSubstr("Collection `attic` doesn't exist"));
  EXPECT_THAT(DumpJson(*failed), Not(HasSubstr(kKey)));

  const Json child = {
      {"task_id", "child-1"}, {"spec", spec("kind", "handbook")}, {"metadata", Json::object()}};
  const std::string merged = line.Dispatch(spec("bad", "handbook"), {{"merged_children", {child}}});
  const auto done = line.events().WaitForTerminal(merged);
  ASSERT_TRUE(done);
  ASSERT_EQ((*done)["type"], "TASK_SUCCEEDED") << DumpJson(*done);
  EXPECT_EQ(line.ResultFile(merged)["queries"][0]["items"][0]["payload"]["text"], "bad");
  EXPECT_EQ(line.ResultFile("child-1")["queries"][0]["items"][0]["payload"]["text"], "kind");
  EXPECT_EQ(line.ResultFile("child-1")["usage"]["num_queries"], 1);
}

}  // namespace
}  // namespace flowmesh::testing
