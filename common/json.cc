#include "common/json.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

// One pass outside of strings: measures the nesting and blanks NaN and infinities in `text`.
absl::Status CheckDepthAndReplaceNonFinite(std::string& text) {
  int depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') {
        ++i;
      } else if (c == '"') {
        in_string = false;
      }
      continue;
    }
    if (c == '"') {
      in_string = true;
    } else if (c == '{' || c == '[') {
      if (++depth > kMaxJsonDepth) {
        return absl::InvalidArgumentError(
            absl::StrCat("JSON nested deeper than ", kMaxJsonDepth, " levels"));
      }
    } else if (c == '}' || c == ']') {
      --depth;
    } else if (c == 'N' && text.compare(i, 3, "NaN") == 0) {
      text.replace(i, 3, "null");
      i += 3;
    } else if (c == '-' && text.compare(i, 9, "-Infinity") == 0) {
      text.replace(i, 9, "null     ");
      i += 8;
    } else if (c == 'I' && text.compare(i, 8, "Infinity") == 0) {
      text.replace(i, 8, "null    ");
      i += 7;
    }
  }
  return absl::OkStatus();
}

void AppendSpaced(const Json& value, std::string& out) {
  if (value.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.items()) {
      if (!first) out += ", ";
      first = false;
      out += DumpJson(Json(key));
      out += ": ";
      AppendSpaced(item, out);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (size_t i = 0; i < value.size(); ++i) {
      if (i > 0) out += ", ";
      AppendSpaced(value[i], out);
    }
    out += ']';
  } else if (value.is_number_float() && std::isfinite(value.get<double>())) {
    out += PythonFloat(value.get<double>());
  } else {
    out += DumpJson(value);
  }
}

// The parser quotes what it read last, which may be a password or a token: line and column tell
// where it stands.
std::string WithoutContent(std::string message) {
  const size_t begin = message.find("; last read: '");
  if (begin == std::string::npos) return message;
  const size_t rest = message.rfind("'; expected ");
  message.erase(begin, rest == std::string::npos ? rest : rest + 1 - begin);
  return message;
}

}  // namespace

absl::StatusOr<Json> ParseJson(std::string_view text) {
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("JSON is not valid UTF-8");
  std::string copy(text);
  RETURN_IF_ERROR(CheckDepthAndReplaceNonFinite(copy));
  try {
    return Json::parse(copy);
  } catch (const Json::exception& e) {
    // "[json.exception.parse_error.101] parse error at line 1, column 2: ..." without the tag.
    std::string message = e.what();
    if (const size_t end = message.find("] "); end != std::string::npos) message.erase(0, end + 2);
    return absl::InvalidArgumentError(absl::StrCat("not JSON: ", WithoutContent(message)));
  }
}

std::string DumpJson(const Json& value, int indent) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

std::string DumpJsonSpaced(const Json& value) {
  std::string out;
  AppendSpaced(value, out);
  return out;
}

std::string JsonToText(const Json& value) {
  if (value.is_null()) return "";
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_float()) return PythonFloat(value.get<double>());
  return DumpJsonSpaced(value);
}

std::string DescribeJson(const Json& value) {
  if (value.is_null()) return "nothing";
  if (value.is_object()) return "a map";
  if (value.is_array()) return "a list";
  const std::string text = DumpJson(value);
  const std::string_view shown = CutUtf8(text, 80);
  return shown.size() < text.size() ? absl::StrCat(ToAbsl(shown), "...") : text;
}

}  // namespace flowmesh
