// Answers from the passages that a rag task found, with their numbers.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "common/env.h"
#include "common/field.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/engine/sampling.h"
#include "executors/tasks/model_files.h"
#include "executors/tasks/task_runner.h"
#include "executors/tasks/warm_model.h"

namespace flowmesh::tasks {

// `spec.generation`:
//   generation:
//     model: ./models/gemma.gguf   # as spec.model.source.identifier of inference; required
//     revision: main
//     max_tokens: 256
//     temperature: 0
//     seed: 0
//     instructions: Answer from the passages ...   # stands before them
struct GenerationSpec {
  ModelName model;
  std::string instructions;
  engine::SamplingParams params;
};

// InvalidArgument names the field.
absl::StatusOr<GenerationSpec> ReadGeneration(const Field& block);

// The numbers that an answer cites as `[2]`, each once, in their order; those beyond `passages` are
// none.
std::vector<int64_t> CitedNumbers(const std::string& answer, int64_t passages);

// What an answer cites of the first `passages` items, those that the model saw: a list of
// {number, id, source}.
Json CitationsOf(const std::string& answer, const Json& items, size_t passages);

// Keeps the model of its last task warm.
class Generator {
 public:
  // Puts `answer` and `citations` into each of `queries` (maps with `query` and `items`).
  // Passages that leave no room for the answer are left out, the last first, with a warning.
  // Errors as of the model and the engine. Cancelled.
  absl::Status Answer(const GenerationSpec& spec, at::Device device,
                      const std::vector<Json*>& queries, const TaskContext& context,
                      const EnvLookup& env);

 private:
  WarmModel model_;
};

}  // namespace flowmesh::tasks
