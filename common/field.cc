#include "common/field.h"

#include <charconv>
#include <cmath>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/strings.h"

namespace flowmesh {
namespace {

const Json& NullJson() {
  static const Json null;
  return null;
}

// A number, or a string that holds nothing but a finite one.
std::optional<double> ReadNumber(const Json& value) {
  double number = 0;
  if (value.is_number()) {
    number = value.get<double>();
  } else if (value.is_string()) {
    const std::string& text = value.get_ref<const std::string&>();
    if (!absl::SimpleAtod(text, &number)) return std::nullopt;
  } else {
    return std::nullopt;
  }
  if (!std::isfinite(number)) return std::nullopt;
  return number;
}

std::optional<int64_t> ReadInt(const Json& value) {
  if (value.is_number_unsigned()) {
    const uint64_t number = value.get<uint64_t>();
    if (number > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(number);
  }
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_string()) {
    int64_t number = 0;
    if (absl::SimpleAtoi(value.get_ref<const std::string&>(), &number)) return number;
  }
  const std::optional<double> number = ReadNumber(value);
  constexpr double kExact =
      9007199254740992.0;  // 2^53: beyond it a float no longer names one integer
  if (!number || *number != std::floor(*number) || std::fabs(*number) > kExact) return std::nullopt;
  return static_cast<int64_t>(*number);
}

std::string IntRange(int64_t min, int64_t max) {
  const bool low = min != std::numeric_limits<int64_t>::min();
  const bool high = max != std::numeric_limits<int64_t>::max();
  if (low && high) return absl::StrCat("an integer from ", min, " to ", max);
  if (low) return absl::StrCat("an integer of at least ", min);
  if (high) return absl::StrCat("an integer of at most ", max);
  return "an integer";
}

}  // namespace

bool NumberBounds::Hold(double value) const {
  return (!at_least || value >= *at_least) && (!above || value > *above) &&
         (!at_most || value <= *at_most) && (!below || value < *below);
}

std::string NumberBounds::ToString() const {
  std::string text = "a number";
  const char* before = " ";
  const auto add = [&](const char* word, const std::optional<double>& bound) {
    if (bound) absl::StrAppend(&text, std::exchange(before, " and "), word, *bound);
  };
  add("of at least ", at_least);
  add("above ", above);
  add("at most ", at_most);
  add("below ", below);
  return text;
}

Field Field::operator[](std::string_view key) const {
  std::string path = path_.empty() ? std::string(key) : absl::StrCat(path_, ".", ToAbsl(key));
  if (!present() || !value_->is_object()) return Field(nullptr, std::move(path));
  const auto it = value_->find(std::string(key));
  return Field(it == value_->end() ? nullptr : &*it, std::move(path));
}

Field Field::operator[](size_t index) const {
  std::string path = absl::StrCat(path_, "[", index, "]");
  return Field(index < size() ? &(*value_)[index] : nullptr, std::move(path));
}

Field Field::FirstOf(std::initializer_list<std::string_view> keys) const {
  for (std::string_view key : keys) {
    if (Field field = (*this)[key]; field.present()) return field;
  }
  return (*this)[*keys.begin()];
}

const Json& Field::json() const { return value_ == nullptr ? NullJson() : *value_; }

absl::Status Field::CheckMap() const {
  if (!present() || value_->is_object()) return absl::OkStatus();
  return Expected("a map");
}

absl::Status Field::CheckList() const {
  if (!present() || value_->is_array()) return absl::OkStatus();
  return Expected("a list");
}

absl::StatusOr<std::string> Field::String() const {
  if (!present() || !value_->is_string()) return Expected("a string");
  return value_->get<std::string>();
}

absl::StatusOr<std::string> Field::NonEmptyString() const {
  ASSIGN_OR_RETURN(const std::string text, String());
  const std::string_view trimmed = Trim(text);
  if (trimmed.empty()) return Expected("a non-empty string");
  return std::string(trimmed);
}

absl::StatusOr<int64_t> Field::Int(int64_t min, int64_t max) const {
  const std::optional<int64_t> number = present() ? ReadInt(*value_) : std::nullopt;
  if (!number || *number < min || *number > max) return Expected(IntRange(min, max));
  return *number;
}

absl::StatusOr<double> Field::Number(const NumberBounds& bounds) const {
  const std::optional<double> number = present() ? ReadNumber(*value_) : std::nullopt;
  if (!number || !bounds.Hold(*number)) return Expected(bounds.ToString());
  return *number;
}

absl::StatusOr<bool> Field::Bool() const {
  if (present()) {
    if (value_->is_boolean()) return value_->get<bool>();
    if (value_->is_string()) {
      const std::string word = ToLower(Trim(value_->get_ref<const std::string&>()));
      if (word == "true" || word == "yes" || word == "on" || word == "1") return true;
      if (word == "false" || word == "no" || word == "off" || word == "0") return false;
    }
    if (value_->is_number()) {
      const double number = value_->get<double>();
      if (number == 0 || number == 1) return number == 1;
    }
  }
  return Expected("true or false");
}

absl::StatusOr<std::vector<std::string>> Field::StringList() const {
  if (!present() || !value_->is_array()) return Expected("a list of strings");
  std::vector<std::string> items;
  items.reserve(value_->size());
  for (size_t i = 0; i < value_->size(); ++i) {
    ASSIGN_OR_RETURN(std::string item, (*this)[i].String());
    items.push_back(std::move(item));
  }
  return items;
}

absl::StatusOr<std::string> Field::StringOr(std::string_view fallback) const {
  if (!present()) return std::string(fallback);
  return String();
}

absl::StatusOr<int64_t> Field::IntOr(int64_t fallback, int64_t min, int64_t max) const {
  if (!present()) return fallback;
  return Int(min, max);
}

absl::StatusOr<double> Field::NumberOr(double fallback, const NumberBounds& bounds) const {
  if (!present()) return fallback;
  return Number(bounds);
}

absl::StatusOr<bool> Field::BoolOr(bool fallback) const {
  if (!present()) return fallback;
  return Bool();
}

absl::Status Field::Expected(std::string_view what) const {
  return absl::InvalidArgumentError(
      absl::StrCat(path_, ": expected ", ToAbsl(what), ", got ", DescribeJson(json())));
}

absl::Status Field::Error(std::string_view text) const {
  return absl::InvalidArgumentError(absl::StrCat(path_, ": ", ToAbsl(text)));
}

}  // namespace flowmesh
