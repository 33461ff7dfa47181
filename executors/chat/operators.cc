// Iterate, GetItem, Contains, Compare, Calculate and Slice of builtins.h.
#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/chat/builtins.h"
#include "executors/chat/python_text.h"

namespace flowmesh::chat {
namespace {

absl::Status WrongOperands(std::string_view op, const Value& a, const Value& b) {
  return absl::InvalidArgumentError(
      absl::StrCat("`", ToAbsl(op), "` between ", ToAbsl(a.Kind()), " and ", ToAbsl(b.Kind())));
}

absl::Status TooLarge(std::string_view op) {
  return absl::InvalidArgumentError(absl::StrCat("the result of `", ToAbsl(op), "` is too large"));
}

absl::Status ByZero(std::string_view op) {
  return absl::InvalidArgumentError(absl::StrCat("`", ToAbsl(op), "` by zero"));
}

absl::StatusOr<Value> Integers(std::string_view op, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflows = false;
  if (op == "+") {
    overflows = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflows = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflows = __builtin_mul_overflow(a, b, &out);
  } else if (op == "**") {
    out = 1;
    if (b > 64 && a != 0 && a != 1 && a != -1) return TooLarge(op);
    for (int64_t i = 0; i < (b > 64 ? 64 + b % 2 : b) && !overflows; ++i) {
      overflows = __builtin_mul_overflow(out, a, &out);
    }
  } else if (b == 0) {
    return ByZero(op);
  } else if (b == -1) {
    overflows = op == "//" && __builtin_sub_overflow(int64_t{0}, a, &out);
  } else {  // both round down
    const bool is_down = a % b != 0 && (a < 0) != (b < 0);
    out = op == "%" ? a % b + (is_down ? b : 0) : a / b - (is_down ? 1 : 0);
  }
  if (overflows) return TooLarge(op);
  return Value(out);
}

absl::StatusOr<Value> Floats(std::string_view op, double a, double b) {
  if (op == "+") return Value(a + b);
  if (op == "-") return Value(a - b);
  if (op == "*") return Value(a * b);
  if (op == "**") return Value(std::pow(a, b));
  if (b == 0) return ByZero(op);
  if (op == "/") return Value(a / b);
  if (op == "//") return Value(std::floor(a / b));
  const double rest = std::fmod(a, b);
  return Value(rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest);
}

absl::StatusOr<Value> Repeat(const Value& value, int64_t count, Budget& budget) {
  count = std::max<int64_t>(count, 0);
  const auto size = static_cast<int64_t>(value.is_string() ? value.string().size()
                                                           : value.list().size() * sizeof(Value));
  int64_t bytes = 0;
  if (__builtin_mul_overflow(size, count, &bytes)) return TooLarge("*");
  RETURN_IF_ERROR(budget.Charge(bytes));
  if (size == 0) return value;
  if (value.is_string()) {
    std::string out;
    for (int64_t i = 0; i < count; ++i) out += value.string();
    return Value(std::move(out));
  }
  std::vector<Value> out;
  for (int64_t i = 0; i < count; ++i) {
    out.insert(out.end(), value.list().begin(), value.list().end());
  }
  return Value::OfList(std::move(out));
}

absl::StatusOr<bool> Less(std::string_view op, const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    return a.is_integral() && b.is_integral() ? a.integral() < b.integral()
                                              : a.number() < b.number();
  }
  if (a.is_string() && b.is_string()) return a.string() < b.string();
  return WrongOperands(op, a, b);
}

// Python's slice.indices().
struct Range {
  int64_t start, stop, step;
};

absl::StatusOr<Range> ReadRange(const Value& start, const Value& stop, const Value& step,
                                int64_t length) {
  for (const Value* bound : {&start, &stop, &step}) {
    if (!bound->is_undefined() && !bound->is_none() && !bound->is_integral()) {
      return absl::InvalidArgumentError(
          absl::StrCat("a slice's bound: expected an integer, got ", ToAbsl(bound->Kind())));
    }
  }
  Range range{0, length, step.is_integral() ? step.integral() : 1};
  if (range.step == 0) return absl::InvalidArgumentError("a slice's step must not be 0");
  const int64_t low = range.step < 0 ? -1 : 0;
  const int64_t high = range.step < 0 ? length - 1 : length;
  const auto place = [&](const Value& bound, int64_t otherwise) {
    if (!bound.is_integral()) return otherwise;
    const int64_t i = bound.integral();
    return std::clamp(i < 0 ? i + length : i, low, high);
  };
  range.start = place(start, range.step < 0 ? high : low);
  range.stop = place(stop, range.step < 0 ? low : high);
  range.step = std::clamp(range.step, -length - 1, length + 1);
  return range;
}

template <typename Take>
void ForEachOf(const Range& range, Take take) {
  for (int64_t i = range.start; range.step > 0 ? i < range.stop : i > range.stop; i += range.step) {
    take(i);
  }
}

}  // namespace

absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (value.is_undefined()) return items;
  if (value.is_list()) {
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(value.list().size() * sizeof(Value))));
    return value.list();
  }
  if (value.is_map()) {
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(value.map().items.size()) * 64));
    for (const auto& item : value.map().items) items.push_back(FromMapKey(item.first));
    return items;
  }
  if (value.is_string()) {
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(value.string().size()) * 64));
    for (const std::string_view c : Characters(value.string())) items.emplace_back(std::string(c));
    return items;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("expected something with items, got ", ToAbsl(value.Kind())));
}

Value GetItem(const Value& value, const Value& key) {
  if (value.is_map()) {
    const std::optional<MapKey> place = ToMapKey(key);
    const Value* found = place ? value.map().Find(*place) : nullptr;
    return found == nullptr ? Value() : *found;
  }
  if (value.is_namespace() && key.is_string()) {
    const auto found = value.ns().members.find(key.string());
    return found == value.ns().members.end() ? Value() : found->second;
  }
  if (!key.is_integral()) return Value();
  const auto place = [&](int64_t length) {
    return key.integral() < 0 ? key.integral() + length : key.integral();
  };
  if (value.is_list()) {
    const auto size = static_cast<int64_t>(value.list().size());
    const int64_t i = place(size);
    return i >= 0 && i < size ? value.list()[i] : Value();
  }
  if (value.is_string()) {
    const std::vector<std::string_view> characters = Characters(value.string());
    const auto size = static_cast<int64_t>(characters.size());
    const int64_t i = place(size);
    return i >= 0 && i < size ? Value(std::string(characters[i])) : Value();
  }
  return Value();
}

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_string()) {
    if (!item.is_string()) return WrongOperands("in", item, container);
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(container.string().size())));
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is_map()) {
    const std::optional<MapKey> key = ToMapKey(item);
    return key && container.map().Find(*key) != nullptr;
  }
  if (container.is_undefined()) return false;
  if (!container.is_list()) return WrongOperands("in", item, container);
  for (const Value& other : container.list()) {
    RETURN_IF_ERROR(budget.Charge());
    if (Equal(other, item)) return true;
  }
  return false;
}

absl::StatusOr<bool> Compare(std::string_view op, const Value& a, const Value& b, Budget& budget) {
  if (op == "==") return Equal(a, b);
  if (op == "!=") return !Equal(a, b);
  if (op == "<") return Less(op, a, b);
  if (op == ">") return Less(op, b, a);
  if (op == "in") return Contains(b, a, budget);
  absl::StatusOr<bool> opposite = op == "<="   ? Less(op, b, a)
                                  : op == ">=" ? Less(op, a, b)
                                               : Contains(b, a, budget);
  if (!opposite.ok()) return opposite.status();
  return !*opposite;
}

absl::StatusOr<Value> Calculate(std::string_view op, const Value& a, const Value& b,
                                Budget& budget) {
  if (op == "~") {
    std::string text = ToText(a) + ToText(b);
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(text.size())));
    return Value(std::move(text));
  }
  if (a.is_number() && b.is_number()) {
    const bool is_whole =
        a.is_integral() && b.is_integral() && op != "/" && !(op == "**" && b.integral() < 0);
    return is_whole ? Integers(op, a.integral(), b.integral()) : Floats(op, a.number(), b.number());
  }
  if (op == "+" && a.is_string() && b.is_string()) {
    const bool is_html = a.is_markup() || b.is_markup();
    const auto text_of = [&](const Value& v) {
      return is_html && !v.is_markup() ? EscapeHtml(v.string()) : v.string();
    };
    std::string text = text_of(a) + text_of(b);
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(text.size())));
    return is_html ? Value::Markup(std::move(text)) : Value(std::move(text));
  }
  if (op == "+" && a.is_list() && b.is_list()) {
    std::vector<Value> items = a.list();
    items.insert(items.end(), b.list().begin(), b.list().end());
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(items.size() * sizeof(Value))));
    return Value::OfList(std::move(items));
  }
  if (op == "*" && (a.is_string() || a.is_list()) && b.is_integral()) {
    return Repeat(a, b.integral(), budget);
  }
  if (op == "*" && (b.is_string() || b.is_list()) && a.is_integral()) {
    return Repeat(b, a.integral(), budget);
  }
  return WrongOperands(op, a, b);
}

absl::StatusOr<Value> Slice(const Value& value, const Value& start, const Value& stop,
                            const Value& step, Budget& budget) {
  if (value.is_string()) {
    RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(value.string().size()) * 16));
    const std::vector<std::string_view> characters = Characters(value.string());
    ASSIGN_OR_RETURN(const Range range,
                     ReadRange(start, stop, step, static_cast<int64_t>(characters.size())));
    std::string out;
    ForEachOf(range, [&](int64_t i) { out += characters[i]; });
    return Value(std::move(out));
  }
  if (!value.is_list()) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected a list or a string to cut, got ", ToAbsl(value.Kind())));
  }
  const std::vector<Value>& items = value.list();
  RETURN_IF_ERROR(budget.Charge(static_cast<int64_t>(items.size() * sizeof(Value))));
  ASSIGN_OR_RETURN(const Range range,
                   ReadRange(start, stop, step, static_cast<int64_t>(items.size())));
  std::vector<Value> out;
  ForEachOf(range, [&](int64_t i) { out.push_back(items[i]); });
  return Value::OfList(std::move(out));
}

}  // namespace flowmesh::chat
