// Task type `rag`: queries in, the nearest passages out (TASKS.md 3.8).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "common/env.h"
#include "executors/model/sentence_encoder.h"
#include "executors/retrieval/store.h"
#include "executors/tasks/rag_generation.h"
#include "executors/tasks/rag_spec.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

// Keeps the encoder of its last task warm. One task at a time.
class RagRunner : public TaskRunner {
 public:
  // `use_cuda`: whether tasks may use `gpu`, the rank's own GPU.
  RagRunner(bool use_cuda, at::Device gpu, EnvLookup env = SystemEnv())
      : use_cuda_(use_cuda), gpu_(gpu), env_(std::move(env)) {}

  absl::StatusOr<TaskOutcome> Run(const TaskContext& context) override;

 private:
  // Makes `encoder_` the one that the spec asks for.
  absl::Status Load(const RagSpec& spec, const TaskContext& context);
  absl::StatusOr<std::vector<std::vector<float>>> Embed(const std::vector<std::string>& texts,
                                                        const std::string& stage,
                                                        const TaskContext& context) const;
  // The store that the spec names, with its sources brought in; what came in goes into `ingested`.
  absl::StatusOr<std::unique_ptr<retrieval::Store>> OpenStore(const RagSpec& spec,
                                                              const TaskContext& context,
                                                              Json* ingested) const;
  absl::StatusOr<TaskOutcome> Answer(const RagSpec& spec, const TaskContext& context);

  at::Device DeviceOf(const RagSpec& spec) const;

  const bool use_cuda_;
  const at::Device gpu_;
  const EnvLookup env_;
  std::string encoder_key_;  // of encoder_: everything that decides it, its files' times included
  std::unique_ptr<model::SentenceEncoder> encoder_;
  Generator generator_;
};

}  // namespace flowmesh::tasks
