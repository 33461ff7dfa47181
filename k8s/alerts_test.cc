// Promise P21: every promise has an alert, and every alert looks at metrics that there are.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <regex>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"
#include "common/subprocess.h"
#include "common/yaml.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;

constexpr int kPromises = 22;

fs::path Source() { return std::getenv("FLOWMESH_SOURCE_DIR"); }
fs::path Rules() { return Source() / "k8s/monitoring/alerts.yaml"; }

struct Metric {
  std::string type;
  std::set<std::string> labels;
};

std::map<std::string, Metric> GoldenMetrics() {
  std::map<std::string, Metric> metrics;
  const std::string golden = ReadFile(Source() / "tests/conformance/metrics.golden").value();
  for (const std::string& line : SplitTrimmed(golden, '\n')) {
    const std::vector<std::string> words = SplitTrimmed(line, ' ');
    Metric& metric = metrics[words.at(0)];
    metric.type = words.at(1);
    for (const std::string& label : SplitTrimmed(words.at(2), ',')) metric.labels.insert(label);
  }
  EXPECT_GT(metrics.size(), 40u);
  return metrics;
}

// The metric that a series belongs to: a histogram has several.
std::string MetricOf(const std::string& series, const std::map<std::string, Metric>& metrics) {
  if (metrics.count(series) > 0) return series;
  for (const std::string suffix : {"_bucket", "_sum", "_count"}) {
    if (series.size() <= suffix.size() || !series.ends_with(suffix)) continue;
    const auto histogram = metrics.find(series.substr(0, series.size() - suffix.size()));
    if (histogram != metrics.end() && histogram->second.type == "histogram") {
      return histogram->first;
    }
  }
  return "";
}

std::vector<Json> AllRules() {
  std::vector<Json> rules;
  const absl::StatusOr<Json> file = ParseYaml(ReadFile(Rules()).value());
  EXPECT_TRUE(file.ok()) << file.status();
  for (const Json& group : (*file)["groups"]) {
    for (const Json& rule : group["rules"]) rules.push_back(rule);
  }
  return rules;
}

TEST(AlertsTest, EveryPromiseHasOne) {
  std::set<std::string> promises, names;
  for (const Json& rule : AllRules()) {
    promises.insert(rule["labels"]["promise"].get<std::string>());
    EXPECT_TRUE(names.insert(rule["alert"].get<std::string>()).second) << rule["alert"];
    EXPECT_FALSE(rule["annotations"]["summary"].get<std::string>().empty()) << rule["alert"];
    EXPECT_THAT((std::set<std::string>{"info", "warning", "critical"}),
                Contains(rule["labels"]["severity"].get<std::string>()));
  }
  for (int i = 1; i <= kPromises; ++i) EXPECT_THAT(promises, Contains(absl::StrCat("P", i)));
  EXPECT_EQ(promises.size(), static_cast<size_t>(kPromises));
}

TEST(AlertsTest, LookAtMetricsThatThereAreWithTheirLabels) {
  static const std::regex selector(R"re((flowmesh_\w+)(?:\{([^}]*)\})?)re");
  static const std::regex label(R"re((\w+)\s*(?:=|!=|=~|!~)\s*")re");
  const std::map<std::string, Metric> metrics = GoldenMetrics();
  for (const Json& rule : AllRules()) {
    const std::string expression = rule["expr"];
    int found = 0;
    for (std::sregex_iterator it(expression.begin(), expression.end(), selector), end; it != end;
         ++it, ++found) {
      const std::string metric = MetricOf((*it)[1], metrics);
      ASSERT_NE(metric, "") << rule["alert"] << ": no metric has the series " << (*it)[1];
      const std::string labels = (*it)[2];
      for (std::sregex_iterator l(labels.begin(), labels.end(), label); l != end; ++l) {
        EXPECT_THAT(metrics.at(metric).labels, Contains((*l)[1].str())) << rule["alert"];
      }
      const bool rates = expression.find("increase(" + (*it)[0].str()) != std::string::npos;
      EXPECT_EQ(rates, metrics.at(metric).type == "counter") << rule["alert"];
    }
    EXPECT_GT(found, 0) << rule["alert"];
  }
}

// Prometheus' own opinion, where its tool is installed.
TEST(AlertsTest, PromtoolAcceptsTheRules) {
  SubprocessOptions options;
  options.argv = {"promtool", "check", "rules", Rules()};
  absl::StatusOr<Subprocess> promtool = Subprocess::Start(options);
  if (absl::IsNotFound(promtool.status())) GTEST_SKIP() << "no promtool";
  ASSERT_TRUE(promtool.ok()) << promtool.status();
  const std::optional<ExitStatus> status = promtool->Wait(absl::Seconds(30));
  ASSERT_TRUE(status);
  EXPECT_TRUE(status->ok()) << status->ToString();
}

}  // namespace
}  // namespace flowmesh
