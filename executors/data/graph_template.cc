#include "executors/data/graph_template.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/strings.h"

namespace flowmesh::data {
namespace {

constexpr char kBriefing[] = "two_column_briefing";

struct Column {
  std::string label;
  std::string value;
};

// One step of an expression: into a map by key or into a list by place.
struct Step {
  std::string key;
  std::optional<int64_t> place;
};

// `draft.result.items[0].output` as steps; nothing when brackets do not hold whole numbers.
std::optional<std::vector<Step>> ParseExpression(std::string_view expression) {
  std::vector<Step> steps;
  for (const std::string& part : SplitTrimmed(expression, '.')) {
    const size_t bracket = part.find('[');
    const std::string name(Trim(std::string_view(part).substr(0, bracket)));
    if (!name.empty()) steps.push_back({.key = name});
    std::string_view rest = std::string_view(part).substr(std::min(bracket, part.size()));
    while (!rest.empty()) {
      const size_t close = rest.find(']');
      int64_t place = 0;
      if (rest.front() != '[' || close == std::string_view::npos ||
          !absl::SimpleAtoi(ToAbsl(rest.substr(1, close - 1)), &place)) {
        return std::nullopt;
      }
      steps.push_back({.place = place});
      rest = Trim(rest.substr(close + 1));
    }
  }
  return steps;
}

// What the steps lead to; null for nothing.
const Json* Follow(const Json& root, const std::vector<Step>& steps) {
  const Json* value = &root;
  for (const Step& step : steps) {
    if (step.place) {
      const bool inside =
          value->is_array() && *step.place >= 0 && static_cast<size_t>(*step.place) < value->size();
      if (!inside) return nullptr;
      value = &(*value)[static_cast<size_t>(*step.place)];
    } else {
      const auto member = value->is_object() ? value->find(step.key) : value->end();
      if (!value->is_object() || member == value->end()) return nullptr;
      value = &*member;
    }
  }
  return value->is_null() ? nullptr : value;
}

absl::StatusOr<std::string> ReadExpression(const Field& column, const std::string& label) {
  ASSIGN_OR_RETURN(const std::string expression, column["expr"].StringOr(""));
  if (!Trim(expression).empty()) return expression;
  ASSIGN_OR_RETURN(const std::string node, column["node"].StringOr(""));
  ASSIGN_OR_RETURN(const std::string path, column["path"].StringOr(""));
  if (Trim(node).empty() && Trim(path).empty()) {
    return column.Error(absl::StrCat("column \"", label, "\" needs expr, or node and path"));
  }
  return absl::StrCat(node, ".", path);
}

std::string UpstreamNames(const Field& upstream) {
  std::vector<std::string> names;
  for (const auto& [name, value] : upstream.json().items()) names.push_back(name);
  return absl::StrJoin(names, ", ");
}

absl::StatusOr<Column> ReadColumn(const Field& column, size_t place, const Field& upstream) {
  if (!column.json().is_object()) return column.Expected("a map");
  ASSIGN_OR_RETURN(const std::string given, column["label"].StringOr(""));
  std::string label(Trim(given));
  if (label.empty()) label = absl::StrCat("Column ", place + 1);
  ASSIGN_OR_RETURN(const std::string expression, ReadExpression(column, label));
  const std::optional<std::vector<Step>> steps = ParseExpression(expression);
  if (!steps) {
    return column.Error(absl::StrCat("column \"", label, "\": \"", expression,
                                     "\" is no expression (names joined by dots, each with any "
                                     "number of [n])"));
  }
  const Json* value = steps->empty() ? nullptr : Follow(upstream.json(), *steps);
  if (value == nullptr && column["default"].present()) value = &column["default"].json();
  if (value == nullptr) {
    return column.Error(absl::StrCat(
        "column \"", label, "\": ", expression,
        " gives nothing, and there is no default; stages here are: ", UpstreamNames(upstream)));
  }
  return Column{std::move(label), JsonToText(*value)};
}

// A string, or a list of strings, as lines; `fallback` when absent.
absl::StatusOr<std::vector<std::string>> ReadLines(const Field& field,
                                                   std::vector<std::string> fallback) {
  if (!field.present()) return fallback;
  if (field.json().is_string()) return std::vector<std::string>{field.json().get<std::string>()};
  if (field.json().is_array()) return field.StringList();
  return field.Expected("a string or a list of strings");
}

// The value trimmed, with its further lines indented below its bullet.
std::string BulletValue(const std::string& value) {
  const std::string lines = absl::StrReplaceAll(value, {{"\r\n", "\n"}});
  return absl::StrReplaceAll(std::string(Trim(lines)), {{"\n", "\n  "}});
}

absl::StatusOr<std::string> RenderBriefing(const Field& data, const std::vector<Column>& columns) {
  const Field block = data["template"];
  if (columns.size() < 2) {
    return block["columns"].Error(absl::StrCat(kBriefing, " needs at least two columns, got 1"));
  }
  const Field options = block["options"];
  RETURN_IF_ERROR(options.CheckMap());
  ASSIGN_OR_RETURN(const std::string given_role, options["role"].StringOr(""));
  std::string role(Trim(given_role));
  if (role.empty()) role = "energy strategist";
  const bool vowel = std::string_view("aeiouAEIOU").find(role.front()) != std::string_view::npos;
  ASSIGN_OR_RETURN(
      std::vector<std::string> lines,
      ReadLines(options["intro"],
                {absl::StrCat("You are ", vowel ? "an " : "a ", role, "."),
                 "Read the notes below and write a short briefing that compares them."}));
  for (const Column& column : columns) {
    lines.push_back(absl::StrCat("\u2022 ", column.label, ": ", BulletValue(column.value)));
  }
  ASSIGN_OR_RETURN(
      const std::vector<std::string> closing,
      ReadLines(options["closing"],
                {absl::StrCat("Weigh ", ToLower(columns[0].label), " against ",
                              ToLower(columns[1].label), " and close with clear next steps.")}));
  lines.insert(lines.end(), closing.begin(), closing.end());
  return absl::StrJoin(lines, "\n");
}

// The name in braces at `text`'s front, `{col0_value}`, when it is one of `columns`; else null.
const std::string* NamedValue(std::string_view text, const std::vector<Column>& columns,
                              size_t* length) {
  const size_t close = text.find('}');
  if (close == std::string_view::npos || !text.starts_with("{col")) return nullptr;
  const std::string_view name = text.substr(4, close - 4);  // `0_value`
  const size_t line = name.find('_');
  size_t place = 0;
  if (line == std::string_view::npos || line == 0 || name.find_first_not_of("0123456789") != line ||
      !absl::SimpleAtoi(ToAbsl(name.substr(0, line)), &place) || place >= columns.size()) {
    return nullptr;
  }
  *length = close + 1;
  if (name.substr(line) == "_label") return &columns[place].label;
  if (name.substr(line) == "_value") return &columns[place].value;
  return nullptr;
}

std::string FillIn(std::string_view text, const std::vector<Column>& columns) {
  std::string out;
  while (!text.empty()) {
    size_t length = 1;
    if (text.starts_with("{{") || text.starts_with("}}")) {
      out += text.front();
      length = 2;
    } else if (const std::string* value = NamedValue(text, columns, &length)) {
      out += *value;
    } else {
      length = 1;
      out += text.front();
    }
    text.remove_prefix(length);
  }
  return out;
}

}  // namespace

absl::StatusOr<std::string> RenderGraphTemplate(const Field& data, const Field& upstream) {
  RETURN_IF_ERROR(upstream.CheckMap());
  if (!upstream.present() || upstream.json().empty()) {
    return data.Error("graph_template needs upstream results, none were given");
  }
  const Field block = data["template"];
  RETURN_IF_ERROR(block.CheckMap());
  const Field list = block["columns"];
  RETURN_IF_ERROR(list.CheckList());
  if (list.size() == 0) return list.Expected("a non-empty list of maps");
  std::vector<Column> columns;
  for (size_t i = 0; i < list.size(); ++i) {
    ASSIGN_OR_RETURN(Column column, ReadColumn(list[i], i, upstream));
    columns.push_back(std::move(column));
  }
  ASSIGN_OR_RETURN(const std::string given, block["name"].StringOr(kBriefing));
  const std::string name(Trim(given));
  if (name == kBriefing) return RenderBriefing(data, columns);
  ASSIGN_OR_RETURN(const std::string text, block["text"].StringOr(""));
  if (text.empty()) {
    return block["name"].Error(absl::StrCat("unknown template '", name, "'; known: ", kBriefing,
                                            ", or give template.text"));
  }
  return FillIn(text, columns);
}

}  // namespace flowmesh::data
