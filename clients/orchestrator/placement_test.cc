#include "clients/orchestrator/placement.h"

#include <gtest/gtest.h>

namespace flowmesh::orchestrator {
namespace {

Json J(const char* text) { return ParseJson(text).value(); }

Json Wants(const char* hardware) {
  return {{"spec", {{"resources", {{"hardware", J(hardware)}}}}}};
}

const Json kCpuWorker = J(R"({"cpu":{"logical_cores":4},"memory":{"total_bytes":8589934592},
                              "gpu":{"gpus":[]}})");
const Json kGpuWorker = J(R"({"cpu":{"logical_cores":4},"memory":{"total_bytes":8589934592},
    "gpu":{"gpus":[{"name":"NVIDIA H200","memory_total_bytes":150754820096},{"name":"NVIDIA T4","memory_total_bytes":16106127360}]}})");

bool Fits(const Json& document, const Json& hardware) {
  return Lacking(document, hardware).empty();
}

TEST(PlacementTest, QuantitiesArePowersOf1024) {
  EXPECT_EQ(ParseQuantity(J("17")), 17u);
  EXPECT_EQ(ParseQuantity(J("\"17\"")), 17u);
  EXPECT_EQ(ParseQuantity(J("\"2k\"")), 2048u);
  EXPECT_EQ(ParseQuantity(J("\" 3 MiB \"")), 3u << 20);
  EXPECT_EQ(ParseQuantity(J("\"24Gi\"")), uint64_t{24} << 30);
  EXPECT_EQ(ParseQuantity(J("\"24GB\"")), uint64_t{24} << 30);
  EXPECT_EQ(ParseQuantity(J("\"1T\"")), uint64_t{1} << 40);
  for (const char* bad : {"\"\"", "\"G\"", "\"1.5G\"", "\"-1\"", "-1", "\"5x\"", "\"5Gb1\"", "null",
                          "[]", "\"99999999999T\""}) {
    EXPECT_EQ(ParseQuantity(J(bad)), std::nullopt) << bad;
  }
}

TEST(PlacementTest, FitsComparesCoresMemoryAndGpus) {
  EXPECT_TRUE(Fits(J("{}"), kCpuWorker));
  EXPECT_EQ(Lacking(Wants(R"({"cpu":5})"), kCpuWorker), "cpu: 5");
  EXPECT_EQ(Lacking(Wants(R"({"gpu":{"count":1,"type":"any"}})"), kCpuWorker), "gpu.count: 1");
  EXPECT_EQ(Lacking(Wants(R"({"gpu":{"type":"A100"}})"), kGpuWorker), "gpu.type: A100");
  EXPECT_TRUE(Fits(Wants(R"({"cpu":"4","memory":"8Gi"})"), kCpuWorker));
  EXPECT_FALSE(Fits(Wants(R"({"cpu":5})"), kCpuWorker));
  EXPECT_FALSE(Fits(Wants(R"({"memory":"9Gi"})"), kCpuWorker));
  EXPECT_FALSE(Fits(Wants(R"({"gpu":{"count":1}})"), kCpuWorker));
  EXPECT_TRUE(Fits(Wants(R"({"gpu":{"count":2,"type":"h200"}})"), kGpuWorker));
  EXPECT_FALSE(Fits(Wants(R"({"gpu":{"count":3}})"), kGpuWorker));
  EXPECT_FALSE(Fits(Wants(R"({"gpu":{"type":"A100"}})"), kGpuWorker));
  EXPECT_TRUE(Fits(Wants(R"({"gpu":{"count":1,"memory":"80Gi"}})"), kGpuWorker));
  EXPECT_FALSE(Fits(Wants(R"({"gpu":{"count":2,"memory":"80Gi"}})"), kGpuWorker));
  EXPECT_FALSE(Fits(Wants(R"({"gpu":{"memory":"1G"}})"), kCpuWorker));
  for (const char* any : {"", "any", "AUTO", "*"}) {
    Json wants = Wants(R"({"gpu":{}})");
    wants["spec"]["resources"]["hardware"]["gpu"]["type"] = any;
    EXPECT_TRUE(Fits(wants, kCpuWorker)) << any;
  }
}

TEST(PlacementTest, WhatCannotBeReadConstrainsNothingAndUnknownHardwareMeetsNothing) {
  EXPECT_TRUE(Fits(Wants(R"({"cpu":"four","memory":"lots","gpu":{"count":"some","memory":{}}})"),
                   kCpuWorker));
  EXPECT_TRUE(Fits(Wants(R"({"gpu":"any"})"), kCpuWorker));
  EXPECT_TRUE(Fits(J(R"({"spec":{"resources":7}})"), J("null")));
  EXPECT_FALSE(Fits(Wants(R"({"cpu":1})"), J("{}")));
  EXPECT_FALSE(Fits(Wants(R"({"memory":1})"), J(R"({"memory":{"total_bytes":null}})")));
}

TEST(PlacementTest, TheLargestFittingWorkerWins) {
  const std::vector<Candidate> candidates = {
      {"b-cpu", kCpuWorker}, {"a-cpu", kCpuWorker}, {"gpu", kGpuWorker}};
  EXPECT_EQ(ChooseWorker(J("{}"), candidates, ""), 2u);
  EXPECT_EQ(ChooseWorker(J("{}"), candidates, "gpu"), 1u);  // equal but for the id
  EXPECT_EQ(ChooseWorker(Wants(R"({"gpu":{"count":1}})"), candidates, "gpu"), std::nullopt);
  EXPECT_EQ(ChooseWorker(J("{}"), {}, ""), std::nullopt);
}

}  // namespace
}  // namespace flowmesh::orchestrator
