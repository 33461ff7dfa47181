#include "executors/data/jsonl_export.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh::data {
namespace {

namespace fs = std::filesystem;

// A rule written as text: `prompt`, `metadata.topic`; anything else is a literal.
ExportRule RuleOfText(const std::string& text) {
  const size_t dot = text.find('.');
  const std::string from = text.substr(0, dot);
  const std::string key = dot == std::string::npos ? "" : text.substr(dot + 1);
  if (text == "prompt") return {.from = ExportRule::From::kPrompt};
  if (text == "output") return {.from = ExportRule::From::kOutput};
  if (from == "metadata" && !key.empty()) return {.from = ExportRule::From::kMetadata, .key = key};
  if (from == "item" && !key.empty()) return {.from = ExportRule::From::kItem, .key = key};
  return {.literal = text};
}

absl::StatusOr<ExportRule> RuleOfMap(const Field& field) {
  ExportRule rule;
  ASSIGN_OR_RETURN(const std::string given, field.FirstOf({"from", "source"}).StringOr("literal"));
  const std::string from = ToLower(Trim(given));
  if (from == "prompt") {
    rule.from = ExportRule::From::kPrompt;
  } else if (from == "output") {
    rule.from = ExportRule::From::kOutput;
  } else if (from == "metadata") {
    rule.from = ExportRule::From::kMetadata;
  } else if (from == "item") {
    rule.from = ExportRule::From::kItem;
  } else if (from == "literal") {
    rule.literal = field.FirstOf({"value", "literal"}).json();
  }  // an unknown source gives null
  ASSIGN_OR_RETURN(rule.key, field["key"].StringOr(""));
  rule.fallback = field["fallback"].json();
  rule.default_value = field["default"].json();
  return rule;
}

// Whether `path`, below any folder, stays below it.
bool StaysInside(const fs::path& path) {
  const fs::path normal = path.lexically_normal();
  const bool is_file = normal.has_filename() && normal.filename() != ".";
  return is_file && !normal.is_absolute() && *normal.begin() != "..";
}

bool IsBlank(const Json& value) {
  return value.is_null() ||
         (value.is_string() && Trim(value.get_ref<const std::string&>()).empty());
}

Json Member(const Json& map, const std::string& key) {
  if (key.empty()) return map;
  const auto member = map.is_object() ? map.find(key) : map.end();
  return map.is_object() && member != map.end() ? *member : Json();
}

Json ValueOf(const ExportRule& rule, const Json& item) {
  Json value;
  switch (rule.from) {
    case ExportRule::From::kLiteral:
      value = rule.literal;
      break;
    case ExportRule::From::kPrompt:
      value = Member(item, "prompt");
      break;
    case ExportRule::From::kOutput:
      value = Member(item, "output");
      break;
    case ExportRule::From::kMetadata:
      value = Member(Member(item, "metadata"), rule.key);
      break;
    case ExportRule::From::kItem:
      value = Member(item, rule.key);
      break;
  }
  if (IsBlank(value) && !rule.fallback.is_null()) value = rule.fallback;
  return value.is_null() ? rule.default_value : value;
}

}  // namespace

absl::StatusOr<std::optional<JsonlExport>> ReadJsonlExport(const Field& spec) {
  const Field postprocess = spec["postprocess"];
  RETURN_IF_ERROR(postprocess.CheckMap());
  const Field block = postprocess["jsonl_export"];
  RETURN_IF_ERROR(block.CheckMap());
  if (!block.present()) return std::nullopt;
  JsonlExport plan;
  ASSIGN_OR_RETURN(plan.path, block["path"].NonEmptyString());
  if (!StaysInside(plan.path)) {
    return block["path"].Expected("a path of a file inside the task directory");
  }
  const Field fields = block["fields"];
  RETURN_IF_ERROR(fields.CheckMap());
  if (!fields.present() || fields.json().empty()) return fields.Expected("a non-empty map");
  for (const auto& [name, value] : fields.json().items()) {
    ExportRule rule{.literal = value};
    if (value.is_string()) rule = RuleOfText(value.get<std::string>());
    if (value.is_object()) {
      ASSIGN_OR_RETURN(rule, RuleOfMap(fields[name]));
    }
    plan.fields.emplace_back(name, std::move(rule));
  }
  if (block["required_fields"].present()) {
    ASSIGN_OR_RETURN(plan.required, block["required_fields"].StringList());
  }
  return plan;
}

absl::StatusOr<Json> WriteJsonlExport(const JsonlExport& plan, const Json& items,
                                      const fs::path& task_dir, const std::string& task_id) {
  std::string lines;
  for (size_t i = 0; i < items.size(); ++i) {
    Json row = Json::object();
    for (const auto& [name, rule] : plan.fields) row[name] = JsonToText(ValueOf(rule, items[i]));
    for (const std::string& name : plan.required) {
      if (row.contains(name) && !IsBlank(row[name])) continue;
      return absl::FailedPreconditionError(
          absl::StrCat("spec.postprocess.jsonl_export.required_fields: \"", name,
                       "\" is blank in item ", i, " of task ", task_id));
    }
    absl::StrAppend(&lines, DumpJson(row), "\n");
  }
  const fs::path relative = plan.path.lexically_normal();
  const fs::path path = task_dir / relative;
  RETURN_IF_ERROR(MakeDirectories(path.parent_path()));
  RETURN_IF_ERROR(WriteFileAtomically(path, lines));
  Json names = Json::array();
  for (const auto& [name, rule] : plan.fields) names.push_back(name);
  return Json{{"path", path.string()},
              {"worker_path", path.string()},
              {"relative_path", relative.string()},
              {"record_count", items.size()},
              {"fields", std::move(names)}};
}

}  // namespace flowmesh::data
