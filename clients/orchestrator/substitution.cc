#include "clients/orchestrator/substitution.h"

#include <utf8proc.h>

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

// str.isprintable() of one code point: no control, format, surrogate, private or unassigned
// characters, and no separators other than the space.
bool IsPrintable(int32_t code) {
  switch (utf8proc_category(code)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
      return false;
    case UTF8PROC_CATEGORY_ZS:
      return code == ' ';
    default:
      return true;
  }
}

// repr() of a string: single quotes unless it holds one and no double quote.
void AppendPythonString(std::string_view text, std::string& out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char quote = has_single && !has_double ? '"' : '\'';
  out += quote;
  size_t at = 0;
  while (at < text.size()) {
    int32_t code = 0;
    const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at);
    const auto length =
        utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - at), &code);
    if (length <= 0) break;  // documents are checked UTF-8: never
    if (code == quote || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n') {
      out += "\\n";
    } else if (code == '\r') {
      out += "\\r";
    } else if (code == '\t') {
      out += "\\t";
    } else if (IsPrintable(code)) {
      out.append(text.substr(at, static_cast<size_t>(length)));
    } else if (code < 0x100) {
      absl::StrAppendFormat(&out, "\\x%02x", code);
    } else if (code < 0x10000) {
      absl::StrAppendFormat(&out, "\\u%04x", code);
    } else {
      absl::StrAppendFormat(&out, "\\U%08x", code);
    }
    at += static_cast<size_t>(length);
  }
  out += quote;
}

void AppendPython(const Json& value, std::string& out) {
  if (value.is_string()) {
    AppendPythonString(value.get_ref<const std::string&>(), out);
  } else if (value.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!first) out += ", ";
      first = false;
      AppendPythonString(key, out);
      out += ": ";
      AppendPython(item, out);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      if (i > 0) out += ", ";
      AppendPython(value[i], out);
    }
    out += ']';
  } else {
    out += PythonText(value);
  }
}

class Renderer {
 public:
  explicit Renderer(const StageMap& stages) : stages_(stages) {}

  absl::Status RenderInPlace(Json& value) const {
    if (value.is_string()) {
      ASSIGN_OR_RETURN(Json rendered, RenderText(value.get_ref<const std::string&>()));
      value = std::move(rendered);
    } else if (value.is_structured()) {
      for (Json& item : value) RETURN_IF_ERROR(RenderInPlace(item));
    }
    return absl::OkStatus();
  }

 private:
  absl::StatusOr<Json> RenderText(const std::string& text) const {
    std::string out;
    size_t at = 0;
    while (true) {
      const size_t open = text.find("${", at);
      const size_t close = open == std::string::npos ? open : text.find('}', open);
      if (close == std::string::npos) break;
      if (close == open + 2) {  // `${}` stays
        out.append(text, at, close + 1 - at);
        at = close + 1;
        continue;
      }
      ASSIGN_OR_RETURN(const Json value, Resolve(text.substr(open + 2, close - open - 2)));
      if (open == 0 && close + 1 == text.size()) return value;
      out.append(text, at, open - at);
      out += PythonText(value);
      at = close + 1;
    }
    out.append(text, at, std::string::npos);
    return Json(std::move(out));
  }

  absl::StatusOr<Json> Resolve(std::string_view raw) const {
    const std::string_view reference = Trim(raw);
    const std::string quoted = absl::StrCat("${", ToAbsl(raw), "}");
    const size_t dot = reference.find('.');
    if (reference.empty() || dot == std::string_view::npos) {
      return absl::InvalidArgumentError(
          absl::StrCat(quoted, ": expected ${stage.path}, got ",
                       reference.empty() ? "a blank reference" : "no dot"));
    }
    const std::string name(reference.substr(0, dot));
    const std::string_view path = reference.substr(dot + 1);
    const auto stage = stages_.find(name);
    if (stage == stages_.end()) {
      return absl::InvalidArgumentError(absl::StrCat(quoted, ": no stage is named \"", name, "\""));
    }
    if (path == "task_id") return Json(stage->second.task_id);
    if (!stage->second.done) {
      return absl::UnavailableError(absl::StrCat("stage \"", name, "\" is not done"));
    }
    return Walk(stage->second.stored, path, quoted);
  }

  static absl::StatusOr<Json> Walk(const Json& stored, std::string_view path,
                                   const std::string& quoted) {
    const Json* value = &stored;
    bool first = true;
    for (const absl::string_view part : absl::StrSplit(ToAbsl(path), '.', absl::SkipEmpty())) {
      const std::string segment(part);
      const auto missing = [&](std::string_view what) {
        return absl::InvalidArgumentError(absl::StrCat(quoted, ": ", ToAbsl(what)));
      };
      // A file from shared storage is the result itself, without the level that a POST adds.
      const bool is_bare =
          first && segment == "result" && value->is_object() && !value->contains("result");
      first = false;
      if (is_bare) continue;
      if (value->is_object()) {
        const auto item = value->find(segment);
        if (item == value->end()) return missing(absl::StrCat("no key \"", segment, "\""));
        value = &*item;
      } else if (value->is_array()) {
        int64_t index = 0;
        if (!absl::SimpleAtoi(segment, &index)) {
          return missing(absl::StrCat("expected a list index, got \"", segment, "\""));
        }
        if (index < 0 || static_cast<size_t>(index) >= value->size()) {
          return missing(absl::StrCat("index ", index, " is outside of a list of ", value->size()));
        }
        value = &(*value)[static_cast<size_t>(index)];
      } else {
        return missing(
            absl::StrCat("\"", segment, "\" asks for a member of ", DescribeJson(*value)));
      }
    }
    if (value->is_null()) {
      return absl::InvalidArgumentError(absl::StrCat(quoted, ": the value is null"));
    }
    return *value;
  }

  const StageMap& stages_;
};

}  // namespace

std::string PythonText(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_float()) return PythonFloat(value.get<double>());
  if (value.is_number()) return DumpJson(value);
  std::string out;
  AppendPython(value, out);
  return out;
}

absl::StatusOr<Json> RenderDocument(const Json& document, std::string_view self,
                                    const StageMap& stages) {
  Json upstream = Json::object();
  for (const auto& [name, stage] : stages) {
    if (name == self || !stage.done) continue;
    if (stage.stored.is_null()) {
      return absl::UnavailableError(absl::StrCat(
          "the result of stage \"", name, "\" (task ", stage.task_id,
          "), which was not sent here: its spec.output.destination must be of type http"));
    }
    upstream[name] = stage.stored;
  }
  Json rendered = document;
  RETURN_IF_ERROR(Renderer(stages).RenderInPlace(rendered));
  // Set after rendering, so that text inside results is never taken for a placeholder.
  if (!upstream.empty()) rendered["spec"]["_upstreamResults"] = std::move(upstream);
  return rendered;
}

}  // namespace flowmesh::orchestrator
