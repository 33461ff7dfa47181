#include "executors/agent/tools/schema.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace flowmesh::agent {
namespace {

// The member `key`, or null.
const Json& Member(const Json& map, const std::string& key) {
  static const Json kNull;
  const auto it = map.is_object() ? map.find(key) : map.end();
  return it == map.end() ? kNull : *it;
}

bool HasType(const Json& value, const std::string& type) {
  if (type == "object") return value.is_object();
  if (type == "array") return value.is_array();
  if (type == "string") return value.is_string();
  if (type == "boolean") return value.is_boolean();
  if (type == "null") return value.is_null();
  if (type == "number") return value.is_number();
  if (type != "integer") return true;  // none that JSON schema knows
  return value.is_number_integer() ||
         (value.is_number_float() && std::nearbyint(value.get<double>()) == value.get<double>());
}

std::string Named(const std::string& type) {
  if (type == "object") return "a map";
  if (type == "array") return "a list";
  if (type == "null") return "null";
  return absl::StrCat(type == "integer" ? "an " : "a ", type);
}

absl::Status Expected(const std::string& path, const std::string& what, const Json& value) {
  return absl::InvalidArgumentError(absl::StrCat(
      path.empty() ? "the arguments" : path, ": expected ", what, ", got ", DescribeJson(value)));
}

std::string Below(const std::string& path, const std::string& key) {
  return path.empty() ? key : absl::StrCat(path, ".", key);
}

absl::Status CheckType(const Json& schema, const Json& value, const std::string& path) {
  const Json& type = Member(schema, "type");
  std::vector<std::string> types;
  if (type.is_string()) types.push_back(type.get<std::string>());
  if (type.is_array()) {
    for (const Json& one : type) {
      if (one.is_string()) types.push_back(one.get<std::string>());
    }
  }
  const bool fits = types.empty() || std::any_of(types.begin(), types.end(), [&](const auto& one) {
                      return HasType(value, one);
                    });
  if (fits) return absl::OkStatus();
  for (std::string& one : types) one = Named(one);
  return Expected(path, absl::StrJoin(types, " or "), value);
}

absl::Status CheckMembers(const Json& schema, const Json& value, const std::string& path) {
  const Json& properties = Member(schema, "properties");
  for (const Json& name : Member(schema, "required")) {
    if (name.is_string() && !value.contains(name.get<std::string>())) {
      return absl::InvalidArgumentError(
          absl::StrCat(Below(path, name.get<std::string>()), ": required"));
    }
  }
  const bool is_closed = Member(schema, "additionalProperties") == Json(false);
  for (const auto& [name, member] : value.items()) {
    if (is_closed && !properties.contains(name)) {
      std::vector<std::string> known;
      for (const auto& [key, ignored] : properties.items()) known.push_back(key);
      return absl::InvalidArgumentError(
          absl::StrCat(Below(path, name), ": unknown; known are: ", absl::StrJoin(known, ", ")));
    }
    RETURN_IF_ERROR(CheckSchema(Member(properties, name), member, Below(path, name)));
  }
  return absl::OkStatus();
}

absl::Status CheckRange(const Json& schema, const Json& value, const std::string& path) {
  const Json &low = Member(schema, "minimum"), &high = Member(schema, "maximum");
  const double number = value.get<double>();
  if (low.is_number() && number < low.get<double>()) {
    return Expected(path, absl::StrCat("at least ", low.dump()), value);
  }
  if (high.is_number() && number > high.get<double>()) {
    return Expected(path, absl::StrCat("at most ", high.dump()), value);
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckSchema(const Json& schema, const Json& value, const std::string& path) {
  if (!schema.is_object()) return absl::OkStatus();
  RETURN_IF_ERROR(CheckType(schema, value, path));
  const Json& choices = Member(schema, "enum");
  if (choices.is_array() && std::find(choices.begin(), choices.end(), value) == choices.end()) {
    return Expected(path, absl::StrCat("one of ", DumpJson(choices)), value);
  }
  if (value.is_object()) return CheckMembers(schema, value, path);
  if (value.is_number()) return CheckRange(schema, value, path);
  if (!value.is_array()) return absl::OkStatus();
  for (size_t i = 0; i < value.size(); ++i) {
    RETURN_IF_ERROR(
        CheckSchema(Member(schema, "items"), value[i], absl::StrCat(path, "[", i, "]")));
  }
  return absl::OkStatus();
}

}  // namespace flowmesh::agent
