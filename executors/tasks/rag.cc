#include "executors/tasks/rag.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/tasks/data_context.h"

namespace flowmesh::tasks {
namespace {

// Makes the prompts of every unit its queries, with data sets loaded: before the model is, since it
// is here that most mistakes show.
absl::Status LoadQueries(RagSpec& spec, const TaskContext& context, const EnvLookup& env) {
  for (RagUnit& unit : spec.units) {
    std::vector<data::Prompt> prompts = std::move(unit.source.prompts);
    if (unit.source.data_set) {
      context.on_progress({.stage = "loading data"});
      auto loaded = data::LoadPrompts(*unit.source.data_set, DataContextOf(context, env));
      if (!loaded.ok()) {
        return absl::Status(loaded.status().code(),
                            absl::StrCat(unit.label, loaded.status().message()));
      }
      prompts = *std::move(loaded);
    }
    for (data::Prompt& prompt : prompts) {
      if (Trim(prompt.rendered).empty()) {
        return absl::InvalidArgumentError(
            absl::StrCat(unit.label, prompt.path, ": expected a query, got an empty text"));
      }
      unit.queries.push_back(std::move(prompt.rendered));
    }
  }
  return absl::OkStatus();
}

Json Usage(double seconds, size_t queries, size_t results) {
  return {{"latency_sec", std::round(seconds * 1e4) / 1e4},
          {"num_queries", queries},
          {"total_results", results}};
}

// The list of points or passages for a text and, unless a server embeds it, its vector.
using Search = std::function<absl::StatusOr<Json>(std::string text, std::vector<float> vector)>;

Search SearchQdrant(const RagSpec& spec, const TaskContext& context) {
  retrieval::QdrantOptions options = spec.qdrant;
  options.is_cancelled = context.is_stopped;
  const auto client = std::make_shared<retrieval::QdrantClient>(std::move(options));
  return [client, model = spec.embedding.identifier](std::string text, std::vector<float> vector) {
    return client->Search({.vector = std::move(vector), .text = std::move(text), .model = model});
  };
}

Search SearchStore(const RagSpec& spec, retrieval::Store& store, const TaskContext& context) {
  return [&spec, &store, &context](std::string text, std::vector<float> vector) {
    retrieval::StoreQuery query = spec.store->search;
    query.vector = std::move(vector);
    query.text = std::move(text);
    query.is_stopped = context.is_stopped;
    return store.Search(query);
  };
}

Json PlaceOf(const RagSpec& spec) {
  if (spec.store) return {{"store", {{"type", "embedded"}, {"path", spec.store->place.path}}}};
  return {{"qdrant", {{"collection", spec.qdrant.collection}, {"url", ShownUrl(spec.qdrant.url)}}}};
}

// Without `usage`. `items`: what was found for the unit's queries, in their order.
Json ResultOf(const RagSpec& spec, const RagUnit& unit, std::vector<Json> items) {
  Json queries = Json::array();
  for (size_t i = 0; i < unit.queries.size(); ++i) {
    queries.push_back({{"index", i}, {"query", unit.queries[i]}, {"items", std::move(items[i])}});
  }
  Json result = {{"ok", true}, {"executor", "rag"}};
  result.update(PlaceOf(spec));
  result["embedding"] = {{"model", spec.embedding.identifier}};
  result["search"] = {{"top_k", spec.qdrant.limit}};
  result["queries"] = std::move(queries);
  return result;
}

}  // namespace

at::Device RagRunner::DeviceOf(const RagSpec& spec) const {
  return use_cuda_ && !spec.enforce_cpu ? gpu_ : at::Device(at::kCPU);
}

absl::StatusOr<std::vector<std::vector<float>>> RagRunner::Embed(
    const std::vector<std::string>& texts, const TaskContext& context) {
  return encoder_.embedder().embed(texts, [&](size_t done) {
    context.on_progress(
        {.stage = "embedding", .done = done, .total = texts.size(), .unit = "items"});
    return !context.is_stopped();
  });
}

absl::StatusOr<std::unique_ptr<retrieval::Store>> RagRunner::OpenStore(const RagSpec& spec,
                                                                       const TaskContext& context,
                                                                       Json* ingested) {
  ASSIGN_OR_RETURN(retrieval::OpenedStore opened,
                   retrieval::OpenStore(spec.store->place, spec.embedding.identifier,
                                        encoder_.embedder(), OnIngestOf(context)));
  if (!opened.ingested) return std::move(opened.store);
  const retrieval::IngestCounts& counts = *opened.ingested;
  *ingested = {{"files", counts.files},
               {"unchanged", counts.unchanged},
               {"passages", counts.passages},
               {"removed", counts.removed}};
  context.on_log(
      LogLevel::kInfo,
      absl::StrFormat("store %s: %d files, %d of them unchanged, %d passages added, %d files gone",
                      spec.store->place.path, counts.files, counts.unchanged, counts.passages,
                      counts.removed));
  return std::move(opened.store);
}

absl::StatusOr<TaskOutcome> RagRunner::Answer(const RagSpec& spec, const TaskContext& context) {
  std::unique_ptr<retrieval::Store> store;
  Json ingested;
  if (spec.store) {
    ASSIGN_OR_RETURN(store, OpenStore(spec, context, &ingested));
  }
  const double begin = MonotonicSeconds();
  std::vector<std::string> queries;
  for (const RagUnit& unit : spec.units) {
    queries.insert(queries.end(), unit.queries.begin(), unit.queries.end());
  }
  std::vector<std::vector<float>> vectors(queries.size());
  if (!spec.by_server) {
    ASSIGN_OR_RETURN(vectors, Embed(queries, context));
  }
  const Search search = store ? SearchStore(spec, *store, context) : SearchQdrant(spec, context);

  TaskOutcome outcome;
  std::vector<Json> results;
  size_t done = 0, total = 0;
  for (const RagUnit& unit : spec.units) {
    std::vector<Json> items;
    size_t found = 0;
    for (size_t i = 0; i < unit.queries.size(); ++i) {
      if (context.is_stopped()) return absl::CancelledError("stopped");
      absl::StatusOr<Json> points = search(std::move(queries[done]), std::move(vectors[done]));
      if (absl::IsCancelled(points.status())) return points.status();
      if (!points.ok()) {
        return absl::Status(points.status().code(),
                            absl::StrCat(unit.label, "query ", i, ": ", points.status().message()));
      }
      found += points->size();
      items.push_back(*std::move(points));
      context.on_progress(
          {.stage = "searching", .done = ++done, .total = queries.size(), .unit = "items"});
    }
    results.push_back(ResultOf(spec, unit, std::move(items)));
    results.back()["usage"] = Usage(0, unit.queries.size(), found);
    total += found;
  }

  if (spec.generation) {
    std::vector<Json*> all;
    for (Json& result : results) {
      for (Json& query : result["queries"]) all.push_back(&query);
    }
    RETURN_IF_ERROR(generator_.Answer(*spec.generation, DeviceOf(spec), all, context, env_));
  }
  const double seconds = MonotonicSeconds() - begin;
  outcome.result = std::move(results.front());
  if (!ingested.is_null()) outcome.result["ingested"] = std::move(ingested);
  outcome.result["usage"] = Usage(seconds, queries.size(), total);
  for (size_t i = 1; i < results.size(); ++i) {
    // The time of the whole batch is everybody's.
    results[i]["usage"]["latency_sec"] = outcome.result["usage"]["latency_sec"];
    outcome.result["children"][spec.units[i].task_id] = std::move(results[i]);
  }
  context.on_log(LogLevel::kInfo,
                 absl::StrFormat("%s %s, model %s: %d queries, %d results in %.2f s",
                                 store ? "store" : "collection",
                                 store ? spec.store->place.path : spec.qdrant.collection,
                                 spec.embedding.identifier, queries.size(), total, seconds));
  return outcome;
}

absl::StatusOr<TaskOutcome> RagRunner::Run(const TaskContext& context) {
  ASSIGN_OR_RETURN(RagSpec spec, ReadRagSpec(context.document, [&](const std::string& text) {
                     context.on_log(LogLevel::kWarning, text);
                   }));
  RETURN_IF_ERROR(LoadQueries(spec, context, env_));
  if (spec.generation) {  // its name is wrong before documents come in
    RETURN_IF_ERROR(
        FindByName(spec.generation->model, "spec.generation.model", context, env_).status());
  }
  if (!spec.by_server) {
    RETURN_IF_ERROR(
        encoder_.Load(spec.embedding, "spec.embedding.model", DeviceOf(spec), context, env_));
  }
  return Answer(spec, context);
}

}  // namespace flowmesh::tasks
