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
#include "executors/retrieval/ingest.h"
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

// `spec.store`: passages in a file of this machine instead of a Qdrant server.
//   store:
//     type: embedded
//     path: ./handbook.db          # made when it is not there
//     sources: [./handbook]        # files, folders, URLs that are brought in first; none: as it is
//     chunking: {by: headings, size: 200, overlap: 20}   # or tokens (the default), sentences
//     text_column: text            # of files of rows
//     metadata: {lang: en}         # of every passage
//   search: {top_k: 5, hybrid: true, score_threshold: 0.3, filter: {year: {gte: 2020}}}
struct StoreSpec {
  std::string path;
  retrieval::IngestOptions ingest;  // a chunking size of 0: the default
  bool hybrid = false;
  std::optional<double> threshold;
  Json filter = Json::object();
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

inline constexpr char kDefaultEmbeddingModel[] = "sentence-transformers/all-MiniLM-L6-v2";

// `document`: TASKS.md 1.1. `warn` gets what is not an error: skipped children, and keys that
// nobody reads. InvalidArgument names the field, and the child where there is one.
absl::StatusOr<RagSpec> ReadRagSpec(const Json& document,
                                    const std::function<void(const std::string&)>& warn);

}  // namespace flowmesh::tasks
