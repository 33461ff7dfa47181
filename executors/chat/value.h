// Values of a template: what Python's None, bool, int, float, str, list, dict and functions are.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::chat {

// Deepest nesting of lists and maps.
inline constexpr int kMaxValueDepth = 300;

class Value;
struct Macro;

struct List {
  std::vector<Value> items;
  int depth = 1;
};

// True is the key 1.
using MapKey = std::variant<int64_t, std::string>;
using MapItems = std::vector<std::pair<MapKey, Value>>;

// In the order of insertion.
struct Map {
  MapItems items;
  absl::flat_hash_map<MapKey, size_t> places;
  int depth = 1;

  const Value* Find(const MapKey& key) const;
};

struct String {
  std::string text;
  bool is_markup = false;
};

// The one thing that changes: `{% set ns.x = ... %}`.
struct Namespace {
  absl::flat_hash_map<std::string, Value> members;
};

struct Callable;

// Immutable, cheap to copy. The default is undefined. Namespaces and callables stand in variables
// only, never in lists, maps and namespaces, so that no value can hold itself.
class Value {
 public:
  struct None {
    bool operator==(const None&) const = default;
  };

  Value() = default;
  Value(None) : v_(None{}) {}  // NOLINT(google-explicit-constructor)
  Value(bool b) : v_(b) {}     // NOLINT(google-explicit-constructor)
  Value(int64_t i) : v_(i) {}  // NOLINT(google-explicit-constructor)
  Value(double d) : v_(d) {}   // NOLINT(google-explicit-constructor)
  Value(std::string s)         // NOLINT(google-explicit-constructor)
      : v_(std::make_shared<const String>(String{std::move(s)})) {}
  explicit Value(std::shared_ptr<Namespace> ns) : v_(std::move(ns)) {}
  explicit Value(std::shared_ptr<const Callable> callable) : v_(std::move(callable)) {}
  Value(const char*) = delete;

  // A string that is HTML, as the filters `safe` and `escape` give. In a sum with it, other strings
  // are escaped.
  static Value Markup(std::string s);
  // InvalidArgument: nested too deep, or of something that only variables hold.
  static absl::StatusOr<Value> OfList(std::vector<Value> items);
  // A later item replaces an earlier one of its key.
  static absl::StatusOr<Value> OfMap(MapItems items);
  static absl::StatusOr<Value> FromJson(const Json& json);

  bool is_undefined() const { return std::holds_alternative<std::monostate>(v_); }
  bool is_none() const { return std::holds_alternative<None>(v_); }
  bool is_bool() const { return std::holds_alternative<bool>(v_); }
  bool is_int() const { return std::holds_alternative<int64_t>(v_); }
  bool is_float() const { return std::holds_alternative<double>(v_); }
  bool is_number() const { return is_bool() || is_int() || is_float(); }  // as in Python
  bool is_integral() const { return is_bool() || is_int(); }
  bool is_string() const { return std::holds_alternative<StringPtr>(v_); }
  bool is_markup() const { return is_string() && std::get<StringPtr>(v_)->is_markup; }
  bool is_list() const { return std::holds_alternative<ListPtr>(v_); }
  bool is_map() const { return std::holds_alternative<MapPtr>(v_); }
  bool is_namespace() const { return std::holds_alternative<NamespacePtr>(v_); }
  bool is_callable() const { return std::holds_alternative<CallablePtr>(v_); }

  // Each for its kind only.
  bool boolean() const { return std::get<bool>(v_); }
  int64_t integral() const { return is_bool() ? boolean() : std::get<int64_t>(v_); }
  double number() const;
  const std::string& string() const { return std::get<StringPtr>(v_)->text; }
  const std::vector<Value>& list() const { return std::get<ListPtr>(v_)->items; }
  const Map& map() const { return *std::get<MapPtr>(v_); }
  Namespace& ns() const { return *std::get<NamespacePtr>(v_); }
  const Callable& callable() const { return *std::get<CallablePtr>(v_); }

  bool IsTrue() const;
  int depth() const;
  // `a string`, `None`: for errors.
  std::string_view Kind() const;

 private:
  using StringPtr = std::shared_ptr<const String>;
  using ListPtr = std::shared_ptr<const List>;
  using MapPtr = std::shared_ptr<const Map>;
  using NamespacePtr = std::shared_ptr<Namespace>;
  using CallablePtr = std::shared_ptr<const Callable>;

  std::variant<std::monostate, None, bool, int64_t, double, StringPtr, ListPtr, MapPtr,
               NamespacePtr, CallablePtr>
      v_;
};

// A macro, a global function, or a method with what it is a method of.
struct Callable {
  const Macro* macro = nullptr;  // of the template that runs
  std::string name;              // of a function or method, when there is no macro
  Value self;                    // of a method; undefined for a function
};

// Nothing: a value that is no key.
std::optional<MapKey> ToMapKey(const Value& value);
Value FromMapKey(const MapKey& key);

// As Python compares: 1 == True == 1.0.
bool Equal(const Value& a, const Value& b);

// Python's str().
std::string ToText(const Value& value);

// The whitespace of json.dumps.
struct JsonForm {
  int indent = -1;  // negative: one line
  std::string item_separator = ", ", key_separator = ": ";
  bool ensure_ascii = false, sort_keys = false;
};

// InvalidArgument: something undefined, a namespace or a callable in it.
absl::StatusOr<std::string> ToJsonText(const Value& value, const JsonForm& form);

}  // namespace flowmesh::chat
