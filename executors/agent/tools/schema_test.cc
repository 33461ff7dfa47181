#include "executors/agent/tools/schema.h"

#include <gtest/gtest.h>

#include <map>

namespace flowmesh::agent {
namespace {

std::string Error(const std::string& value) {
  const Json schema = ParseJson(R"({
    "type": "object", "required": ["query"], "additionalProperties": false,
    "properties": {
      "query": {"type": "string"},
      "count": {"type": "integer", "minimum": 1, "maximum": 10},
      "share": {"type": ["number", "null"]},
      "kind": {"enum": ["a", "b"]},
      "names": {"type": "array", "items": {"type": "string"}},
      "odd": {"type": "date"},
      "inner": {"type": "object", "required": ["x"], "properties": {"x": {"type": "boolean"}}}}})")
                          .value();
  const absl::Status status = CheckSchema(schema, ParseJson(value).value(), "");
  return status.ok() ? "" : Message(status);
}

TEST(SchemaTest, WhatFitsPasses) {
  for (const char* value :
       {R"({"query": ""})", R"({"query": "x", "count": 10, "share": null, "kind": "b"})",
        R"({"query": "x", "count": 3.0, "share": 0.5, "names": [], "odd": 7})",
        R"({"query": "x", "names": ["a"], "inner": {"x": true, "more": 1}})"}) {
    EXPECT_EQ(Error(value), "") << value;
  }
  EXPECT_TRUE(CheckSchema(Json(), Json(3), "").ok());
  EXPECT_TRUE(CheckSchema(Json::object(), Json(3), "").ok());
}

TEST(SchemaTest, WhatDoesNotIsNamed) {
  const std::map<std::string, std::string> cases = {
      {"[]", "the arguments: expected a map, got a list"},
      {"{}", "query: required"},
      {R"({"query": 3})", "query: expected a string, got 3"},
      {R"({"query": null})", "query: expected a string, got nothing"},
      {R"({"query": "x", "count": "two"})", "count: expected an integer, got \"two\""},
      {R"({"query": "x", "count": 1.5})", "count: expected an integer, got 1.5"},
      {R"({"query": "x", "count": 0})", "count: expected at least 1, got 0"},
      {R"({"query": "x", "count": 11})", "count: expected at most 10, got 11"},
      {R"({"query": "x", "share": "x"})", "share: expected a number or null, got \"x\""},
      {R"({"query": "x", "kind": "c"})", "kind: expected one of [\"a\",\"b\"], got \"c\""},
      {R"({"query": "x", "names": ["a", 1]})", "names[1]: expected a string, got 1"},
      {R"({"query": "x", "inner": {}})", "inner.x: required"},
      {R"({"query": "x", "inner": {"x": 1}})", "inner.x: expected a boolean, got 1"},
      {R"({"query": "x", "q": 1})",
       "q: unknown; known are: query, count, share, kind, names, odd, inner"}};
  for (const auto& [value, expected] : cases) EXPECT_EQ(Error(value), expected) << value;
}

}  // namespace
}  // namespace flowmesh::agent
