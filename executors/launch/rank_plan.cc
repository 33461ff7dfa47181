#include "executors/launch/rank_plan.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string_view>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/strings.h"
#include "executors/launch/task_type_name.h"
#include "executors/launch/warm_key.h"

namespace flowmesh::executor {
namespace {

constexpr int64_t kMostRanks = 1024;     // of one node
constexpr int64_t kMostRestarts = 1000;  // of one task

// The entries of `training.visible_devices`: a list of places and UUIDs, or a string of them.
absl::StatusOr<std::vector<std::string>> DeviceEntries(const Field& field) {
  std::vector<std::string> entries;
  if (field.json().is_string()) {
    for (const std::string& entry : SplitTrimmed(field.json().get<std::string>(), ',')) {
      if (!entry.empty()) entries.push_back(entry);
    }
  } else if (field.json().is_number_integer()) {
    entries.push_back(field.json().dump());
  } else {
    for (size_t i = 0; i < field.size(); ++i) {
      const Json& entry = field[i].json();
      if (!entry.is_string() && !entry.is_number_integer()) {
        return field[i].Expected("the place of a GPU or a UUID");
      }
      entries.push_back(entry.is_string() ? std::string(Trim(entry.get<std::string>()))
                                          : entry.dump());
    }
  }
  if (entries.empty()) {
    return field.Expected("a list of GPU places or UUIDs, or a string of them by comma");
  }
  return entries;
}

absl::StatusOr<std::vector<std::string>> VisibleDevices(const Field& training,
                                                        const std::vector<std::string>& gpus) {
  const Field field = training["visible_devices"];
  if (!field.present()) return gpus;
  ASSIGN_OR_RETURN(const std::vector<std::string> entries, DeviceEntries(field));
  std::vector<std::string> devices;
  for (const std::string& entry : entries) {
    const std::optional<size_t> place = FindGpu(entry, gpus);
    if (!place) {
      return field.Error(absl::StrCat("expected places of 0 to ", gpus.size() - 1,
                                      " or UUIDs of this worker's GPUs, got '", entry, "'"));
    }
    const std::string& gpu = gpus[*place];
    if (std::find(devices.begin(), devices.end(), gpu) != devices.end()) {
      return field.Error(absl::StrCat("names the GPU '", entry, "' twice"));
    }
    devices.push_back(gpu);
  }
  return devices;
}

// `resources.hardware.gpu.count`, from the place that the type looks at first; 0: not given.
absl::StatusOr<int64_t> GpuCount(const Json& document, const Field& spec, std::string_view type) {
  const Field top = Field(&document, "")["resources"], inside = spec["resources"];
  const bool top_first = type == "sft" ? top.present() : !inside.present();
  return (top_first ? top : inside)["hardware"]["gpu"]["count"].IntOr(0);
}

// The fields that count on GPUs only must be right without any, too: the spec may go to both.
absl::Status CheckGpuFields(const Json& document, const Field& spec, std::string_view type) {
  const Field training = spec["training"];
  if (training["visible_devices"].present()) {
    RETURN_IF_ERROR(DeviceEntries(training["visible_devices"]).status());
  }
  RETURN_IF_ERROR(GpuCount(document, spec, type).status());
  RETURN_IF_ERROR(training["allow_multi_gpu"].BoolOr(false).status());
  return training["primary_gpu"].IntOr(0, 0).status();
}

absl::Status PlanOnGpus(const Json& document, const Field& spec, std::string_view type,
                        const std::vector<std::string>& gpus, RankPlan* plan) {
  const Field training = spec["training"];
  ASSIGN_OR_RETURN(plan->devices, VisibleDevices(training, gpus));
  const auto visible = static_cast<int64_t>(plan->devices.size());
  ASSIGN_OR_RETURN(const int64_t asked, GpuCount(document, spec, type));
  const int64_t count = asked >= 1 ? std::min(asked, visible) : visible;
  ASSIGN_OR_RETURN(const bool allowed, training["allow_multi_gpu"].BoolOr(type != "lora_sft"));
  ASSIGN_OR_RETURN(const int64_t ranks, training["nproc_per_node"].IntOr(count, 1));
  if (ranks > count) {
    return training["nproc_per_node"].Error(
        absl::StrCat("expected at most ", count, ", the number of GPUs of this task, got ", ranks));
  }
  ASSIGN_OR_RETURN(const int64_t primary, training["primary_gpu"].IntOr(0, 0, visible - 1));
  plan->use_cuda = true;
  if (allowed && count > 1) {
    plan->ranks = static_cast<int>(ranks);
    plan->devices.resize(static_cast<size_t>(ranks));
  } else {
    plan->devices = {plan->devices[static_cast<size_t>(primary)]};
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<size_t> FindGpu(std::string_view entry, const std::vector<std::string>& uuids) {
  constexpr size_t kLeast = 5;  // `GPU-` and a digit
  size_t place = 0;
  if (absl::SimpleAtoi(ToAbsl(entry), &place)) {
    return place < uuids.size() ? std::optional(place) : std::nullopt;
  }
  std::optional<size_t> found;
  for (size_t i = 0; i < uuids.size(); ++i) {
    if (entry.size() < kLeast || !uuids[i].starts_with(entry)) continue;
    if (found) return std::nullopt;
    found = i;
  }
  return found;
}

absl::StatusOr<RankPlan> PlanRanks(const Json& document, const std::vector<std::string>& gpus) {
  const Field spec = Field(&document, "")["spec"];
  static const Json kNoSpec = Json::object();
  const bool on_gpus = !gpus.empty() && !EnforcesCpu(spec.present() ? spec.json() : kNoSpec);
  RankPlan plan;
  const absl::StatusOr<std::string> type = spec["taskType"].String();
  plan.is_training = type.ok() && IsTrainingType(CanonicalTaskType(*type));
  if (!plan.is_training) {
    plan.use_cuda = on_gpus;
    if (on_gpus) plan.devices = gpus;
    return plan;
  }
  const Field training = spec["training"];
  RETURN_IF_ERROR(training.CheckMap());
  ASSIGN_OR_RETURN(const int64_t restarts, training["max_restarts"].IntOr(0, 0, kMostRestarts));
  plan.max_restarts = static_cast<int>(restarts);
  if (on_gpus) {
    RETURN_IF_ERROR(PlanOnGpus(document, spec, CanonicalTaskType(*type), gpus, &plan));
    return plan;
  }
  RETURN_IF_ERROR(CheckGpuFields(document, spec, CanonicalTaskType(*type)));
  ASSIGN_OR_RETURN(const int64_t ranks, training["nproc_per_node"].IntOr(1, 1, kMostRanks));
  plan.ranks = static_cast<int>(ranks);
  return plan;
}

}  // namespace flowmesh::executor
