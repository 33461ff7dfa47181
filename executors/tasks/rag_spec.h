// What a rag task asks for: its spec read and checked as a whole, before any model is loaded
// (TASKS.md 3.8).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/env.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/data/prompts.h"
#include "executors/retrieval/embedded_store.h"
#include "executors/retrieval/qdrant.h"
#include "executors/tasks/model_files.h"
#include "executors/tasks/rag_generation.h"

namespace flowmesh::tasks {

// The task itself, or a child merged into it.
struct RagUnit {
  std::string task_id;
  std::string label;  // `merge_children[0] (task C1): ` before its errors; empty for the task
  data::PromptSource source;
  std::vector<std::string> queries;
};

// `spec.qdrant` has, beyond TASKS.md, `ca_cert`: a file in PEM with the authority that the server's
// certificate is of, where the system does not know it.

// `spec.store`: passages in a file of this machine instead of a Qdrant server.
//   store:
//     type: embedded
//     path: ./handbook.db
//     sources: [./handbook]        # these and more: retrieval::StoreOptions
//   search: {top_k: 5, hybrid: true, score_threshold: 0.3, filter: {year: {gte: 2020}}}
struct StoreSpec {
  retrieval::StoreOptions place;
  retrieval::StoreQuery search;  // what is the same in all queries
};

struct RagSpec {
  std::optional<StoreSpec> store;   // else Qdrant
  retrieval::QdrantOptions qdrant;  // with a store only `limit` counts
  std::optional<GenerationSpec> generation;
  ModelName embedding;
  bool by_server = false;      // Qdrant embeds the queries itself
  bool enforce_cpu = false;    // even where there is a GPU
  std::vector<RagUnit> units;  // the task first, then its children in their order
};

// `document`: TASKS.md 1.1. `warn` gets what is not an error: skipped children, and keys that
// nobody reads. InvalidArgument names the field, and the child where there is one.
absl::StatusOr<RagSpec> ReadRagSpec(const Json& document,
                                    const std::function<void(const std::string&)>& warn);

}  // namespace flowmesh::tasks
