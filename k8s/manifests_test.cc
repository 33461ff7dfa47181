// The manifests name only what the programs know: environment variables, paths of probes, sockets.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <regex>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/files.h"
#include "common/strings.h"
#include "common/yaml.h"
#include "k8s/program_output.h"
#include "tests/integration/line.h"

namespace flowmesh {
namespace {

namespace fs = std::filesystem;
using ::testing::Contains;
using ::testing::Ge;
using ::testing::SizeIs;

fs::path Folder() { return fs::path(std::getenv("FLOWMESH_SOURCE_DIR")) / "k8s"; }

Json ReadManifest(const fs::path& path) {
  const absl::StatusOr<Json> manifest = ParseYaml(ReadFile(path).value_or(""));
  EXPECT_TRUE(manifest.ok()) << path << ": " << manifest.status();
  return manifest.value_or(Json());
}

// The variables of a program's `--help`: the first word of each line of its table.
std::set<std::string> VariablesOf(const std::string& program) {
  const std::string help =
      ProgramOutput({fs::path(std::getenv("FLOWMESH_BIN_DIR")) / program, "--help"});
  std::set<std::string> names;
  for (const std::string& line : SplitTrimmed(help, '\n')) {
    names.insert(line.substr(0, line.find(' ')));
  }
  return names;
}

// Every `{name: VARIABLE, value|valueFrom: ...}` at or below `node`, wherever it stands: in a
// container or in a patch.
void CollectVariables(const Json& node, std::set<std::string>& names) {
  static const std::regex variable("[A-Z][A-Z0-9_]*");
  if (node.is_object() && node.contains("name") && node["name"].is_string() &&
      (node.contains("value") || node.contains("valueFrom")) &&
      std::regex_match(node["name"].get<std::string>(), variable)) {
    names.insert(node["name"]);
  }
  if (!node.is_structured()) return;
  for (const auto& [key, value] : node.items()) {
    CollectVariables(value, names);
    if (key != "patch" || !value.is_string()) continue;
    const absl::StatusOr<Json> patch = ParseYaml(value.get<std::string>());
    EXPECT_TRUE(patch.ok()) << patch.status();
    CollectVariables(patch.value_or(Json()), names);
  }
}

class ManifestsTest : public ::testing::Test {
 protected:
  // A container of the pod, by name.
  Json Container(const std::string& name) {
    for (const char* group : {"initContainers", "containers"}) {
      for (const Json& container : pod_[group]) {
        if (container["name"] == name) return container;
      }
    }
    ADD_FAILURE() << "no container " << name;
    return Json::object();
  }

  static std::string Env(const Json& container, const std::string& name) {
    for (const Json& entry : container["env"]) {
      if (entry["name"] == name && entry.contains("value")) return entry["value"];
    }
    ADD_FAILURE() << container["name"] << " has no " << name;
    return "";
  }

  const Json worker_ = ReadManifest(Folder() / "base/worker.yaml");
  Json pod_ = worker_["spec"]["template"]["spec"];
  const Json kustomization_ = ReadManifest(Folder() / "base/kustomization.yaml");
};

TEST_F(ManifestsTest, EachContainersVariablesAreItsPrograms) {
  for (const char* name : {"sidecar", "executor"}) {
    const Json container = Container(name);
    const std::set<std::string> known = VariablesOf(container["image"]);
    std::set<std::string> named;
    CollectVariables(container, named);
    EXPECT_THAT(named, SizeIs(Ge(3u)));
    for (const std::string& variable : named) EXPECT_THAT(known, Contains(variable)) << name;
  }
}

TEST_F(ManifestsTest, EveryVariableOfEveryManifestIsKnown) {
  std::set<std::string> known = VariablesOf("flowmesh-sidecar");
  known.merge(VariablesOf("flowmesh-executor"));
  int manifests = 0;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(Folder())) {
    if (entry.path().extension() != ".yaml") continue;
    ++manifests;
    std::set<std::string> named;
    CollectVariables(ReadManifest(entry.path()), named);
    for (const std::string& variable : named)
      EXPECT_THAT(known, Contains(variable)) << entry.path();
  }
  EXPECT_GE(manifests, 4);
}

TEST_F(ManifestsTest, TheConfigMapAndTheSecretAreTheSidecars) {
  const std::set<std::string> known = VariablesOf("flowmesh-sidecar");
  const Json sidecar = Container("sidecar");
  const Json& map = kustomization_["configMapGenerator"][0];
  EXPECT_EQ(sidecar["envFrom"][0]["configMapRef"]["name"], map["name"]);
  ASSERT_THAT(map["literals"], SizeIs(Ge(1u)));
  for (const std::string literal : map["literals"]) {
    EXPECT_THAT(known, Contains(literal.substr(0, literal.find('='))));
  }
  const Json secret = ReadManifest(Folder() / "base/secret.example.yaml");
  std::set<std::string> keys;
  for (const Json& entry : sidecar["env"]) {
    if (!entry.contains("valueFrom") || !entry["valueFrom"].contains("secretKeyRef")) continue;
    const Json& reference = entry["valueFrom"]["secretKeyRef"];
    EXPECT_EQ(reference["name"], secret["metadata"]["name"]);
    keys.insert(reference["key"]);
  }
  for (const auto& [key, value] : secret["stringData"].items()) {
    EXPECT_THAT(known, Contains(key));
    EXPECT_THAT(keys, Contains(key)) << "the pod takes it from the Secret";
  }
}

TEST_F(ManifestsTest, ProbesAskWhatTheSidecarAnswers) {
  const Json sidecar = Container("sidecar");
  const std::string listen = Env(sidecar, "METRICS_LISTEN");
  const std::string port = listen.substr(listen.rfind(':') + 1);
  EXPECT_EQ(DumpJson(sidecar["ports"][0]["containerPort"]), port);
  for (const auto& [probe, path] :
       std::map<std::string, std::string>{{"startupProbe", "/healthz"},
                                          {"livenessProbe", "/healthz"},
                                          {"readinessProbe", "/readyz"}}) {
    ASSERT_TRUE(sidecar.contains(probe)) << probe;
    EXPECT_EQ(sidecar[probe]["httpGet"]["path"], path) << probe;
    EXPECT_EQ(sidecar[probe]["httpGet"]["port"], sidecar["ports"][0]["name"]) << probe;
  }
  const Json& annotations = worker_["spec"]["template"]["metadata"]["annotations"];
  EXPECT_EQ(annotations["prometheus.io/port"], port);
  EXPECT_EQ(annotations["prometheus.io/path"], "/metrics");
}

TEST_F(ManifestsTest, TheContainersMeetOnTheSameSockets) {
  const Json sidecar = Container("sidecar"), executor = Container("executor");
  EXPECT_EQ(Env(sidecar, "EXECUTOR_ENDPOINTS"),
            absl::StrCat(Env(executor, "EXECUTOR_NAME"), "=", Env(executor, "EXECUTOR_LISTEN")));
  EXPECT_THAT(executor["lifecycle"]["preStop"]["exec"]["command"],
              Contains(Env(sidecar, "SIDECAR_LISTEN")));
}

// What `kubectl apply -k` sends of a folder: the StatefulSet and the ConfigMap.
class RenderedTest : public ManifestsTest {
 protected:
  void SetUp() override {
    if (std::system("kubectl version --client >/dev/null 2>&1") != 0) {
      GTEST_SKIP() << "no kubectl on this machine";
    }
  }

  static std::map<std::string, Json> Render(const std::string& folder) {
    const std::string text = ProgramOutput({"kubectl", "kustomize", Folder() / folder});
    std::map<std::string, Json> objects;
    for (const std::string& object : std::vector<std::string>(absl::StrSplit(text, "\n---\n"))) {
      const absl::StatusOr<Json> parsed = ParseYaml(object);
      EXPECT_TRUE(parsed.ok()) << parsed.status();
      if (parsed.ok()) objects[parsed->value("kind", "")] = *parsed;
    }
    return objects;
  }
};

TEST_F(RenderedTest, TheBaseIsOnePodWithItsConfigMap) {
  std::map<std::string, Json> objects = Render("base");
  ASSERT_THAT(objects, SizeIs(2u));
  const Json& pod = objects["StatefulSet"]["spec"]["template"]["spec"];
  EXPECT_EQ(pod["initContainers"][0]["envFrom"][0]["configMapRef"]["name"],
            objects["ConfigMap"]["metadata"]["name"]);
  EXPECT_EQ(objects["ConfigMap"]["data"]["TASK_TOPIC"], "tasks");
  EXPECT_FALSE(pod["containers"][0]["resources"]["limits"].contains("nvidia.com/gpu"));
}

TEST_F(RenderedTest, TheGpuOverlayGivesTheExecutorAGpu) {
  const Json pod = Render("overlays/gpu")["StatefulSet"]["spec"]["template"]["spec"];
  ASSERT_THAT(pod["containers"], SizeIs(1u));
  EXPECT_EQ(pod["containers"][0]["name"], "executor");
  const Json& limits = pod["containers"][0]["resources"]["limits"];
  EXPECT_EQ(limits["nvidia.com/gpu"], 1);
  EXPECT_EQ(limits["memory"], "64Gi");
  EXPECT_FALSE(pod["initContainers"][0]["resources"]["limits"].contains("nvidia.com/gpu"));
}

// The preStop command as it stands, but for the places of the program and the socket.
TEST_F(ManifestsTest, PreStopLetsTheRunningTaskEndAndTheWorkerUnregister) {
  TempDir dir;
  testing::Line line(
      {.sidecar_env = {{"DRAIN_TIMEOUT_SEC", Env(Container("sidecar"), "DRAIN_TIMEOUT_SEC")}}});
  line.executor("e0").Freeze();  // its task lasts as long as the test wants
  const std::string id = line.Dispatch({{"taskType", "echo"}});
  ASSERT_TRUE(line.WaitForStatus("RUNNING", "w"));

  std::vector<std::string> command =
      Container("executor")["lifecycle"]["preStop"]["exec"]["command"];
  const fs::path program = command[0];
  EXPECT_EQ(program.parent_path(), "/usr/local/bin");
  command[0] = fs::path(std::getenv("FLOWMESH_BIN_DIR")) / program.filename();
  std::replace(command.begin(), command.end(), Env(Container("sidecar"), "SIDECAR_LISTEN"),
               line.sidecar_target());
  testing::Program pre_stop("preStop", {}, dir.path(), command);
  ASSERT_TRUE(line.WaitForStatus("STOPPING", "w")) << pre_stop.Output();
  EXPECT_FALSE(pre_stop.process().Poll()) << pre_stop.Output();
  line.executor("e0").process().Signal(SIGCONT);
  const std::optional<ExitStatus> exit = pre_stop.process().Wait(absl::Seconds(30));
  ASSERT_TRUE(exit);
  EXPECT_TRUE(exit->ok()) << exit->ToString() << pre_stop.Output();
  EXPECT_EQ(line.redis().Command({"SISMEMBER", "workers:ids", "w"}), 0) << "it returned too early";
  const auto end = line.events().WaitForTerminal(id);
  ASSERT_TRUE(end);
  EXPECT_EQ((*end)["type"], "TASK_SUCCEEDED");
}

}  // namespace
}  // namespace flowmesh
