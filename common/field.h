// A value inside a JSON document together with its path, so that every complaint names its field:
//   spec.training.batch_size: expected an integer of at least 1, got "two"
// and lenient readers (TASKS.md 1.4): numeric strings are numbers, whole floats are integers, the
// words true/false/yes/no/on/off/1/0 are booleans, null is absent.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh {

// What a number may be; each bound may be left out. At most one of the first two and of the last
// two.
struct NumberBounds {
  std::optional<double> at_least, above, at_most, below;

  bool Hold(double value) const;
  std::string ToString() const;  // `a number above 0 and at most 1`
};

// A view: the document must outlive it. Absent fields are Fields too (`present()` is false), so
// chains such as `spec["model"]["source"]["identifier"]` need no checks between. Copyable,
// thread-compatible.
class Field {
 public:
  Field(const Json* value, std::string path) : value_(value), path_(std::move(path)) {}

  // The member `key`; absent when this is no map or has no such key. Null counts as absent.
  Field operator[](std::string_view key) const;
  // The list element `index`, path `path[index]`.
  Field operator[](size_t index) const;
  // The first of `keys` that is present, else the absent first one (aliases, TASKS.md 1.5).
  Field FirstOf(std::initializer_list<std::string_view> keys) const;

  bool present() const { return value_ != nullptr && !value_->is_null(); }
  // The raw value; null when absent.
  const Json& json() const;
  const std::string& path() const { return path_; }

  // The number of list elements; 0 for anything else.
  size_t size() const { return present() && value_->is_array() ? value_->size() : 0; }

  // InvalidArgument unless absent or a map (a list).
  absl::Status CheckMap() const;
  absl::Status CheckList() const;

  // The typed readers. Each fails with InvalidArgument when the field is absent or of another type.
  absl::StatusOr<std::string> String() const;          // as it is
  absl::StatusOr<std::string> NonEmptyString() const;  // trimmed (paths and ids)
  absl::StatusOr<int64_t> Int(int64_t min = std::numeric_limits<int64_t>::min(),
                              int64_t max = std::numeric_limits<int64_t>::max()) const;
  absl::StatusOr<double> Number(const NumberBounds& bounds = {}) const;  // finite
  absl::StatusOr<bool> Bool() const;
  absl::StatusOr<std::vector<std::string>> StringList() const;

  // The same with a default for an absent field.
  absl::StatusOr<std::string> StringOr(std::string_view fallback) const;
  absl::StatusOr<int64_t> IntOr(int64_t fallback, int64_t min = std::numeric_limits<int64_t>::min(),
                                int64_t max = std::numeric_limits<int64_t>::max()) const;
  absl::StatusOr<double> NumberOr(double fallback, const NumberBounds& bounds = {}) const;
  absl::StatusOr<bool> BoolOr(bool fallback) const;

  // `<path>: expected <what>, got <found>`.
  absl::Status Expected(std::string_view what) const;
  absl::Status Error(std::string_view text) const;  // `<path>: <text>`

 private:
  const Json* value_;  // null when absent
  std::string path_;
};

}  // namespace flowmesh
