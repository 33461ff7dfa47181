#include "executors/server/task_types.h"

#include <algorithm>
#include <array>
#include <set>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field.h"
#include "common/strings.h"
#include "executors/launch/task_type_name.h"

namespace flowmesh::executor {
namespace {

constexpr std::array<std::string_view, 8> kKnown = {"agent",    "dpo", "echo", "inference",
                                                    "lora_sft", "ppo", "rag",  "sft"};

std::string Known() {
  std::vector<std::string> names(kKnown.begin(), kKnown.end());
  return absl::StrJoin(names, ", ");
}

}  // namespace

TaskTypes::TaskTypes(std::vector<std::string> runnable, std::string reason) {
  std::set<std::string> sorted(runnable.begin(), runnable.end());
  sorted.insert("echo");
  runnable_.assign(sorted.begin(), sorted.end());
  for (const std::string_view type : kKnown) {
    const std::string name(type);
    if (sorted.count(name) > 0) continue;
    // Inference is built into every version: what keeps it from running is the worker's own reason.
    unrunnable_[name] = name == "inference" && !reason.empty() ? reason : kNotBuilt;
  }
}

absl::StatusOr<std::string> TaskTypes::Route(const Json& document) const {
  const Field spec = Field(&document, "")["spec"];
  if (spec.present() && !spec.json().is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec: expected a map, got ", DescribeJson(spec.json())));
  }
  const Field field = Field(spec.present() ? &spec.json() : nullptr, "spec")["taskType"];
  if (field.present() && !field.json().is_string()) return field.Expected("a string");
  const std::string given =
      field.present() ? std::string(Trim(field.json().get_ref<const std::string&>())) : "";
  if (given.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec.taskType: required, got nothing; known types: ", Known()));
  }
  std::string type = CanonicalTaskType(given);
  if (std::find(kKnown.begin(), kKnown.end(), type) == kKnown.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "spec.taskType: unknown type '", given.substr(0, 100), "'; known types: ", Known()));
  }
  const auto unrunnable = unrunnable_.find(type);
  if (unrunnable != unrunnable_.end()) {
    return absl::InvalidArgumentError(
        absl::StrCat("spec.taskType: '", type, "' cannot run on this worker (", unrunnable->second,
                     "); runnable here: ", absl::StrJoin(runnable_, ", ")));
  }
  return type;
}

}  // namespace flowmesh::executor
