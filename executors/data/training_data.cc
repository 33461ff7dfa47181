#include "executors/data/training_data.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "executors/data/demo_data.h"

namespace flowmesh::data {
namespace {

// A column's name from the first of `fields` that is present.
absl::StatusOr<ColumnName> ReadColumn(std::initializer_list<Field> fields,
                                      std::string_view fallback) {
  for (const Field& field : fields) {
    if (!field.present()) continue;
    ASSIGN_OR_RETURN(std::string name, field.NonEmptyString());
    return ColumnName{field.path(), std::move(name)};
  }
  return ColumnName{fields.begin()->path(), std::string(fallback)};
}

// `data.jsonl.<x>_field`, then `data.<x>_field` (TASKS.md 1.5).
absl::StatusOr<ColumnName> ReadJsonlColumn(const Field& data, std::string_view key,
                                           std::string_view fallback) {
  return ReadColumn({data["jsonl"][key], data[key]}, fallback);
}

// A chat in a column: [{role, content}, ...].
bool IsMessageList(const Json& value) {
  return value.is_array() && !value.empty() && value[0].is_object() && value[0].contains("role") &&
         value[0].contains("content");
}

absl::StatusOr<std::string> TextOf(const Json& value, const ColumnName& column) {
  if (IsMessageList(value)) {
    return absl::InvalidArgumentError(absl::StrCat(column.path, ": column '", column.name,
                                                   "' holds message lists; plain text is needed"));
  }
  return JsonToText(value);
}

absl::Status CheckColumn(const Table& table, const ColumnName& column) {
  if (table.HasColumn(column.name)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      column.path, ": column '", column.name, "' not found; columns are: ", table.ColumnNames()));
}

absl::Status MissingValue(const Table& table, size_t row, const ColumnName& column) {
  std::vector<std::string> names;
  for (const auto& [key, value] : table.rows[row].values.items()) {
    if (!value.is_null()) names.push_back(key);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(column.path, ": ", table.Place(row), " has no '", column.name,
                   "'; it has: ", names.empty() ? "nothing" : absl::StrJoin(names, ", ")));
}

// The text of a row, which must have one.
absl::StatusOr<std::string> RequiredText(const Table& table, size_t row, const ColumnName& column) {
  const Json& value = table.At(row, column.name);
  if (value.is_null()) return MissingValue(table, row, column);
  return TextOf(value, column);
}

absl::StatusOr<std::string> SftJsonlText(const SftData& data, const Table& table, size_t row) {
  const bool has_text = !data.text.name.empty() && !table.At(row, data.text.name).is_null();
  if (has_text || (data.prompt.name.empty() && data.response.name.empty())) {
    return RequiredText(table, row, data.text);
  }
  if (data.response.name.empty()) return RequiredText(table, row, data.prompt);
  if (data.prompt.name.empty()) return RequiredText(table, row, data.response);
  ASSIGN_OR_RETURN(const std::string prompt, RequiredText(table, row, data.prompt));
  ASSIGN_OR_RETURN(const std::string response, RequiredText(table, row, data.response));
  return absl::StrCat(prompt, data.separator, response);
}

absl::StatusOr<std::string> SftColumnText(const SftData& data, const Table& table, size_t row) {
  if (data.prompt.name.empty() || data.response.name.empty()) {
    return TextOf(table.At(row, data.text.name), data.text);
  }
  ASSIGN_OR_RETURN(const std::string prompt, TextOf(table.At(row, data.prompt.name), data.prompt));
  ASSIGN_OR_RETURN(const std::string response,
                   TextOf(table.At(row, data.response.name), data.response));
  return absl::StrCat(prompt, data.separator, response);
}

absl::Status CheckSftColumns(const SftData& data, const Table& table) {
  if (data.prompt.name.empty() || data.response.name.empty()) {
    return CheckColumn(table, data.text);
  }
  RETURN_IF_ERROR(CheckColumn(table, data.prompt));
  return CheckColumn(table, data.response);
}

// Whether dpo and ppo fall back to their demo sets: only without any `spec.data`.
bool HasNoData(const Field& data) { return !data.present() || data.json().empty(); }

// An entry of `spec.data.preferences`.
absl::StatusOr<Json> ReadPreference(const Field& entry) {
  if (!entry.present() || !entry.json().is_object()) return entry.Expected("a map");
  Json row = Json::object();
  for (const char* key : {"prompt", "chosen", "rejected"}) {
    const Field field = entry[key];
    if (!field.present()) return field.Error("required");
    if (IsMessageList(field.json())) {
      return field.Error("it is a message list; plain text is needed");
    }
    row[key] = field.json();
  }
  return row;
}

}  // namespace

absl::StatusOr<SftData> ReadSftData(const Field& spec) {
  const Field data = spec["data"];
  SftData result;
  ASSIGN_OR_RETURN(result.source, ReadTrainingSource(data, "prompts", [](const Field& entry) {
                     return absl::StatusOr<Json>(Json{{"text", JsonToText(entry.json())}});
                   }));
  Field separator = data["separator"];
  if (result.source.is_inline()) {
    result.text = {data["prompts"].path(), "text"};
  } else if (result.source.is_jsonl()) {
    ASSIGN_OR_RETURN(result.prompt, ReadJsonlColumn(data, "prompt_field", ""));
    ASSIGN_OR_RETURN(result.response, ReadJsonlColumn(data, "response_field", ""));
    const bool is_alone = result.prompt.name.empty() && result.response.name.empty();
    ASSIGN_OR_RETURN(result.text, ReadJsonlColumn(data, "text_field", is_alone ? "text" : ""));
    if (data["jsonl"]["separator"].present()) separator = data["jsonl"]["separator"];
  } else {
    ASSIGN_OR_RETURN(result.prompt, ReadColumn({data["prompt_column"]}, ""));
    ASSIGN_OR_RETURN(result.response, ReadColumn({data["response_column"]}, ""));
    ASSIGN_OR_RETURN(result.text, ReadColumn({data["text_field"]}, "text"));
  }
  ASSIGN_OR_RETURN(result.separator, separator.StringOr("\n\n"));
  return result;
}

absl::StatusOr<std::vector<std::string>> LoadSftData(const SftData& data,
                                                     const DataContext& context) {
  ASSIGN_OR_RETURN(const Table table, LoadTrainingSource(data.source, context));
  if (!data.source.is_jsonl()) RETURN_IF_ERROR(CheckSftColumns(data, table));
  std::vector<std::string> texts;
  texts.reserve(table.rows.size());
  for (size_t row = 0; row < table.rows.size(); ++row) {
    ASSIGN_OR_RETURN(std::string text, data.source.is_jsonl() ? SftJsonlText(data, table, row)
                                                              : SftColumnText(data, table, row));
    texts.push_back(std::move(text));
  }
  return texts;
}

absl::StatusOr<PreferenceData> ReadPreferenceData(const Field& spec) {
  const Field data = spec["data"];
  RETURN_IF_ERROR(data.CheckMap());
  PreferenceData result;
  if (HasNoData(data)) return result;
  ASSIGN_OR_RETURN(result.source, ReadTrainingSource(data, "preferences", ReadPreference));
  const auto read = [&](const std::string& name) -> absl::StatusOr<ColumnName> {
    if (result.source->is_inline()) return ColumnName{data["preferences"].path(), name};
    if (result.source->is_jsonl()) return ReadJsonlColumn(data, name + "_field", name);
    return ReadColumn({data[name + "_column"]}, name);
  };
  ASSIGN_OR_RETURN(result.prompt, read("prompt"));
  ASSIGN_OR_RETURN(result.chosen, read("chosen"));
  ASSIGN_OR_RETURN(result.rejected, read("rejected"));
  if (auto* data_set = std::get_if<DataSet>(&result.source->from)) {
    data_set->configuration_may_be_split = true;
  }
  return result;
}

absl::StatusOr<std::vector<Preference>> LoadPreferenceData(const PreferenceData& data,
                                                           const DataContext& context) {
  if (data.is_demo()) {
    if (context.warn) context.warn("spec.data: none is given: training on built-in demo data");
    return DemoPreferences();
  }
  ASSIGN_OR_RETURN(const Table table, LoadTrainingSource(*data.source, context));
  for (const ColumnName* column : {&data.prompt, &data.chosen, &data.rejected}) {
    if (!data.source->is_jsonl()) RETURN_IF_ERROR(CheckColumn(table, *column));
  }
  std::vector<Preference> preferences;
  preferences.reserve(table.rows.size());
  for (size_t row = 0; row < table.rows.size(); ++row) {
    Preference preference;
    ASSIGN_OR_RETURN(preference.prompt, RequiredText(table, row, data.prompt));
    ASSIGN_OR_RETURN(preference.chosen, RequiredText(table, row, data.chosen));
    ASSIGN_OR_RETURN(preference.rejected, RequiredText(table, row, data.rejected));
    preferences.push_back(std::move(preference));
  }
  return preferences;
}

absl::StatusOr<QueryData> ReadQueryData(const Field& spec) {
  const Field data = spec["data"];
  RETURN_IF_ERROR(data.CheckMap());
  QueryData result;
  if (HasNoData(data)) return result;
  ASSIGN_OR_RETURN(result.source, ReadTrainingSource(data, "prompts", [](const Field& entry) {
                     absl::StatusOr<std::string> text = entry.String();
                     if (!text.ok()) return absl::StatusOr<Json>(text.status());
                     return absl::StatusOr<Json>(Json{{"query", *text}});
                   }));
  if (result.source->is_inline()) {
    result.query = {{data["prompts"].path(), "query"}};
    return result;
  }
  const bool is_jsonl = result.source->is_jsonl();
  const Field field =
      is_jsonl && data["jsonl"]["query_field"].present()
          ? data["jsonl"]["query_field"]
          : data.FirstOf({"query_field", "query_column", "prompt_column", "prompt_field"});
  ASSIGN_OR_RETURN(ColumnName query, ReadColumn({field}, "query"));
  result.query = {query};
  if (!is_jsonl && !field.present()) {
    result.query.push_back({query.path, "prompt"});
    result.query.push_back({query.path, "text"});
  }
  return result;
}

absl::StatusOr<std::vector<std::string>> LoadQueryData(const QueryData& data,
                                                       const DataContext& context) {
  if (data.is_demo()) {
    if (context.warn) context.warn("spec.data: none is given: training on built-in demo data");
    return DemoQueries();
  }
  ASSIGN_OR_RETURN(const Table table, LoadTrainingSource(*data.source, context));
  ColumnName query = data.query.front();
  for (const ColumnName& column : data.query) {
    if (!table.HasColumn(column.name)) continue;
    query = column;
    break;
  }
  if (!data.source->is_jsonl()) RETURN_IF_ERROR(CheckColumn(table, query));
  std::vector<std::string> queries;
  queries.reserve(table.rows.size());
  for (size_t row = 0; row < table.rows.size(); ++row) {
    ASSIGN_OR_RETURN(std::string text, data.source->is_jsonl()
                                           ? RequiredText(table, row, query)
                                           : TextOf(table.At(row, query.name), query));
    queries.push_back(std::move(text));
  }
  return queries;
}

}  // namespace flowmesh::data
