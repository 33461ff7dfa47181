#include "executors/retrieval/filter.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field.h"

namespace flowmesh::retrieval {
namespace {

const std::map<std::string, const char*>& Bounds() {
  static const auto& bounds = *new std::map<std::string, const char*>{
      {"gte", ">="}, {"gt", ">"}, {"lte", "<="}, {"lt", "<"}};
  return bounds;
}

bool IsScalar(const Json& value) {
  return value.is_string() || value.is_number() || value.is_boolean();
}

}  // namespace

absl::Status CheckFilter(const Json& filter, const std::string& path) {
  const Field root(&filter, path);
  RETURN_IF_ERROR(root.CheckMap());
  if (!root.present()) return absl::OkStatus();
  for (const auto& [key, wanted] : filter.items()) {
    const Field field = root[key];
    if (key.find('"') != std::string::npos) return root.Error("expected keys without quotes");
    if (IsScalar(wanted)) continue;
    if (wanted.is_array() && !wanted.empty() &&
        std::all_of(wanted.begin(), wanted.end(), IsScalar)) {
      continue;
    }
    if (!wanted.is_object() || wanted.empty()) {
      return field.Expected("a text, number or boolean, a list of them, or a map of bounds");
    }
    for (const auto& [bound, value] : wanted.items()) {
      if (!Bounds().contains(bound)) return field[bound].Error("expected gte, gt, lte or lt");
      if (!value.is_string() && !value.is_number()) {
        return field[bound].Expected("a number or a text");
      }
    }
  }
  return absl::OkStatus();
}

SqlCondition ToSql(const Json& filter) {
  std::vector<std::string> conditions;
  std::vector<Json> values;
  const auto parameter = [&](const Json& value) {
    values.push_back(value);
    return absl::StrCat("?", values.size());
  };
  for (const auto& [key, wanted] : filter.items()) {
    const std::string member =
        absl::StrCat("json_extract(metadata, ", parameter(absl::StrCat("$.\"", key, "\"")), ")");
    if (wanted.is_object()) {
      for (const auto& [bound, value] : wanted.items()) {
        conditions.push_back(absl::StrCat(member, " ", Bounds().at(bound), " ", parameter(value)));
        // Numbers and texts are ordered in SQLite, too.
        conditions.push_back(absl::StrCat(
            "typeof(", member, ") ", value.is_string() ? "= 'text'" : "IN ('integer','real')"));
      }
      continue;
    }
    std::vector<std::string> parameters;
    for (const Json& value : wanted.is_array() ? wanted : Json::array({wanted})) {
      parameters.push_back(parameter(value));
    }
    conditions.push_back(absl::StrCat(member, " IN (", absl::StrJoin(parameters, ", "), ")"));
  }
  return {absl::StrJoin(conditions, " AND "), std::move(values)};
}

}  // namespace flowmesh::retrieval
