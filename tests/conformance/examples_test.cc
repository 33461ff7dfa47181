// The examples that the README names are read as the worker reads them, without running them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "clients/orchestrator/submission.h"
#include "common/files.h"
#include "common/yaml.h"
#include "executors/agent/configuration.h"
#include "executors/tasks/agent.h"
#include "executors/tasks/rag_spec.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::SizeIs;

void CheckAgent(const Json& document, const fs::path& configurations,
                std::vector<std::string>& warnings) {
  const auto spec = tasks::ReadAgentSpec(
      document, [&](const std::string& warning) { warnings.push_back(warning); });
  ASSERT_TRUE(spec.ok()) << spec.status();
  const EnvLookup env = [&](std::string_view name) {
    return name == agent::kConfigDirVariable ? std::optional<std::string>(configurations)
                                             : std::nullopt;
  };
  const auto configuration = agent::LoadConfiguration(spec->config_name, env);
  ASSERT_TRUE(configuration.ok()) << configuration.status();
  EXPECT_THAT(configuration->source, HasSubstr(configurations.string()));
}

void CheckRag(const Json& document, std::vector<std::string>& warnings) {
  const auto spec = tasks::ReadRagSpec(
      document, [&](const std::string& warning) { warnings.push_back(warning); });
  ASSERT_TRUE(spec.ok()) << spec.status();
  ASSERT_THAT(spec->units, SizeIs(1u));
  EXPECT_THAT(spec->units[0].source.prompts, SizeIs(2u));
}

TEST(ExamplesTest, EachIsATaskThatTheWorkerUnderstands) {
  const fs::path source = std::getenv("FLOWMESH_SOURCE_DIR");
  const std::string readme = ReadFile(source / "README.md").value();
  int examples = 0;
  for (const fs::directory_entry& entry : fs::directory_iterator(source / "clients/examples")) {
    if (entry.path().extension() != ".yaml") continue;
    SCOPED_TRACE(entry.path());
    ++examples;
    EXPECT_THAT(readme, HasSubstr(fs::relative(entry.path(), source).string()));
    const absl::StatusOr<Json> document = ParseYaml(ReadFile(entry.path()).value());
    ASSERT_TRUE(document.ok()) << document.status();
    const auto plan = orchestrator::PlanSubmission(*document);
    ASSERT_TRUE(plan.ok()) << plan.status();
    for (const orchestrator::PlannedTask& task : *plan) {
      Json planned = task.document;
      planned["task_id"] = "example";  // as the sidecar adds it
      const std::string type = planned["spec"].value("taskType", "");
      std::vector<std::string> warnings;
      if (type == "agent") {
        CheckAgent(planned, source / "clients/examples/configurations", warnings);
      } else {
        ASSERT_EQ(type, "rag");
        CheckRag(planned, warnings);
      }
      EXPECT_THAT(warnings, ::testing::IsEmpty()) << "a field that nobody reads";
    }
  }
  EXPECT_EQ(examples, 4);
}

}  // namespace
}  // namespace flowmesh
