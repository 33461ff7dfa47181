// Builtins::Filter and Arguments::Bind.
#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/chat/builtins.h"
#include "executors/chat/python_text.h"

namespace flowmesh::chat {
namespace {

using Bound = std::vector<Value>;
using Result = absl::StatusOr<Value>;

absl::Status Expected(std::string_view what, const Value& found) {
  return absl::InvalidArgumentError(
      absl::StrCat("expected ", ToAbsl(what), ", got ", ToAbsl(found.Kind())));
}

// `a.b.0` of a value, as `map(attribute=...)` and its like take it.
Value GetPath(const Value& value, const std::string& path) {
  Value at = value;
  for (const std::string_view part : SplitBy(path, ".", -1)) {
    int64_t index = 0;
    at = absl::SimpleAtoi(ToAbsl(part), &index) ? GetItem(at, Value(index))
                                                : GetItem(at, Value(std::string(part)));
  }
  return at;
}

class FilterCall {
 public:
  FilterCall(const Builtins& builtins, std::string_view name, const Value& input,
             const Arguments& arguments)
      : builtins_(builtins), budget_(*builtins.budget), name_(name), in_(input), args_(arguments) {}

  Result Run() {
    using Handler = Result (FilterCall::*)();
    static const std::map<std::string_view, Handler> kFilters = {
        {"abs", &FilterCall::Abs},
        {"capitalize", &FilterCall::Text},
        {"count", &FilterCall::Length},
        {"d", &FilterCall::Default},
        {"default", &FilterCall::Default},
        {"dictsort", &FilterCall::DictSort},
        {"e", &FilterCall::Text},
        {"escape", &FilterCall::Text},
        {"first", &FilterCall::FirstOrLast},
        {"float", &FilterCall::Float},
        {"indent", &FilterCall::Indent},
        {"int", &FilterCall::Int},
        {"items", &FilterCall::Items},
        {"join", &FilterCall::Join},
        {"last", &FilterCall::FirstOrLast},
        {"length", &FilterCall::Length},
        {"list", &FilterCall::ToList},
        {"lower", &FilterCall::Text},
        {"map", &FilterCall::Map},
        {"max", &FilterCall::MinOrMax},
        {"min", &FilterCall::MinOrMax},
        {"reject", &FilterCall::Select},
        {"rejectattr", &FilterCall::Select},
        {"replace", &FilterCall::Replace},
        {"reverse", &FilterCall::Reverse},
        {"round", &FilterCall::Round},
        {"safe", &FilterCall::Text},
        {"select", &FilterCall::Select},
        {"selectattr", &FilterCall::Select},
        {"sort", &FilterCall::Sort},
        {"string", &FilterCall::Text},
        {"sum", &FilterCall::Sum},
        {"title", &FilterCall::Text},
        {"tojson", &FilterCall::ToJson},
        {"trim", &FilterCall::Trim},
        {"unique", &FilterCall::Unique},
        {"upper", &FilterCall::Text}};
    const auto found = kFilters.find(name_);
    if (found == kFilters.end()) {
      return absl::InvalidArgumentError(absl::StrCat("there is no filter `", ToAbsl(name_), "`"));
    }
    Result result = (this->*found->second)();
    if (!result.ok()) return Annotate(result.status(), name_);
    return result;
  }

 private:
  absl::StatusOr<Bound> Bind(const std::vector<std::string_view>& names) {
    return args_.Bind(name_, names);
  }

  Result Text() {
    RETURN_IF_ERROR(Bind({}).status());
    std::string text = ToText(in_);
    RETURN_IF_ERROR(budget_.Charge(static_cast<int64_t>(text.size())));
    if (name_ == "upper") return LikeInput(UpperText(text));
    if (name_ == "lower") return LikeInput(LowerText(text));
    if (name_ == "capitalize") return LikeInput(CapitalizeText(text));
    if (name_ == "title") return Value(TitleText(text));
    if (name_ == "safe") return Value::Markup(std::move(text));
    if (name_ == "e" || name_ == "escape") {
      return Value::Markup(in_.is_markup() ? std::move(text) : EscapeHtml(std::move(text)));
    }
    return LikeInput(std::move(text));
  }

  Value LikeInput(std::string text) const {
    return in_.is_markup() ? Value::Markup(std::move(text)) : Value(std::move(text));
  }

  Result Trim() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"chars"}));
    const std::string text = ToText(in_);
    RETURN_IF_ERROR(budget_.Charge(static_cast<int64_t>(text.size())));
    const bool has_characters = args[0].is_string();
    return LikeInput(std::string(has_characters
                                     ? StripCharacters(text, args[0].string(), true, true)
                                     : StripWhiteSpace(text, true, true)));
  }

  Result Length() {
    RETURN_IF_ERROR(Bind({}).status());
    if (in_.is_string()) return Value(TextLength(in_.string()));
    if (in_.is_list()) return Value(static_cast<int64_t>(in_.list().size()));
    if (in_.is_map()) return Value(static_cast<int64_t>(in_.map().items.size()));
    if (in_.is_undefined()) return Value(int64_t{0});
    return Expected("something with a length", in_);
  }

  Result Default() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"default_value", "boolean"}));
    if (!in_.is_undefined() && (in_.IsTrue() || !args[1].IsTrue())) return in_;
    return args[0].is_undefined() ? Value(std::string()) : args[0];
  }

  Result ToJson() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"ensure_ascii", "indent", "separators", "sort_keys"}));
    JsonForm form;
    form.ensure_ascii = args[0].IsTrue();
    form.sort_keys = args[3].IsTrue();
    if (args[1].is_integral()) {
      form.indent = static_cast<int>(std::clamp<int64_t>(args[1].integral(), 0, 64));
      form.item_separator = ',';
    }
    if (args[2].is_list()) {
      const std::vector<Value>& separators = args[2].list();
      if (separators.size() != 2 || !separators[0].is_string() || !separators[1].is_string()) {
        return Expected("two strings as separators", args[2]);
      }
      form.item_separator = separators[0].string();
      form.key_separator = separators[1].string();
    }
    ASSIGN_OR_RETURN(std::string text, ToJsonText(in_, form));
    RETURN_IF_ERROR(budget_.Charge(static_cast<int64_t>(text.size()) * 4));
    return Value(std::move(text));
  }

  Result Join() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"d", "attribute"}));
    ASSIGN_OR_RETURN(const Bound items, Iterate(in_, budget_));
    const std::string separator = ToText(args[0]);
    std::string out;
    for (size_t i = 0; i < items.size(); ++i) {
      const size_t before = out.size();
      if (i > 0) out += separator;
      out += ToText(args[1].is_string() ? GetPath(items[i], args[1].string()) : items[i]);
      RETURN_IF_ERROR(budget_.Charge(static_cast<int64_t>(out.size() - before)));
    }
    return Value(std::move(out));
  }

  Result Replace() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"old", "new", "count"}));
    const std::string text = ToText(in_);
    std::string out = ReplaceText(text, ToText(args[0]), ToText(args[1]),
                                  args[2].is_integral() ? args[2].integral() : -1);
    RETURN_IF_ERROR(budget_.Charge(static_cast<int64_t>(text.size() + out.size())));
    return Value(std::move(out));
  }

  Result Indent() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"width", "first", "blank"}));
    std::string indention = "    ";
    if (args[0].is_string()) indention = args[0].string();
    if (args[0].is_integral()) {
      indention.assign(static_cast<size_t>(std::clamp<int64_t>(args[0].integral(), 0, 1000)), ' ');
    }
    const std::string text = ToText(in_) + "\n";
    std::string out = args[1].IsTrue() ? indention : "";
    bool is_first = true;
    for (const std::string_view line : SplitLines(text)) {
      RETURN_IF_ERROR(budget_.Charge(static_cast<int64_t>(line.size() + indention.size())));
      if (!is_first) {
        out += '\n';
        if (!line.empty() || args[2].IsTrue()) out += indention;
      }
      is_first = false;
      out += line;
    }
    return Value(std::move(out));
  }

  Result FirstOrLast() {
    RETURN_IF_ERROR(Bind({}).status());
    ASSIGN_OR_RETURN(const Bound items, Iterate(in_, budget_));
    if (items.empty()) return Value();
    return name_ == "first" ? items.front() : items.back();
  }

  Result ToList() {
    RETURN_IF_ERROR(Bind({}).status());
    ASSIGN_OR_RETURN(Bound items, Iterate(in_, budget_));
    return Value::OfList(std::move(items));
  }

  Result Items() {
    RETURN_IF_ERROR(Bind({}).status());
    if (in_.is_undefined()) return Value::OfList({});
    return builtins_.Method(in_, "items", {});
  }

  Result Reverse() {
    RETURN_IF_ERROR(Bind({}).status());
    if (in_.is_string()) return Slice(in_, Value(), Value(), Value(int64_t{-1}), budget_);
    ASSIGN_OR_RETURN(Bound items, Iterate(in_, budget_));
    std::reverse(items.begin(), items.end());
    return Value::OfList(std::move(items));
  }

  Result Unique() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"case_sensitive", "attribute"}));
    ASSIGN_OR_RETURN(const Bound items, Iterate(in_, budget_));
    Bound out, keys;
    for (const Value& item : items) {
      Value key = args[1].is_string() ? GetPath(item, args[1].string()) : item;
      if (!args[0].IsTrue() && key.is_string()) key = Value(LowerText(key.string()));
      ASSIGN_OR_RETURN(const Value known, Value::OfList(keys));
      ASSIGN_OR_RETURN(const bool is_known, Contains(known, key, budget_));
      if (is_known) continue;
      keys.push_back(std::move(key));
      out.push_back(item);
    }
    return Value::OfList(std::move(out));
  }

  // None of None and its like, as map and select have it.
  absl::StatusOr<Bound> ItemsIfAny() {
    return in_.IsTrue() ? Iterate(in_, budget_) : absl::StatusOr<Bound>(Bound());
  }

  // `map('filter', ...)` or `map(attribute='a.b', default=...)`.
  Result Map() {
    ASSIGN_OR_RETURN(const Bound items, ItemsIfAny());
    Bound out;
    if (args_.positional.empty()) {
      ASSIGN_OR_RETURN(const Bound args, Bind({"attribute", "default"}));
      if (!args[0].is_string()) return Expected("the name of an attribute", args[0]);
      for (const Value& item : items) {
        RETURN_IF_ERROR(budget_.Charge());
        Value found = GetPath(item, args[0].string());
        out.push_back(found.is_undefined() ? args[1] : std::move(found));
      }
      return Value::OfList(std::move(out));
    }
    if (!args_.positional[0].is_string()) {
      return Expected("the name of a filter", args_.positional[0]);
    }
    Arguments rest = args_;
    rest.positional.erase(rest.positional.begin());
    for (const Value& item : items) {
      RETURN_IF_ERROR(budget_.Charge());
      if (args_.positional[0].string() == "map") return Expected("another filter than map", in_);
      ASSIGN_OR_RETURN(out.emplace_back(),
                       builtins_.Filter(args_.positional[0].string(), item, rest));
    }
    return Value::OfList(std::move(out));
  }

  // select, reject: of the items; selectattr, rejectattr: of an attribute of them.
  Result Select() {
    const bool has_attribute = name_.ends_with("attr");
    const bool keeps = name_.starts_with("select");
    Arguments rest = args_;
    Bound& positional = rest.positional;
    std::string attribute, test;
    for (std::string* word : {&attribute, &test}) {
      if (word == &attribute && !has_attribute) continue;
      if (positional.empty() && word == &test) break;
      if (positional.empty() || !positional[0].is_string()) {
        return Expected("a name", positional.empty() ? Value() : positional[0]);
      }
      *word = positional[0].string();
      positional.erase(positional.begin());
    }
    ASSIGN_OR_RETURN(const Bound items, ItemsIfAny());
    Bound out;
    for (const Value& item : items) {
      RETURN_IF_ERROR(budget_.Charge());
      const Value tested = has_attribute ? GetPath(item, attribute) : item;
      bool passes = tested.IsTrue();
      if (!test.empty()) {
        ASSIGN_OR_RETURN(passes, builtins_.Test(test, tested, rest));
      }
      if (passes == keeps) out.push_back(item);
    }
    return Value::OfList(std::move(out));
  }

  // Sorts by `key`, in lower case unless told otherwise.
  template <typename Item, typename Key>
  absl::Status SortBy(std::vector<Item>& items, bool reverse, bool case_sensitive, Key key) {
    absl::Status status = budget_.Charge(static_cast<int64_t>(items.size()) * 256);
    const auto fold = [&](const Value& value) {
      return value.is_string() && !case_sensitive ? Value(LowerText(value.string())) : value;
    };
    const auto is_less = [&](const Item& a, const Item& b) {
      if (!status.ok()) return false;
      absl::StatusOr<bool> less = Compare("<", fold(key(a)), fold(key(b)), budget_);
      if (!less.ok()) status = less.status();
      return less.ok() && *less;
    };
    // Equal ones keep their order, reversed or not.
    std::stable_sort(items.begin(), items.end(), [&](const Item& a, const Item& b) {
      return reverse ? is_less(b, a) : is_less(a, b);
    });
    return status;
  }

  Result Sort() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"reverse", "case_sensitive", "attribute"}));
    ASSIGN_OR_RETURN(Bound items, Iterate(in_, budget_));
    RETURN_IF_ERROR(SortBy(items, args[0].IsTrue(), args[1].IsTrue(), [&](const Value& item) {
      return args[2].is_string() ? GetPath(item, args[2].string()) : item;
    }));
    return Value::OfList(std::move(items));
  }

  Result DictSort() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"case_sensitive", "by", "reverse"}));
    if (!in_.is_map()) return Expected("a map", in_);
    const bool by_value = args[1].is_string() && args[1].string() == "value";
    MapItems items = in_.map().items;
    RETURN_IF_ERROR(SortBy(items, args[2].IsTrue(), args[0].IsTrue(),
                           [&](const std::pair<MapKey, Value>& item) {
                             return by_value ? item.second : FromMapKey(item.first);
                           }));
    ASSIGN_OR_RETURN(const Value sorted, Value::OfMap(std::move(items)));
    return builtins_.Method(sorted, "items", {});
  }

  Result MinOrMax() {
    RETURN_IF_ERROR(Bind({}).status());
    ASSIGN_OR_RETURN(Bound items, Iterate(in_, budget_));
    if (items.empty()) return Value();
    RETURN_IF_ERROR(SortBy(items, name_ == "max", false, [](const Value& item) { return item; }));
    return items.front();
  }

  Result Sum() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"attribute", "start"}));
    ASSIGN_OR_RETURN(const Bound items, Iterate(in_, budget_));
    Value sum = args[1].is_undefined() ? Value(int64_t{0}) : args[1];
    for (const Value& item : items) {
      ASSIGN_OR_RETURN(
          sum, Calculate("+", sum, args[0].is_string() ? GetPath(item, args[0].string()) : item,
                         budget_));
    }
    return sum;
  }

  Result Abs() {
    RETURN_IF_ERROR(Bind({}).status());
    if (in_.is_float()) return Value(std::abs(in_.number()));
    if (!in_.is_integral()) return Expected("a number", in_);
    return in_.integral() < 0 ? Calculate("-", Value(int64_t{0}), in_, budget_)
                              : Result(Value(in_.integral()));
  }

  Result Round() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"precision", "method"}));
    if (!in_.is_number()) return Expected("a number", in_);
    const double factor = std::pow(10.0, args[0].is_integral() ? args[0].number() : 0.0);
    const double scaled = in_.number() * factor;
    const std::string method = args[1].is_string() ? args[1].string() : "common";
    if (method == "ceil") return Value(std::ceil(scaled) / factor);
    if (method == "floor") return Value(std::floor(scaled) / factor);
    return Value(std::nearbyint(scaled) / factor);
  }

  Result Int() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"default"}));
    const Value otherwise = args[0].is_undefined() ? Value(int64_t{0}) : args[0];
    if (in_.is_integral()) return Value(in_.integral());
    double number = 0;
    int64_t whole = 0;
    if (in_.is_string()) {
      if (absl::SimpleAtoi(in_.string(), &whole)) return Value(whole);
      if (!absl::SimpleAtod(in_.string(), &number)) return otherwise;
    } else if (in_.is_float()) {
      number = in_.number();
    } else {
      return otherwise;
    }
    constexpr double kLimit = 9.2e18;
    return std::abs(number) < kLimit ? Value(static_cast<int64_t>(number)) : otherwise;
  }

  Result Float() {
    ASSIGN_OR_RETURN(const Bound args, Bind({"default"}));
    double number = 0;
    if (in_.is_number()) return Value(in_.number());
    if (in_.is_string() && absl::SimpleAtod(in_.string(), &number)) return Value(number);
    return args[0].is_undefined() ? Value(0.0) : args[0];
  }

  const Builtins& builtins_;
  Budget& budget_;
  const std::string_view name_;
  const Value& in_;
  const Arguments& args_;
};

}  // namespace

absl::StatusOr<std::vector<Value>> Arguments::Bind(
    std::string_view function, const std::vector<std::string_view>& names) const {
  if (positional.size() > names.size()) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(function), ": expected at most ",
                                                   names.size(), " arguments, got ",
                                                   positional.size()));
  }
  std::vector<Value> bound = positional;
  bound.resize(names.size());
  for (const auto& [name, value] : named) {
    const auto found = std::find(names.begin(), names.end(), name);
    const auto place = static_cast<size_t>(found - names.begin());
    if (found == names.end() || place < positional.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat(ToAbsl(function), ": unexpected argument `", name, "`"));
    }
    bound[place] = value;
  }
  return bound;
}

absl::StatusOr<Value> Builtins::Filter(std::string_view name, const Value& input,
                                       const Arguments& arguments) const {
  RETURN_IF_ERROR(budget->Charge());
  return FilterCall(*this, name, input, arguments).Run();
}

}  // namespace flowmesh::chat
