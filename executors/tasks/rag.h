// Task type `rag`: queries in, the nearest passages out (TASKS.md 3.8).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "common/env.h"
#include "executors/retrieval/embedded_store.h"
#include "executors/tasks/rag_generation.h"
#include "executors/tasks/rag_spec.h"
#include "executors/tasks/task_runner.h"
#include "executors/tasks/warm_encoder.h"

namespace flowmesh::tasks {

// Keeps the encoder of its last task warm. One task at a time.
class RagRunner : public TaskRunner {
 public:
  // `use_cuda`: whether tasks may use `gpu`, the rank's own GPU.
  RagRunner(bool use_cuda, at::Device gpu, EnvLookup env = SystemEnv())
      : use_cuda_(use_cuda), gpu_(gpu), env_(std::move(env)) {}

  absl::StatusOr<TaskOutcome> Run(const TaskContext& context) override;

 private:
  absl::StatusOr<std::vector<std::vector<float>>> Embed(const std::vector<std::string>& texts,
                                                        const TaskContext& context);
  // The store that the spec names, with its sources brought in; what came in goes into `ingested`.
  absl::StatusOr<std::unique_ptr<retrieval::Store>> OpenStore(const RagSpec& spec,
                                                              const TaskContext& context,
                                                              Json* ingested);
  absl::StatusOr<TaskOutcome> Answer(const RagSpec& spec, const TaskContext& context);

  at::Device DeviceOf(const RagSpec& spec) const;

  const bool use_cuda_;
  const at::Device gpu_;
  const EnvLookup env_;
  WarmEncoder encoder_;
  Generator generator_;
};

}  // namespace flowmesh::tasks
