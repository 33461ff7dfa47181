// A sentence encoder by its name that stays loaded until another is wanted.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "common/env.h"
#include "executors/model/sentence_encoder.h"
#include "executors/retrieval/ingest.h"
#include "executors/tasks/model_files.h"
#include "executors/tasks/task_runner.h"

namespace flowmesh::tasks {

class WarmEncoder {
 public:
  // Makes `embedder()` that of the encoder of that name on that device, unless it is. The old one
  // goes first: two may not fit. Errors name `field`, which gave the name; then there is none.
  absl::Status Load(const ModelName& name, const std::string& field, at::Device device,
                    const TaskContext& context, const EnvLookup& env);

  // Borrows the encoder. Calls of several threads are answered one after the other. Throws
  // c10::Error (out of memory).
  retrieval::Embedder embedder();

 private:
  std::string key_;   // of encoder_: everything that decides it, its files' times included
  absl::Mutex turn_;  // to use encoder_
  std::unique_ptr<model::SentenceEncoder> encoder_;
};

}  // namespace flowmesh::tasks
