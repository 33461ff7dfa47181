#include "executors/tasks/rag_spec.h"

#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/files.h"
#include "common/http.h"
#include "common/strings.h"
#include "executors/tasks/unread_keys.h"

namespace flowmesh::tasks {
namespace {

using Warn = std::function<void(const std::string&)>;

constexpr int64_t kMostPoints = 10000;
constexpr uint64_t kMostCaBytes = 16u << 20;

// Trimmed; empty when absent.
absl::StatusOr<std::string> ReadName(const Field& field, std::string_view fallback = "") {
  ASSIGN_OR_RETURN(const std::string given, field.StringOr(fallback));
  return Trim(given).empty() ? std::string(fallback) : std::string(Trim(given));
}

absl::StatusOr<retrieval::QdrantOptions> ReadQdrant(const Field& spec) {
  const Field block = spec["qdrant"], search = spec["search"];
  RETURN_IF_ERROR(block.CheckMap());
  retrieval::QdrantOptions options;
  ASSIGN_OR_RETURN(options.url, ReadName(block["url"]));
  if (options.url.empty()) return block["url"].Error("required");
  // A URL may hold a password: what was found is not shown.
  if (UrlOrigin(options.url).empty()) {
    return block["url"].Error("expected an http or https URL, such as http://127.0.0.1:6333");
  }
  ASSIGN_OR_RETURN(options.collection, ReadName(block["collection"]));
  if (options.collection.empty()) return block["collection"].Error("required");
  const Field key = block["api_key"];
  if (key.present() && !key.json().is_string()) return key.Error("expected a string");
  ASSIGN_OR_RETURN(options.api_key, ReadName(key));
  ASSIGN_OR_RETURN(options.ca_cert, ReadName(block["ca_cert"]));
  if (!options.ca_cert.empty()) {
    const absl::StatusOr<std::string> content = ReadFile(options.ca_cert, kMostCaBytes);
    if (!content.ok()) return Annotate(content.status(), block["ca_cert"].path());
    if (!absl::StrContains(*content, "-----BEGIN CERTIFICATE-----")) {
      return block["ca_cert"].Error(
          absl::StrCat("expected a file with certificates in PEM, got ", options.ca_cert));
    }
  }
  ASSIGN_OR_RETURN(options.using_name, ReadName(search["using"]));
  return options;
}

absl::StatusOr<StoreSpec> ReadStore(const Field& spec) {
  const Field block = spec["store"];
  RETURN_IF_ERROR(block.CheckMap());
  if (spec["qdrant"].present()) return block.Error("excludes spec.qdrant");
  ASSIGN_OR_RETURN(const std::string type, block["type"].NonEmptyString());
  if (type != "embedded") return block["type"].Expected("embedded");
  StoreSpec store;
  ASSIGN_OR_RETURN(store.place, retrieval::ReadStoreOptions(block));
  ASSIGN_OR_RETURN(store.search, retrieval::ReadSearchOptions(spec["search"]));
  return store;
}

// Where the passages are: in a store or at a Qdrant server.
absl::Status ReadPlace(const Field& spec, RagSpec* result) {
  RETURN_IF_ERROR(spec["search"].CheckMap());
  if (spec["store"].present()) {
    ASSIGN_OR_RETURN(result->store, ReadStore(spec));
    if (result->by_server) {
      return spec["embedding"]["mode"].Error("server: a store has no server that embeds");
    }
  } else {
    ASSIGN_OR_RETURN(result->qdrant, ReadQdrant(spec));
  }
  ASSIGN_OR_RETURN(result->qdrant.limit, spec["search"]["top_k"].IntOr(5, 1, kMostPoints));
  return absl::OkStatus();
}

absl::Status ReadEmbedding(const Field& block, RagSpec* result) {
  RETURN_IF_ERROR(block.CheckMap());
  ASSIGN_OR_RETURN(result->embedding.identifier,
                   ReadName(block["model"], retrieval::kDefaultEmbeddingModel));
  ASSIGN_OR_RETURN(result->embedding.revision, ReadName(block["revision"], "main"));
  ASSIGN_OR_RETURN(result->embedding.download_dir, ReadName(block["download_dir"]));
  ASSIGN_OR_RETURN(const std::string mode, ReadName(block["mode"], "local"));
  if (mode != "local" && mode != "server") return block["mode"].Expected("local or server");
  result->by_server = mode == "server";
  return absl::OkStatus();
}

// `child`: an entry of merge_children. Nothing when it is to be skipped.
absl::StatusOr<std::optional<RagUnit>> ReadChild(const Field& child, const Field& parent_spec,
                                                 const Warn& warn) {
  const absl::StatusOr<std::string> id = child["task_id"].NonEmptyString();
  if (!id.ok() || !child["spec"].json().is_object()) {
    warn(absl::StrCat(child.path(), " has no task_id or no spec and is skipped"));
    return std::nullopt;
  }
  RagUnit unit{.task_id = *id, .label = absl::StrCat(child.path(), " (task ", *id, "): ")};
  const Field spec(&child["spec"].json(), "spec");
  for (const char* key : {"qdrant", "store", "embedding", "search", "generation"}) {
    if (spec[key].json() == parent_spec[key].json()) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(unit.label, spec[key].path(), " differs from the parent's"));
  }
  auto source = data::ReadQueries(spec);
  if (!source.ok()) {
    return absl::Status(source.status().code(),
                        absl::StrCat(unit.label, source.status().message()));
  }
  unit.source = *std::move(source);
  return unit;
}

}  // namespace

absl::StatusOr<RagSpec> ReadRagSpec(const Json& document, const Warn& warn) {
  const Field root(&document, "");
  const Field spec = root["spec"];
  if (!spec.json().is_object()) return spec.Expected("a map");
  RagSpec result;
  ASSIGN_OR_RETURN(result.enforce_cpu, spec["enforce_cpu"].BoolOr(false));
  RETURN_IF_ERROR(ReadEmbedding(spec["embedding"], &result));
  RETURN_IF_ERROR(ReadPlace(spec, &result));
  if (spec["generation"].present()) {
    ASSIGN_OR_RETURN(result.generation, ReadGeneration(spec["generation"]));
  }
  RagUnit parent;
  ASSIGN_OR_RETURN(parent.task_id, root["task_id"].StringOr(""));
  ASSIGN_OR_RETURN(parent.source, data::ReadQueries(spec));
  result.units.push_back(std::move(parent));
  const Field children = root["merge_children"];
  RETURN_IF_ERROR(children.CheckList());
  for (size_t i = 0; i < children.size(); ++i) {
    ASSIGN_OR_RETURN(auto child, ReadChild(children[i], spec, warn));
    if (child) result.units.push_back(*std::move(child));
  }
  WarnOfUnread(spec["qdrant"], {"url", "collection", "api_key", "ca_cert"}, warn);
  WarnOfUnread(spec["embedding"], {"model", "mode", "revision", "download_dir"}, warn);
  WarnOfUnread(spec["store"], {"type", "path", "sources", "chunking", "text_column", "metadata"},
               warn);
  WarnOfUnread(spec["store"]["chunking"], {"by", "size", "overlap"}, warn);
  WarnOfUnread(spec["generation"],
               {"model", "revision", "instructions", "max_tokens", "temperature", "seed"}, warn);
  if (result.store) {
    WarnOfUnread(spec["search"], {"top_k", "hybrid", "score_threshold", "filter"}, warn);
  } else {
    WarnOfUnread(spec["search"], {"top_k", "using"}, warn);
  }
  return result;
}

}  // namespace flowmesh::tasks
