// What is to be delivered, and where: everything that delivery needs to know of a task.
//
// A job is a value. All but `result` and `outputs` follows from the envelope (PlanDelivery), so a
// journal that keeps the envelope, the result and the outputs can make the same job again.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "flowmesh/v1/executor.pb.h"
#include "sidecar/delivery/output_spec.h"

namespace flowmesh::sidecar {

// A task or a merged child: each has a directory, a manifest and a delivery of its own.
struct DeliveryUnit {
  std::string task_id;
  OutputSpec output;
  std::filesystem::path dir;  // absolute
  std::string label;          // `merge_children[0] (task C1)` in error texts; empty for the task
};

struct DeliveryJob {
  std::string worker_id;
  std::string dispatched_at;  // verbatim; may be empty
  DeliveryUnit task;
  std::vector<DeliveryUnit> children;   // in the envelope's order
  Json result;                          // what the executor returned; children in `children`
  std::vector<v1::OutputFile> outputs;  // what the executor wants uploaded

  // Whether anything of it goes over HTTP.
  bool sends() const;
  // Every request of it carries this W3C trace context, but to a destination that has its own.
  void SetTraceparent(const std::string& traceparent);
};

struct DeliveryPlanOptions {
  std::filesystem::path results_dir;  // absolute
  std::string orchestrator_base_url;  // without a trailing slash; may be empty
};

// Reads `spec.output` of the task and of its `merge_children`; touches no disk. The job lacks
// `result` and `outputs`. InvalidArgument names the field, and the child where there is one.
// Children without an id or a spec are skipped with a warning, and all of them for task types that
// are never merged (TASKS.md 2.15).
absl::StatusOr<DeliveryJob> PlanDelivery(const std::string& task_id, const std::string& worker_id,
                                         const std::string& dispatched_at, const Json& document,
                                         const DeliveryPlanOptions& options);

// Makes the directories of the task and its children.
absl::Status PrepareDirectories(const DeliveryJob& job);

}  // namespace flowmesh::sidecar
