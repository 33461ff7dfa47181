#include "sidecar/delivery/delivery_job.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/log.h"
#include "common/strings.h"
#include "common/trace.h"
#include "sidecar/delivery/task_dir.h"

namespace flowmesh::sidecar {
namespace {

constexpr char kResultsPath[] = "/api/v1/results";

absl::StatusOr<DeliveryUnit> PlanUnit(const std::string& task_id, const Field& spec,
                                      const DeliveryPlanOptions& options) {
  DeliveryUnit unit;
  unit.task_id = task_id;
  RETURN_IF_ERROR(spec.CheckMap());
  ASSIGN_OR_RETURN(unit.output, ParseOutputSpec(spec));
  if (unit.output.delivers() && unit.output.url.empty()) {
    if (options.orchestrator_base_url.empty()) {
      return absl::InvalidArgumentError(
          "spec.output.destination.url: required, got nothing (or set ORCHESTRATOR_BASE_URL)");
    }
    unit.output.url = absl::StrCat(options.orchestrator_base_url, kResultsPath);
  }
  ASSIGN_OR_RETURN(unit.dir, ResolveTaskDir(unit.output, task_id, options.results_dir));
  return unit;
}

// Only these are ever merged; `vllm` and `default` stand for inference.
bool IsMergeable(const Field& spec) {
  const std::string type = ToLower(Trim(spec["taskType"].StringOr("").value_or("")));
  return type == "inference" || type == "rag" || type == "vllm" || type == "default";
}

}  // namespace

bool DeliveryJob::sends() const {
  return task.output.delivers() ||
         std::any_of(children.begin(), children.end(),
                     [](const DeliveryUnit& child) { return child.output.delivers(); });
}

void DeliveryJob::SetTraceparent(const std::string& traceparent) {
  const auto set = [&](DeliveryUnit& unit) {
    auto& headers = unit.output.headers;
    if (std::none_of(headers.begin(), headers.end(),
                     [](const auto& header) { return ToLower(header.first) == kTraceparent; })) {
      headers.emplace_back(kTraceparent, traceparent);
    }
  };
  set(task);
  for (DeliveryUnit& child : children) set(child);
}

absl::StatusOr<DeliveryJob> PlanDelivery(const std::string& task_id, const std::string& worker_id,
                                         const std::string& dispatched_at, const Json& document,
                                         const DeliveryPlanOptions& options) {
  const Field root(&document, "");
  DeliveryJob job;
  job.worker_id = worker_id;
  job.dispatched_at = dispatched_at;
  ASSIGN_OR_RETURN(job.task, PlanUnit(task_id, root["spec"], options));
  const Field children = root["merge_children"];
  if (children.size() > 0 && !IsMergeable(root["spec"])) {
    LogWarning("task {}: merge_children are ignored: tasks of this type are never merged", task_id);
    return job;
  }
  std::set<std::string> ids = {task_id};
  for (size_t i = 0; i < children.size(); ++i) {
    const std::string id = children[i]["task_id"].StringOr("").value_or("");
    if (id.empty() || !children[i]["spec"].present()) {
      LogWarning("task {}: merge_children[{}] has no task_id or no spec and is skipped", task_id,
                 i);
      continue;
    }
    const std::string label = absl::StrCat("merge_children[", i, "] (task ", id, ")");
    if (!ids.insert(id).second) {
      return absl::InvalidArgumentError(absl::StrCat(label, ": the task_id occurs twice"));
    }
    absl::StatusOr<DeliveryUnit> unit =
        PlanUnit(id, Field(&children[i]["spec"].json(), "spec"), options);
    if (!unit.ok()) return Annotate(unit.status(), label);
    unit->label = label;
    job.children.push_back(*std::move(unit));
  }
  return job;
}

absl::Status PrepareDirectories(const DeliveryJob& job) {
  RETURN_IF_ERROR(PrepareTaskDir(job.task.dir));
  for (const DeliveryUnit& child : job.children) {
    RETURN_IF_ERROR(Annotate(PrepareTaskDir(child.dir), child.label));
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::sidecar
