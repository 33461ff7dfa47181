#include "executors/data/prompts.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/data/graph_template.h"

namespace flowmesh::data {
namespace {

Prompt MakePrompt(std::string path, Json raw, const std::string& system_prompt,
                  const Json& given_metadata) {
  Prompt prompt{.raw = std::move(raw), .path = std::move(path)};
  const std::string text = JsonToText(prompt.raw);
  prompt.rendered = system_prompt.empty() ? text : absl::StrCat(system_prompt, "\n", text);
  prompt.metadata = {{"prompt", prompt.raw}, {"rendered_prompt", prompt.rendered}};
  if (given_metadata.is_object()) prompt.metadata.update(given_metadata);
  return prompt;
}

// The metadata list of `data`: absent, or a map or null for each item.
absl::StatusOr<Field> ReadMetadata(const Field& data, size_t items) {
  Field list = data["metadata"];
  RETURN_IF_ERROR(list.CheckList());
  if (list.size() == 0) list = data["items_metadata"];
  RETURN_IF_ERROR(list.CheckList());
  if (list.size() != 0 && list.size() != items) {
    return list.Error(absl::StrCat("expected one entry for each item, got ", list.size(),
                                   " entries for ", items, " items"));
  }
  for (size_t i = 0; i < list.size(); ++i) RETURN_IF_ERROR(list[i].CheckMap());
  return list;
}

absl::StatusOr<std::vector<Prompt>> ReadList(const Field& data, const std::string& system_prompt,
                                             bool with_messages) {
  const Field items = data["items"];
  RETURN_IF_ERROR(items.CheckList());
  if (items.size() == 0) return items.Expected("a non-empty list of strings");
  ASSIGN_OR_RETURN(const Field metadata, ReadMetadata(data, items.size()));
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < items.size(); ++i) {
    Json raw = items[i].json();
    if (!with_messages || !raw.is_array()) {
      ASSIGN_OR_RETURN(raw, items[i].String());
    }
    prompts.push_back(
        MakePrompt(items[i].path(), std::move(raw), system_prompt, metadata[i].json()));
  }
  return prompts;
}

absl::StatusOr<std::vector<Prompt>> ReadTemplate(const Field& spec,
                                                 const std::string& system_prompt) {
  const Field data = spec["data"];
  ASSIGN_OR_RETURN(std::string text, RenderGraphTemplate(data, spec["_upstreamResults"]));
  ASSIGN_OR_RETURN(const bool append, data["template"]["append_system_prompt"].BoolOr(false));
  return std::vector<Prompt>{
      MakePrompt(data.path(), std::move(text), append ? system_prompt : "", Json())};
}

// `metadata_columns`: names, or a map of names to what they are called in the metadata.
absl::Status ReadMetadataColumns(const Field& data, DataSetPrompts& out) {
  const Field columns = data["metadata_columns"];
  if (columns.json().is_object()) {
    for (const auto& [name, alias] : columns.json().items()) {
      ASSIGN_OR_RETURN(std::string text, columns[name].NonEmptyString());
      out.metadata_columns.emplace_back(name, std::move(text));
    }
  } else if (columns.json().is_array()) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, columns.StringList());
    for (const std::string& name : names) out.metadata_columns.emplace_back(name, name);
  } else if (columns.present()) {
    return columns.Expected("a list of names, or a map of names to aliases");
  }
  ASSIGN_OR_RETURN(const bool all, data["metadata_include_all"].BoolOr(false));
  out.all_metadata = all && out.metadata_columns.empty();
  return absl::OkStatus();
}

absl::StatusOr<DataSetPrompts> ReadDataSetPrompts(const Field& spec,
                                                  const std::string& system_prompt) {
  const Field data = spec["data"];
  DataSetPrompts result{.column_path = data["column"].path(), .system_prompt = system_prompt};
  const Field name = data.FirstOf({"url", "dataset_name"});
  if (!name.present()) return name.Error("required");
  ASSIGN_OR_RETURN(result.data_set, ReadDataSet(data, name, data.FirstOf({"name", "config_name"})));
  ASSIGN_OR_RETURN(const std::string column, data["column"].StringOr("text"));
  result.column = Trim(column).empty() ? "text" : std::string(Trim(column));
  RETURN_IF_ERROR(ReadMetadataColumns(data, result));
  ASSIGN_OR_RETURN(const bool shuffle, data["shuffle"].BoolOr(false));
  ASSIGN_OR_RETURN(const int64_t seed, data["seed"].IntOr(42, 0));
  if (shuffle) result.shuffle_seed = static_cast<uint64_t>(seed);
  ASSIGN_OR_RETURN(result.shard, ReadShard(spec));
  return result;
}

Json MetadataOf(const DataSetPrompts& from, const Table& table, size_t row) {
  const Json& values = table.rows[row].values;
  Json metadata = Json::object();
  for (const auto& [name, alias] : from.metadata_columns) {
    if (const auto it = values.find(name); it != values.end()) metadata[alias] = *it;
  }
  if (!from.all_metadata) return metadata;
  for (const std::string& name : table.columns) {
    if (name != from.column) metadata[name] = table.At(row, name);
  }
  return metadata;
}

// The places of the rows that are wanted, in their order.
std::vector<size_t> WantedRows(const DataSetPrompts& from, size_t rows) {
  std::vector<size_t> places = ShardRows(from.shard, rows);
  if (!from.shuffle_seed) return places;
  const std::vector<size_t> order = Permutation(*from.shuffle_seed, rows);
  for (size_t& place : places) place = order[place];
  return places;
}

// The type of `spec.data` in lower case.
absl::StatusOr<std::string> ReadType(const Field& data) {
  ASSIGN_OR_RETURN(const std::string given, data["type"].NonEmptyString());
  return ToLower(given);
}

bool IsEmptyMap(const Field& data) { return !data.present() || data.json().empty(); }

}  // namespace

absl::StatusOr<PromptSource> ReadPrompts(const Field& spec, const std::string& system_prompt,
                                         bool with_messages) {
  const Field data = spec["data"];
  RETURN_IF_ERROR(data.CheckMap());
  if (IsEmptyMap(data)) return data.Error("required");
  ASSIGN_OR_RETURN(const std::string type, ReadType(data));
  PromptSource source;
  if (type == "list") {
    ASSIGN_OR_RETURN(source.prompts, ReadList(data, system_prompt, with_messages));
  } else if (type == "graph_template") {
    ASSIGN_OR_RETURN(source.prompts, ReadTemplate(spec, system_prompt));
  } else if (type == "dataset") {
    ASSIGN_OR_RETURN(source.data_set, ReadDataSetPrompts(spec, system_prompt));
  } else {
    return data["type"].Expected("list, dataset or graph_template");
  }
  return source;
}

absl::StatusOr<PromptSource> ReadTasks(const Field& spec) {
  const Field data = spec["data"];
  RETURN_IF_ERROR(data.CheckMap());
  Field text = spec["task"];
  if (!IsEmptyMap(data)) {
    ASSIGN_OR_RETURN(const std::string type, ReadType(data));
    if (type == "list" || type == "graph_template" || type == "dataset") {
      return ReadPrompts(spec, "");
    }
    if (type != "static") {
      return data["type"].Expected("list, dataset, graph_template or static");
    }
    text = data["task"];
  } else if (!text.present()) {
    return data.Error("required, or spec.task");
  }
  ASSIGN_OR_RETURN(std::string task, text.String());
  return PromptSource{.prompts = {MakePrompt(text.path(), std::move(task), "", Json())}};
}

absl::StatusOr<PromptSource> ReadQueries(const Field& spec) {
  const Field data = spec["data"], text = spec["query"];
  RETURN_IF_ERROR(data.CheckMap());
  if (!IsEmptyMap(data)) return ReadPrompts(spec, "");
  if (!text.present()) return data.Error("required, or spec.query");
  ASSIGN_OR_RETURN(std::string query, text.String());
  return PromptSource{.prompts = {MakePrompt(text.path(), std::move(query), "", Json())}};
}

absl::StatusOr<std::vector<Prompt>> LoadPrompts(const DataSetPrompts& from,
                                                const DataContext& context) {
  ASSIGN_OR_RETURN(const Table table, LoadDataSet(from.data_set, context));
  if (!table.HasColumn(from.column)) {
    return absl::InvalidArgumentError(
        absl::StrCat(from.column_path, ": column '", from.column,
                     "' not found; columns are: ", table.ColumnNames()));
  }
  std::vector<Prompt> prompts;
  for (const size_t row : WantedRows(from, table.rows.size())) {
    prompts.push_back(MakePrompt(absl::StrCat(from.data_set.path, ": ", table.Place(row)),
                                 table.At(row, from.column), from.system_prompt,
                                 MetadataOf(from, table, row)));
  }
  if (!prompts.empty()) return prompts;
  return absl::InvalidArgumentError(absl::StrCat(
      from.data_set.path, ": expected at least one row in split and shard, got none of ",
      table.rows.size()));
}

}  // namespace flowmesh::data
