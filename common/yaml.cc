#include "common/yaml.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <charconv>
#include <cmath>
#include <map>
#include <regex>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/clock.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

// Aliases can multiply a small text into a huge document; nobody's workflow has a million values.
constexpr int kMaxValues = 1'000'000;

std::string ErrorAt(const YAML::Mark& mark, std::string_view text) {
  return absl::StrCat("line ", mark.line + 1, ", column ", mark.column + 1, ": ", ToAbsl(text));
}

std::optional<bool> AsBool(const std::string& text) {
  static const std::regex yes("yes|Yes|YES|true|True|TRUE|on|On|ON");
  static const std::regex no("no|No|NO|false|False|FALSE|off|Off|OFF");
  if (std::regex_match(text, yes)) return true;
  if (std::regex_match(text, no)) return false;
  return std::nullopt;
}

// `190:20:30` is a number to the base of 60.
double Sexagesimal(std::string_view digits) {
  double value = 0;
  while (true) {
    const size_t colon = digits.find(':');
    double part = 0;
    (void)absl::SimpleAtod(ToAbsl(digits.substr(0, colon)), &part);
    value = value * 60 + part;
    if (colon == std::string_view::npos) return value;
    digits.remove_prefix(colon + 1);
  }
}

std::optional<Json> AsInt(const std::string& text) {
  static const std::regex pattern(
      "[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|"
      "[-+]?[1-9][0-9_]*(:[0-5]?[0-9])+");
  if (!std::regex_match(text, pattern)) return std::nullopt;
  std::string digits = absl::StrReplaceAll(text, {{"_", ""}});
  bool negative = false;
  if (digits[0] == '+' || digits[0] == '-') {
    negative = digits[0] == '-';
    digits.erase(0, 1);
  }
  if (digits.find(':') != std::string::npos) {
    const double value = Sexagesimal(digits);
    constexpr double kBeyond = 9223372036854775808.0;  // 64 bits: a float
    if (value >= kBeyond) return negative ? -value : value;
    return static_cast<int64_t>(negative ? -value : value);
  }
  int base = 10;
  if (digits.size() > 1 && digits[0] == '0') {
    base = digits[1] == 'x' ? 16 : digits[1] == 'b' ? 2 : 8;
    digits.erase(0, base == 8 ? 1 : 2);
  }
  if (digits.empty()) return std::nullopt;
  uint64_t value = 0;
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size()) {
    double large = 0;  // beyond 64 bits: the nearest float
    if (base != 10 || !absl::SimpleAtod(digits, &large)) return std::nullopt;
    return negative ? -large : large;
  }
  if (!negative) return value;
  if (value > uint64_t{1} << 63) return -static_cast<double>(value);
  return static_cast<int64_t>(-value);
}

std::optional<Json> AsFloat(const std::string& text) {
  static const std::regex pattern(
      R"([-+]?([0-9][0-9_]*)\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?|)"
      R"([-+]?[0-9][0-9_]*(:[0-5]?[0-9])+\.[0-9_]*)");
  static const std::regex infinite(R"([-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))");
  if (std::regex_match(text, infinite)) return Json(nullptr);  // the wire has no such numbers
  if (!std::regex_match(text, pattern)) return std::nullopt;
  std::string digits = absl::StrReplaceAll(text, {{"_", ""}});
  if (digits.find(':') != std::string::npos) {
    const bool negative = digits[0] == '-';
    if (digits[0] == '-' || digits[0] == '+') digits.erase(0, 1);
    return negative ? -Sexagesimal(digits) : Sexagesimal(digits);
  }
  double value = 0;
  if (!absl::SimpleAtod(digits, &value)) return std::nullopt;
  return value;
}

// Dates stay text in ISO form: `2001-12-14` as it is, `2001-12-14 21:59:43.1 -5` with `T` and
// offset.
std::string NormaliseDate(const std::string& text) {
  static const std::regex pattern(
      R"((\d{4})-(\d\d?)-(\d\d?)(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(\.\d*)?(?:[ \t]*(Z|([-+])(\d\d?)(?::(\d\d))?))?)");
  std::smatch m;
  if (!std::regex_match(text, m, pattern)) return text;
  auto two = [&](int group) {
    const std::string digits = m[group].str();
    return digits.size() == 1 ? "0" + digits : digits;
  };
  std::string iso = absl::StrCat(m[1].str(), "-", two(2), "-", two(3), "T", two(4), ":", m[5].str(),
                                 ":", m[6].str());
  if (m[7].length() > 1) absl::StrAppend(&iso, (m[7].str() + "000000").substr(0, 7));
  if (m[8].str() == "Z") iso += "+00:00";
  if (m[9].matched) {
    absl::StrAppend(&iso, m[9].str(), two(10), ":", m[11].matched ? m[11].str() : "00");
  }
  return iso;
}

// A plain scalar by the patterns of PyYAML's resolver.
Json PlainScalar(const std::string& text) {
  constexpr size_t kLongestNumber = 100;  // std::regex recurses with the length of its input
  if (text.size() > kLongestNumber) return text;
  if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") {
    return nullptr;
  }
  if (const std::optional<bool> value = AsBool(text)) return *value;
  if (std::optional<Json> value = AsInt(text)) return *std::move(value);
  if (std::optional<Json> value = AsFloat(text)) return *std::move(value);
  return NormaliseDate(text);
}

class Converter {
 public:
  explicit Converter(DoubledKeys doubled) : doubled_(doubled) {}

  absl::StatusOr<Json> Convert(const YAML::Node& node, int depth) {
    if (depth > kMaxJsonDepth) {
      return absl::InvalidArgumentError(
          ErrorAt(node.Mark(), absl::StrCat("nested deeper than ", kMaxJsonDepth, " levels")));
    }
    if (++values_ > kMaxValues) {
      return absl::InvalidArgumentError(
          absl::StrCat("more than ", kMaxValues, " values (aliases counted each time)"));
    }
    switch (node.Type()) {
      case YAML::NodeType::Undefined:
      case YAML::NodeType::Null:
        return Json(nullptr);
      case YAML::NodeType::Scalar:
        // yaml-cpp tags quoted scalars "!"; only plain ones are resolved.
        return node.Tag() == "?" ? PlainScalar(node.Scalar()) : Json(node.Scalar());
      case YAML::NodeType::Sequence: {
        Json list = Json::array();
        for (const YAML::Node& item : node) {
          ASSIGN_OR_RETURN(Json value, Convert(item, depth + 1));
          list.push_back(std::move(value));
        }
        return list;
      }
      case YAML::NodeType::Map:
        return ConvertMap(node, depth);
    }
    return Json(nullptr);
  }

 private:
  absl::StatusOr<Json> ConvertMap(const YAML::Node& node, int depth) {
    Json map = Json::object();
    Json merged = Json::object();
    std::map<std::string, YAML::Mark> places;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar() && !entry.first.IsNull()) {
        return absl::InvalidArgumentError(
            ErrorAt(entry.first.Mark(), "a key must be a single value, not a list or a map"));
      }
      ASSIGN_OR_RETURN(Json value, Convert(entry.second, depth + 1));
      if (entry.first.IsScalar() && entry.first.Tag() == "?" && entry.first.Scalar() == "<<") {
        RETURN_IF_ERROR(Merge(entry.second.Mark(), value, merged));
        continue;
      }
      ASSIGN_OR_RETURN(const Json key, Convert(entry.first, depth + 1));
      const std::string name = KeyText(key);
      const YAML::Mark mark = entry.first.Mark();
      const auto [first, is_new] = places.emplace(name, mark);
      if (!is_new && doubled_ == DoubledKeys::kMistake) {
        return absl::InvalidArgumentError(
            ErrorAt(mark, absl::StrCat("the key \"", name, "\" stands on line ",
                                       first->second.line + 1, " already")));
      }
      map[name] = std::move(value);
    }
    for (auto& [key, value] : merged.items()) {
      if (!map.contains(key)) map[key] = std::move(value);
    }
    return map;
  }

  // Merge key: a map, or a list of maps of which earlier ones win.
  static absl::Status Merge(const YAML::Mark& mark, const Json& value, Json& merged) {
    if (value.is_object()) {
      for (const auto& [key, item] : value.items()) {
        if (!merged.contains(key)) merged[key] = item;
      }
      return absl::OkStatus();
    }
    if (value.is_array()) {
      for (const Json& item : value) {
        if (!item.is_object()) break;
        RETURN_IF_ERROR(Merge(mark, item, merged));
      }
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError(
        ErrorAt(mark, "a merge key (<<) needs a map or a list of maps"));
  }

  // Keys that are no strings become the text that json.dumps gives them.
  static std::string KeyText(const Json& key) {
    if (key.is_string()) return key.get<std::string>();
    if (key.is_number_float()) return PythonFloat(key.get<double>());
    return DumpJson(key);
  }

  const DoubledKeys doubled_;
  int values_ = 0;
};

// Looks at documents without building them.
class NoEvents : public YAML::EventHandler {
 public:
  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark&, YAML::anchor_t) override {}
  void OnAlias(const YAML::Mark&, YAML::anchor_t) override {}
  void OnScalar(const YAML::Mark&, const std::string&, YAML::anchor_t,
                const std::string&) override {}
  void OnSequenceStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {}
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark&, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {}
  void OnMapEnd() override {}
};

// How many documents there are, counted to two: YAML::LoadAll never ends on a text like `, b`, in
// which it sees one empty document after another.
int CountDocuments(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  NoEvents events;
  int count = 0;
  while (count < 2 && parser.HandleNextDocument(events)) ++count;
  return count;
}

}  // namespace

absl::StatusOr<Json> ParseYaml(std::string_view text, DoubledKeys doubled) {
  if (!IsValidUtf8(text)) return absl::InvalidArgumentError("YAML is not valid UTF-8");
  try {
    const std::string document(text);
    const int count = CountDocuments(document);
    if (count == 0) return Json(nullptr);
    if (count > 1) return absl::InvalidArgumentError("expected one YAML document, got several");
    return Converter(doubled).Convert(YAML::Load(document), 1);
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(ErrorAt(e.mark, e.msg));
  }
}

}  // namespace flowmesh
