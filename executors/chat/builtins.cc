// Builtins::Test, Method and Function.
#include "executors/chat/builtins.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/chat/python_text.h"

namespace flowmesh::chat {
namespace {

using Bound = std::vector<Value>;
using Result = absl::StatusOr<Value>;

constexpr std::string_view kStringMethods[] = {
    "capitalize",   "count",   "endswith", "find",   "format", "index",
    "isalpha",      "isdigit", "join",     "lower",  "lstrip", "removeprefix",
    "removesuffix", "replace", "rsplit",   "rstrip", "split",  "splitlines",
    "startswith",   "strip",   "title",    "upper"};
constexpr std::string_view kMapMethods[] = {"get", "items", "keys", "values"};
constexpr std::string_view kListMethods[] = {"count", "index"};
constexpr std::string_view kFunctions[] = {"dict", "namespace", "raise_exception", "range",
                                           "strftime_now"};

template <size_t n>
bool IsOneOf(const std::string_view (&names)[n], std::string_view name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

absl::Status Expected(std::string_view function, std::string_view what, const Value& found) {
  return absl::InvalidArgumentError(
      absl::StrCat(ToAbsl(function), ": expected ", ToAbsl(what), ", got ", ToAbsl(found.Kind())));
}

Result ListOfTexts(const std::vector<std::string_view>& parts) {
  Bound items;
  for (const std::string_view part : parts) items.emplace_back(std::string(part));
  return Value::OfList(std::move(items));
}

Result Split(const std::string& text, std::string_view name, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"sep", "maxsplit"}));
  const int64_t limit = args[1].is_integral() ? args[1].integral() : -1;
  if (args[0].is_undefined() || args[0].is_none()) {
    if (name == "rsplit" && limit >= 0) return Expected(name, "a separator", args[0]);
    return ListOfTexts(SplitWhiteSpace(text, limit));
  }
  if (!args[0].is_string() || args[0].string().empty()) {
    return Expected(name, "a separator that is not empty", args[0]);
  }
  return ListOfTexts(name == "split" ? SplitBy(text, args[0].string(), limit)
                                     : SplitFromRight(text, args[0].string(), limit));
}

Result Strip(const std::string& text, std::string_view name, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"chars"}));
  const bool left = name != "rstrip", right = name != "lstrip";
  if (args[0].is_undefined() || args[0].is_none()) {
    return Value(std::string(StripWhiteSpace(text, left, right)));
  }
  if (!args[0].is_string()) return Expected(name, "a string", args[0]);
  return Value(std::string(StripCharacters(text, args[0].string(), left, right)));
}

// startswith and endswith take one text or a list of them.
Result StartsOrEndsWith(const std::string& text, std::string_view name,
                        const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"prefix"}));
  const Bound parts = args[0].is_list() ? args[0].list() : Bound{args[0]};
  for (const Value& part : parts) {
    if (!part.is_string()) return Expected(name, "a string", part);
    if (name == "startswith" ? text.starts_with(part.string()) : text.ends_with(part.string())) {
      return Value(true);
    }
  }
  return Value(false);
}

Result Find(const std::string& text, std::string_view name, const Arguments& arguments) {
  ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"sub"}));
  if (!args[0].is_string()) return Expected(name, "a string", args[0]);
  const std::string& part = args[0].string();
  if (name == "count") {
    if (part.empty()) return Value(TextLength(text) + 1);
    return Value(static_cast<int64_t>(SplitBy(text, part, -1).size()) - 1);
  }
  const size_t at = text.find(part);
  if (at != std::string::npos) return Value(TextLength(std::string_view(text).substr(0, at)));
  if (name == "index") return absl::InvalidArgumentError("index: the text is not in the string");
  return Value(int64_t{-1});
}

// The fields `{}`, `{0}` and `{name}`; `{{` and `}}` are braces.
Result Format(const std::string& text, const Arguments& arguments, Budget& budget) {
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = text[at];
    if (c != '{' && c != '}') {
      out += c;
      continue;
    }
    if (at + 1 < text.size() && text[at + 1] == c) {
      out += c;
      ++at;
      continue;
    }
    const size_t end = text.find('}', at);
    if (c == '}' || end == std::string::npos) {
      return absl::InvalidArgumentError("format: a brace that stands alone");
    }
    const std::string field = text.substr(at + 1, end - at - 1);
    uint64_t index = next;
    const Value* value = nullptr;
    if (field.empty() || absl::SimpleAtoi(field, &index)) {
      if (field.empty()) ++next;
      if (index < arguments.positional.size()) value = &arguments.positional[index];
    }
    for (const auto& [name, named] : arguments.named) {
      if (name == field) value = &named;
    }
    if (value == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "format: expected fields that are empty, a number or a name of what is given, got {",
          field, "}"));
    }
    const std::string shown = ToText(*value);
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(shown.size())));
    out += shown;
    at = end;
  }
  return Value(std::move(out));
}

bool IsAll(const std::string& text, bool (*is_one)(char)) {
  return !text.empty() && std::all_of(text.begin(), text.end(), is_one);
}

Result StringMethod(const std::string& text, std::string_view name, const Arguments& arguments,
                    const Builtins& builtins) {
  RETURN_IF_ERROR(builtins.budget->Charge(static_cast<int64_t>(text.size()) * 4));
  if (name == "split" || name == "rsplit") return Split(text, name, arguments);
  if (name == "strip" || name == "lstrip" || name == "rstrip") return Strip(text, name, arguments);
  if (name == "startswith" || name == "endswith") return StartsOrEndsWith(text, name, arguments);
  if (name == "find" || name == "index" || name == "count") return Find(text, name, arguments);
  if (name == "replace") return builtins.Filter("replace", Value(text), arguments);
  if (name == "format") return Format(text, arguments, *builtins.budget);
  if (name == "join") {
    ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"iterable"}));
    return builtins.Filter("join", args[0], {{Value(text)}, {}});
  }
  if (name == "removeprefix" || name == "removesuffix") {
    ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"affix"}));
    if (!args[0].is_string()) return Expected(name, "a string", args[0]);
    const std::string& affix = args[0].string();
    if (name == "removeprefix" && text.starts_with(affix)) return Value(text.substr(affix.size()));
    if (name == "removesuffix" && text.ends_with(affix)) {
      return Value(text.substr(0, text.size() - affix.size()));
    }
    return Value(text);
  }
  RETURN_IF_ERROR(arguments.Bind(name, {}).status());
  if (name == "splitlines") return ListOfTexts(SplitLines(text));
  if (name == "isdigit") return Value(IsAll(text, [](char c) { return c >= '0' && c <= '9'; }));
  if (name == "isalpha") {
    return Value(IsAll(text, [](char c) {
      return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c & 0x80) != 0;
    }));
  }
  return builtins.Filter(name, Value(text), {});  // upper, lower, capitalize, title
}

Result MapMethod(const Value& self, std::string_view name, const Arguments& arguments,
                 Budget& budget) {
  const Map& map = self.map();
  if (name == "get") {
    ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"key", "default"}));
    const Value found = GetItem(self, args[0]);
    if (!found.is_undefined()) return found;
    return args[1].is_undefined() ? Value(Value::None{}) : args[1];
  }
  RETURN_IF_ERROR(arguments.Bind(name, {}).status());
  RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(map.items.size()) * 128));
  Bound items;
  for (const auto& [key, item] : map.items) {
    if (name == "keys") {
      items.push_back(FromMapKey(key));
    } else if (name == "values") {
      items.push_back(item);
    } else {
      ASSIGN_OR_RETURN(items.emplace_back(), Value::OfList({FromMapKey(key), item}));
    }
  }
  return Value::OfList(std::move(items));
}

Result ListMethod(const Bound& list, std::string_view name, const Arguments& arguments,
                  Budget& budget) {
  ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"value"}));
  int64_t count = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    RETURN_IF_ERROR(budget.Charge());
    if (!Equal(list[i], args[0])) continue;
    if (name == "index") return Value(static_cast<int64_t>(i));
    ++count;
  }
  if (name == "index") return absl::InvalidArgumentError("index: the value is not in the list");
  return Value(count);
}

Result MakeRange(const Arguments& arguments, Budget& budget) {
  ASSIGN_OR_RETURN(Bound args, arguments.Bind("range", {"start", "stop", "step"}));
  if (arguments.positional.size() == 1) std::swap(args[0], args[1]);
  if (args[0].is_undefined()) args[0] = Value(int64_t{0});
  if (args[2].is_undefined()) args[2] = Value(int64_t{1});
  for (const Value& arg : args) {
    if (!arg.is_integral()) return Expected("range", "integers", arg);
  }
  const int64_t step = args[2].integral();
  if (step == 0) return Expected("range", "a step other than 0", args[2]);
  constexpr size_t kMaxRange = 100'000;  // as in Jinja's sandbox
  Bound items;
  int64_t i = args[0].integral();
  while (step > 0 ? i < args[1].integral() : i > args[1].integral()) {
    if (items.size() == kMaxRange) return Expected("range", "at most 100000 items", args[1]);
    RETURN_IF_ERROR(budget.Charge());
    items.emplace_back(i);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  return Value::OfList(std::move(items));
}

absl::StatusOr<bool> TestWithArgument(std::string_view name, const Value& input,
                                      const Arguments& arguments, Budget& budget) {
  static constexpr std::pair<std::string_view, std::string_view> kOperators[] = {
      {"eq", "=="},         {"equalto", "=="}, {"sameas", "=="}, {"ne", "!="},
      {"lt", "<"},          {"lessthan", "<"}, {"le", "<="},     {"gt", ">"},
      {"greaterthan", ">"}, {"ge", ">="},      {"in", "in"}};
  ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"other"}));
  if (name == "divisibleby") {
    ASSIGN_OR_RETURN(const Value rest, Calculate("%", input, args[0], budget));
    return !rest.IsTrue();
  }
  for (const auto& [test, op] : kOperators) {
    if (test == name) return Compare(op, input, args[0], budget);
  }
  return absl::InvalidArgumentError(absl::StrCat("there is no test `", ToAbsl(name), "`"));
}

}  // namespace

bool HasMethod(const Value& self, std::string_view name) {
  return (self.is_string() && IsOneOf(kStringMethods, name)) ||
         (self.is_map() && IsOneOf(kMapMethods, name)) ||
         (self.is_list() && IsOneOf(kListMethods, name));
}

bool IsFunction(std::string_view name) { return IsOneOf(kFunctions, name); }

absl::StatusOr<bool> Builtins::Test(std::string_view name, const Value& input,
                                    const Arguments& arguments) const {
  RETURN_IF_ERROR(budget->Charge());
  const bool is_sequence = input.is_string() || input.is_list() || input.is_map();
  const bool is_plain = arguments.positional.empty() && arguments.named.empty();
  if (is_plain) {
    if (name == "defined") return !input.is_undefined();
    if (name == "undefined") return input.is_undefined();
    if (name == "none") return input.is_none();
    if (name == "boolean") return input.is_bool();
    if (name == "true") return input.is_bool() && input.boolean();
    if (name == "false") return input.is_bool() && !input.boolean();
    if (name == "integer") return input.is_int();
    if (name == "float") return input.is_float();
    if (name == "number") return input.is_number();
    if (name == "string") return input.is_string();
    if (name == "mapping") return input.is_map();
    if (name == "sequence") return is_sequence || input.is_undefined();
    if (name == "iterable") return is_sequence || input.is_undefined();
    if (name == "callable") return input.is_callable();
    if (name == "lower") return ToText(input) == LowerText(ToText(input));
    if (name == "upper") return ToText(input) == UpperText(ToText(input));
    if (name == "odd" || name == "even") {
      if (!input.is_integral()) return Expected(name, "an integer", input);
      return (input.integral() % 2 != 0) == (name == "odd");
    }
  }
  return TestWithArgument(name, input, arguments, *budget);
}

absl::StatusOr<Value> Builtins::Method(const Value& self, std::string_view name,
                                       const Arguments& arguments) const {
  RETURN_IF_ERROR(budget->Charge());
  if (!HasMethod(self, name)) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(self.Kind()), " has no method `", ToAbsl(name), "`"));
  }
  if (self.is_string()) return StringMethod(self.string(), name, arguments, *this);
  if (self.is_map()) return MapMethod(self, name, arguments, *budget);
  return ListMethod(self.list(), name, arguments, *budget);
}

absl::StatusOr<Value> Builtins::Function(std::string_view name, const Arguments& arguments) const {
  RETURN_IF_ERROR(budget->Charge());
  if (name == "range") return MakeRange(arguments, *budget);
  if (name == "raise_exception") {
    ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"message"}));
    return absl::InvalidArgumentError(ToText(args[0]));
  }
  if (name == "strftime_now") {
    ASSIGN_OR_RETURN(const Bound args, arguments.Bind(name, {"format"}));
    return Value(absl::FormatTime(ToText(args[0]), now, absl::LocalTimeZone()));
  }
  MapItems items;
  for (const Value& arg : arguments.positional) {
    if (!arg.is_map()) return Expected(name, "a map", arg);
    items.insert(items.end(), arg.map().items.begin(), arg.map().items.end());
  }
  items.insert(items.end(), arguments.named.begin(), arguments.named.end());
  ASSIGN_OR_RETURN(Value map, Value::OfMap(std::move(items)));
  if (name == "dict") return map;
  auto made = std::make_shared<Namespace>();
  for (const auto& [key, item] : map.map().items) {
    made->members.emplace(ToText(FromMapKey(key)), item);
  }
  return Value(std::move(made));
}

}  // namespace flowmesh::chat
