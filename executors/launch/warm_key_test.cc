#include "executors/launch/warm_key.h"

#include <gtest/gtest.h>

#include <string>

namespace flowmesh::executor {
namespace {

std::string Key(const std::string& spec) { return WarmKey(ParseJson(spec).value()); }

constexpr char kBase[] = R"({"model": {"source": {"identifier": "m", "revision": "main"}}})";

TEST(WarmKey, TheOrderOfKeysDoesNotMatter) {
  EXPECT_EQ(Key(kBase), Key(R"({"model": {"source": {"revision": "main", "identifier": "m"}}})"));
}

TEST(WarmKey, NullMeansAbsent) {
  EXPECT_EQ(Key(kBase), Key(R"({"model": {"source": {"identifier": "m", "revision": "main"},
                                          "vllm": null}, "checkpoint": null})"));
}

TEST(WarmKey, WhatDoesNotDecideTheModelDoesNotMatter) {
  EXPECT_EQ(Key(kBase), Key(R"({"model": {"source": {"identifier": "m", "revision": "main"}},
                                "data": {"items": ["a"]}, "inference": {"seed": 7}})"));
}

TEST(WarmKey, EverythingThatDecidesTheModelMatters) {
  const std::string base = Key(kBase);
  EXPECT_NE(base, Key(R"({"model": {"source": {"identifier": "n", "revision": "main"}}})"));
  EXPECT_NE(base, Key(R"({"model": {"source": {"identifier": "m", "revision": "v2"}}})"));
  EXPECT_NE(base, Key(R"({"model": {"source": {"identifier": "m", "revision": "main"},
                                    "vllm": {"dtype": "bf16"}}})"));
  EXPECT_NE(base, Key(R"({"model": {"source": {"identifier": "m", "revision": "main"},
                                    "adapters": [{"type": "lora", "path": "/a"}]}})"));
  EXPECT_NE(base, Key(R"({"model": {"source": {"identifier": "m", "revision": "main"}},
                          "checkpoint": {"load": {"taskId": "T1"}}})"));
  EXPECT_NE(base, Key(R"({"model": {"source": {"identifier": "m", "revision": "main"}},
                          "enforce_cpu": true})"));
}

TEST(WarmKey, EnforceCpuIsReadLeniently) {
  EXPECT_EQ(Key(R"({"enforce_cpu": true})"), Key(R"({"enforce_cpu": "Yes"})"));
  EXPECT_EQ(Key(R"({"enforce_cpu": 1})"), Key(R"({"enforce_cpu": "on"})"));
  EXPECT_EQ(Key(R"({})"), Key(R"({"enforce_cpu": "false"})"));
  EXPECT_EQ(Key(R"({})"), Key(R"({"enforce_cpu": null})"));
}

TEST(WarmKey, AWrongSpecHasAKeyToo) {
  for (const char* spec : {"null", "[]", "3", R"("x")", R"({"model": "m"})", R"({"model": [1.5]})",
                           R"({"enforce_cpu": {"a": 1}})"}) {
    EXPECT_FALSE(Key(spec).empty()) << spec;
  }
}

}  // namespace
}  // namespace flowmesh::executor
