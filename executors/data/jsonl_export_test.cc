#include "executors/data/jsonl_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/yaml.h"

namespace flowmesh::data {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<std::optional<JsonlExport>> Read(const std::string& block) {
  const Json spec = ParseYaml("postprocess: {jsonl_export: " + block + "}").value();
  return ReadJsonlExport(Field(&spec, "spec"));
}

std::string Error(const std::string& block) {
  const auto plan = Read(block);
  EXPECT_TRUE(absl::IsInvalidArgument(plan.status())) << block;
  return Message(plan.status());
}

class WriteJsonlExportTest : public ::testing::Test {
 protected:
  // The one line that `fields` make of the first item.
  std::string Line(const std::string& fields) {
    const auto plan = Read(absl::StrCat("{path: out.jsonl, fields: ", fields, "}"));
    if (!plan.ok()) return plan.status().ToString();
    const auto block = WriteJsonlExport(**plan, items_, dir_.path(), "T1");
    if (!block.ok()) return block.status().ToString();
    return ReadFile(dir_ / "out.jsonl").value();
  }

  TempDir dir_;
  Json items_ = ParseYaml(R"([{index: 0, prompt: P, output: " ", finish_reason: stop,
      metadata: {topic: ü, a.b: 2.0, list: [1, x], none: ~}}])")
                    .value();
};

TEST_F(WriteJsonlExportTest, RulesAsText) {
  EXPECT_EQ(Line("{p: prompt, o: output, t: metadata.topic, d: metadata.a.b, i: item.index, "
                 "l: metadata.list, lit: hello, n: 3, gone: metadata.gone, m: metadata}"),
            R"({"p":"P","o":" ","t":"ü","d":"2.0","i":"0","l":"[1, \"x\"]","lit":"hello","n":"3",)"
            R"("gone":"","m":"metadata"})"
            "\n");
}

TEST_F(WriteJsonlExportTest, RulesAsMaps) {
  EXPECT_EQ(Line("{p: {from: prompt}, o: {source: output, fallback: F}, "
                 "w: {from: metadata, key: none, default: D}, "
                 "b: {from: item, key: output, default: D}, l: {value: v}, k: {literal: 7}, "
                 "u: {from: elsewhere, default: U}}"),
            R"({"p":"P","o":"F","w":"D","b":" ","l":"v","k":"7","u":"U"})"
            "\n");
  EXPECT_THAT(Line("{all: {from: metadata}}"), HasSubstr(R"({\"topic\": \"ü\")"));
}

TEST_F(WriteJsonlExportTest, ReturnsTheBlockOfALocalTask) {
  const auto plan = Read("{path: ./artifacts//deep/x.jsonl, fields: {p: prompt, o: output}}");
  const auto block = WriteJsonlExport(**plan, items_, dir_.path(), "T1");
  ASSERT_TRUE(block.ok()) << block.status();
  const std::string path = (dir_ / "artifacts/deep/x.jsonl").string();
  EXPECT_EQ(*block, (Json{{"path", path},
                          {"worker_path", path},
                          {"relative_path", "artifacts/deep/x.jsonl"},
                          {"record_count", 1},
                          {"fields", {"p", "o"}}}));
}

TEST_F(WriteJsonlExportTest, ABlankRequiredFieldFails) {
  for (const char* name : {"o", "missing"}) {
    const auto plan = Read(absl::StrCat(
        "{path: x.jsonl, fields: {p: prompt, o: output}, required_fields: [p, ", name, "]}"));
    const auto block = WriteJsonlExport(**plan, items_, dir_.path(), "T1");
    EXPECT_EQ(Message(block.status()),
              absl::StrCat("spec.postprocess.jsonl_export.required_fields: \"", name,
                           "\" is blank in item 0 of task T1"));
  }
}

TEST_F(WriteJsonlExportTest, AFolderInTheWayIsSaid) {
  std::filesystem::create_directories(dir_ / "x.jsonl");
  const auto plan = Read("{path: x.jsonl, fields: {p: prompt}}");
  EXPECT_THAT(Message(WriteJsonlExport(**plan, items_, dir_.path(), "T1").status()),
              HasSubstr("x.jsonl"));
}

TEST(JsonlExportTest, AbsentIsNone) {
  const Json spec = Json::object();
  EXPECT_FALSE(ReadJsonlExport(Field(&spec, "spec")).value().has_value());
}

TEST(JsonlExportTest, MistakesNameTheField) {
  const std::string at = "spec.postprocess.jsonl_export";
  EXPECT_THAT(Error("{fields: {a: prompt}}"), HasSubstr(at + ".path: expected"));
  for (const char* path : {"/etc/passwd", "../x", "a/../../x", "a/..", "artifacts/", "."}) {
    EXPECT_THAT(Error(absl::StrCat("{path: '", path, "', fields: {a: prompt}}")),
                HasSubstr(at + ".path: expected a path of a file inside the task directory"))
        << path;
  }
  EXPECT_THAT(Error("{path: x}"), HasSubstr(at + ".fields: expected a non-empty map"));
  EXPECT_THAT(Error("{path: x, fields: {}}"), HasSubstr(at + ".fields: expected a non-empty map"));
  EXPECT_THAT(Error("{path: x, fields: [a]}"), HasSubstr(at + ".fields: expected a map"));
  EXPECT_THAT(Error("{path: x, fields: {a: {key: 3}}}"),
              HasSubstr(at + ".fields.a.key: expected a string"));
  EXPECT_THAT(Error("{path: x, fields: {a: prompt}, required_fields: a}"),
              HasSubstr(at + ".required_fields: expected a list"));
}

}  // namespace
}  // namespace flowmesh::data
