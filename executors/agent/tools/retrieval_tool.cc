// Passages of a store of this machine (executors/retrieval), which may be made for the agent.
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/synchronization/mutex.h"
#include "common/strings.h"
#include "executors/agent/tools/check_keys.h"
#include "executors/agent/tools/tool_makers.h"
#include "executors/retrieval/embedded_store.h"

namespace flowmesh::agent {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(50);  // between looks at is_stopped

// `items`: of Store::Search. Each passage behind its number and what is known of it.
std::string Told(const Json& items) {
  if (items.empty()) return "nothing was found";
  std::string out;
  int number = 0;
  for (const Json& item : items) {
    absl::StrAppend(&out, out.empty() ? "" : "\n\n", "[", ++number, "]");
    for (const auto& [key, value] : item["payload"].items()) {
      if (key != "text") absl::StrAppend(&out, " ", key, ": ", JsonToText(value), ";");
    }
    absl::StrAppend(&out, absl::StrFormat(" score: %.3f\n", item["score"].get<double>()),
                    item["payload"]["text"].get<std::string>());
  }
  return out;
}

// An open store with the encoder that it was made with. Any thread.
class Passages {
 public:
  Passages(std::unique_ptr<retrieval::Store> store, retrieval::Embedder embedder,
           retrieval::StoreQuery query)
      : store_(std::move(store)), embedder_(std::move(embedder)), query_(std::move(query)) {}

  absl::StatusOr<std::string> Find(const std::string& text, const ToolContext& context)
      ABSL_LOCKS_EXCLUDED(mutex_) {
    if (Trim(text).empty()) return absl::InvalidArgumentError("query: expected a text");
    const auto is_over = [&context] { return IsOver(context); };
    ASSIGN_OR_RETURN(auto vectors, embedder_.embed({text}, [&](size_t) { return !is_over(); }));
    retrieval::StoreQuery query = query_;
    query.vector = std::move(vectors.front());
    query.text = text;
    query.is_stopped = is_over;
    RETURN_IF_ERROR(Enter(is_over));
    const auto leave = absl::MakeCleanup([this] {
      absl::MutexLock lock(&mutex_);
      is_taken_ = false;
    });
    ASSIGN_OR_RETURN(const Json items, store_->Search(query));
    return Told(items);
  }

 private:
  // Waits for its turn: another's search may take long, where it makes the store's index.
  absl::Status Enter(const std::function<bool()>& is_over) ABSL_LOCKS_EXCLUDED(mutex_) {
    const auto is_free = [this]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return !is_taken_; };
    absl::MutexLock lock(&mutex_);
    while (!mutex_.AwaitWithTimeout(absl::Condition(&is_free), kPoll)) {
      if (is_over()) return absl::CancelledError("stopped");
    }
    is_taken_ = true;
    return absl::OkStatus();
  }

  absl::Mutex mutex_;
  bool is_taken_ ABSL_GUARDED_BY(mutex_) = false;
  const std::unique_ptr<retrieval::Store> store_;  // of whoever has taken it
  const retrieval::Embedder embedder_;
  const retrieval::StoreQuery query_;  // what is the same in all
};

}  // namespace

absl::StatusOr<Tools> MakeRetrieval(const Field& options, const ToolEnvironment& environment) {
  RETURN_IF_ERROR(
      CheckKeys(options, {"path", "model", "sources", "chunking", "text_column", "metadata",
                          "top_k", "hybrid", "score_threshold", "filter", "name", "description"}));
  RETURN_IF_ERROR(CheckKeys(options["chunking"], {"by", "size", "overlap"}));
  ASSIGN_OR_RETURN(const retrieval::StoreOptions place, retrieval::ReadStoreOptions(options));
  ASSIGN_OR_RETURN(retrieval::StoreQuery query, retrieval::ReadSearchOptions(options));
  ASSIGN_OR_RETURN(const std::string model,
                   options["model"].StringOr(retrieval::kDefaultEmbeddingModel));
  ASSIGN_OR_RETURN(const std::string name, options["name"].StringOr("search_passages"));
  if (!IsToolName(name)) {
    return options["name"].Expected("at most 64 letters, digits, '-' and '_'");
  }
  ASSIGN_OR_RETURN(
      const std::string description,
      options["description"].StringOr(
          "Finds the passages of a collection of documents that are nearest in meaning "
          "to a query."));
  if (!environment.make_embedder) {
    return absl::FailedPreconditionError(
        absl::StrCat(options.path(), ": this worker runs no encoders"));
  }
  auto embedder = environment.make_embedder(model);
  if (!embedder.ok()) return Annotate(embedder.status(), options["model"].path());
  ASSIGN_OR_RETURN(retrieval::OpenedStore opened,
                   retrieval::OpenStore(place, model, *embedder, environment.on_ingest));
  const auto passages =
      std::make_shared<Passages>(std::move(opened.store), *std::move(embedder), std::move(query));
  return Tools{MakeTool(
      {.name = name,
       .description = description,
       .parameters =
           Parameters({{"query", "string", "what to look for, in a few words or a sentence"}})},
      [passages](const Json& arguments, const ToolContext& context) {
        return passages->Find(arguments["query"].get<std::string>(), context);
      })};
}

}  // namespace flowmesh::agent
