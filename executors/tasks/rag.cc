#include "executors/tasks/rag.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/clock.h"
#include "common/redact.h"
#include "common/strings.h"
#include "executors/tasks/data_context.h"

namespace flowmesh::tasks {
namespace {

double Now() { return absl::ToDoubleSeconds(Clock::Real().Monotonic()); }

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

// Without `usage`. `items`: what was found for the unit's queries, in their order.
Json ResultOf(const RagSpec& spec, const RagUnit& unit, std::vector<Json> items) {
  Json queries = Json::array();
  for (size_t i = 0; i < unit.queries.size(); ++i) {
    queries.push_back({{"index", i}, {"query", unit.queries[i]}, {"items", std::move(items[i])}});
  }
  return {{"ok", true},
          {"executor", "rag"},
          {"qdrant", {{"collection", spec.qdrant.collection}, {"url", ShownUrl(spec.qdrant.url)}}},
          {"embedding", {{"model", spec.embedding.identifier}}},
          {"search", {{"top_k", spec.qdrant.limit}}},
          {"queries", std::move(queries)}};
}

}  // namespace

absl::Status RagRunner::Load(const RagSpec& spec, const TaskContext& context) {
  ASSIGN_OR_RETURN(const std::filesystem::path folder,
                   FindByName(spec.embedding, "spec.embedding.model", context, env_));
  const at::Device device = use_cuda_ && !spec.enforce_cpu ? gpu_ : at::Device(at::kCPU);
  std::string key = absl::StrCat(spec.embedding.identifier, "\n", spec.embedding.revision, "\n",
                                 device.str(), "\n", StampOf(folder));
  if (key == encoder_key_) {
    context.on_log(LogLevel::kInfo, absl::StrCat("model ", spec.embedding.identifier, " is warm"));
    return absl::OkStatus();
  }
  // The old one goes first: two may not fit.
  encoder_key_.clear();
  encoder_.reset();
  context.on_progress({.stage = "loading model"});
  const double begin = Now();
  auto loaded = model::SentenceEncoder::Load(folder, device);
  if (!loaded.ok()) return Annotate(loaded.status(), "spec.embedding.model");
  encoder_ = *std::move(loaded);
  for (const std::string& warning : encoder_->warnings()) {
    context.on_log(LogLevel::kWarning, warning);
  }
  encoder_key_ = std::move(key);
  context.on_log(
      LogLevel::kInfo,
      absl::StrFormat("loaded model %s in %.2f s: path %s, revision %s, device %s, dimension %d",
                      spec.embedding.identifier, Now() - begin, folder.string(),
                      spec.embedding.revision, device.str(), encoder_->dimension()));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<retrieval::QdrantQuery>> RagRunner::Embed(const RagSpec& spec,
                                                                     const TaskContext& context) {
  std::vector<std::string> texts;
  for (const RagUnit& unit : spec.units) {
    texts.insert(texts.end(), unit.queries.begin(), unit.queries.end());
  }
  std::vector<retrieval::QdrantQuery> queries(texts.size());
  if (spec.by_server) {
    for (size_t i = 0; i < texts.size(); ++i) {
      queries[i] = {.text = std::move(texts[i]), .model = spec.embedding.identifier};
    }
    return queries;
  }
  ASSIGN_OR_RETURN(const at::Tensor vectors, encoder_->Embed(texts, [&](size_t done) {
    context.on_progress(
        {.stage = "embedding", .done = done, .total = texts.size(), .unit = "items"});
    return !context.is_stopped();
  }));
  const float* row = vectors.const_data_ptr<float>();
  for (retrieval::QdrantQuery& query : queries) {
    query.vector.assign(row, row + vectors.size(1));
    row += vectors.size(1);
  }
  return queries;
}

absl::StatusOr<TaskOutcome> RagRunner::Answer(const RagSpec& spec, const TaskContext& context) {
  const double begin = Now();
  ASSIGN_OR_RETURN(const std::vector<retrieval::QdrantQuery> queries, Embed(spec, context));
  retrieval::QdrantOptions options = spec.qdrant;
  options.is_cancelled = context.is_stopped;
  retrieval::QdrantClient client(std::move(options));

  TaskOutcome outcome;
  std::vector<Json> results;
  size_t done = 0, total = 0;
  for (const RagUnit& unit : spec.units) {
    std::vector<Json> items;
    size_t found = 0;
    for (size_t i = 0; i < unit.queries.size(); ++i) {
      if (context.is_stopped()) return absl::CancelledError("stopped");
      absl::StatusOr<Json> points = client.Search(queries[done]);
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

  const double seconds = Now() - begin;
  outcome.result = std::move(results.front());
  outcome.result["usage"] = Usage(seconds, queries.size(), total);
  for (size_t i = 1; i < results.size(); ++i) {
    // The time of the whole batch is everybody's.
    results[i]["usage"]["latency_sec"] = outcome.result["usage"]["latency_sec"];
    outcome.result["children"][spec.units[i].task_id] = std::move(results[i]);
  }
  context.on_log(LogLevel::kInfo,
                 absl::StrFormat("collection %s, model %s: %d queries, %d results in %.2f s",
                                 spec.qdrant.collection, spec.embedding.identifier, queries.size(),
                                 total, seconds));
  return outcome;
}

absl::StatusOr<TaskOutcome> RagRunner::Run(const TaskContext& context) {
  ASSIGN_OR_RETURN(RagSpec spec, ReadRagSpec(context.document, [&](const std::string& text) {
                     context.on_log(LogLevel::kWarning, text);
                   }));
  RETURN_IF_ERROR(LoadQueries(spec, context, env_));
  if (!spec.by_server) RETURN_IF_ERROR(Load(spec, context));
  return Answer(spec, context);
}

}  // namespace flowmesh::tasks
