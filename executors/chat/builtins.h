// Filters, tests, methods and functions that templates find without defining them.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "executors/chat/budget.h"
#include "executors/chat/value.h"

namespace flowmesh::chat {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The values of parameters with these names; undefined where not given. InvalidArgument: too
  // many, unknown, or twice.
  absl::StatusOr<std::vector<Value>> Bind(std::string_view function,
                                          const std::vector<std::string_view>& names) const;
};

struct Builtins {
  Budget* budget;
  absl::Time now;  // for strftime_now, in the local time zone

  // `input | name(arguments)`. InvalidArgument: no such filter, or what it says of its input.
  absl::StatusOr<Value> Filter(std::string_view name, const Value& input,
                               const Arguments& arguments) const;
  // `input is name(arguments)`.
  absl::StatusOr<bool> Test(std::string_view name, const Value& input,
                            const Arguments& arguments) const;
  // `self.name(arguments)` for strings, lists and maps.
  absl::StatusOr<Value> Method(const Value& self, std::string_view name,
                               const Arguments& arguments) const;
  // `range`, `namespace`, `dict`, `raise_exception`, `strftime_now`.
  absl::StatusOr<Value> Function(std::string_view name, const Arguments& arguments) const;
};

bool HasMethod(const Value& self, std::string_view name);
bool IsFunction(std::string_view name);

// The items of what `for` goes over: a list's, a map's keys, a string's characters, none of
// something undefined.
absl::StatusOr<std::vector<Value>> Iterate(const Value& value, Budget& budget);

// `value.name` or `value[name]`: a member of a map or namespace, an item of a list or string;
// undefined when there is none.
Value GetItem(const Value& value, const Value& key);

absl::StatusOr<bool> Contains(const Value& container, const Value& item, Budget& budget);

// `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`.
absl::StatusOr<bool> Compare(std::string_view op, const Value& a, const Value& b, Budget& budget);

// `+`, `-`, `*`, `/`, `//`, `%`, `**`, `~`.
absl::StatusOr<Value> Calculate(std::string_view op, const Value& a, const Value& b,
                                Budget& budget);

// value[start:stop:step]; bounds may be undefined.
absl::StatusOr<Value> Slice(const Value& value, const Value& start, const Value& stop,
                            const Value& step, Budget& budget);

}  // namespace flowmesh::chat
