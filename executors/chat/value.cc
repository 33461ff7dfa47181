#include "executors/chat/value.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/strings.h"
#include "executors/chat/python_text.h"

namespace flowmesh::chat {
namespace {

absl::Status CheckMember(const Value& item) {
  if (item.is_namespace() || item.is_callable()) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToAbsl(item.Kind()), " can stand in a variable only"));
  }
  if (item.depth() >= kMaxValueDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("a value nested deeper than ", kMaxValueDepth, " levels"));
  }
  return absl::OkStatus();
}

// Python's repr().
void AppendRepr(const Value& value, std::string& out) {
  if (value.is_string()) {
    out += PythonRepr(value.string());
  } else if (value.is_list()) {
    out += '[';
    for (size_t i = 0; i < value.list().size(); ++i) {
      if (i > 0) out += ", ";
      AppendRepr(value.list()[i], out);
    }
    out += ']';
  } else if (value.is_map()) {
    out += '{';
    bool first = true;
    for (const auto& [key, item] : value.map().items) {
      if (!first) out += ", ";
      first = false;
      AppendRepr(FromMapKey(key), out);
      out += ": ";
      AppendRepr(item, out);
    }
    out += '}';
  } else {
    out += value.is_undefined() ? "Undefined" : ToText(value);
  }
}

// The text of json.dumps for strings: DumpJson's, or with \u escapes for all that is not ASCII.
std::string JsonString(const std::string& text, bool ensure_ascii) {
  return Json(text).dump(-1, ' ', ensure_ascii, Json::error_handler_t::replace);
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonForm& form) : form_(form) {}

  absl::Status Write(const Value& value, int level) {
    if (value.is_none()) {
      out_ += "null";
    } else if (value.is_bool()) {
      out_ += value.boolean() ? "true" : "false";
    } else if (value.is_number()) {
      out_ += ToText(value);
    } else if (value.is_string()) {
      out_ += JsonString(value.string(), form_.ensure_ascii);
    } else if (value.is_list()) {
      return WriteList(value.list(), level);
    } else if (value.is_map()) {
      return WriteMap(value.map(), level);
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("tojson: expected what JSON can say, got ", ToAbsl(value.Kind())));
    }
    return absl::OkStatus();
  }

  std::string Take() { return std::move(out_); }

 private:
  void NewLine(int level) {
    if (form_.indent < 0) return;
    out_ += '\n';
    out_.append(static_cast<size_t>(form_.indent) * level, ' ');
  }

  absl::Status WriteList(const std::vector<Value>& items, int level) {
    if (items.empty()) {
      out_ += "[]";
      return absl::OkStatus();
    }
    out_ += '[';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += form_.item_separator;
      NewLine(level + 1);
      RETURN_IF_ERROR(Write(items[i], level + 1));
    }
    NewLine(level);
    out_ += ']';
    return absl::OkStatus();
  }

  absl::Status WriteMap(const Map& map, int level) {
    if (map.items.empty()) {
      out_ += "{}";
      return absl::OkStatus();
    }
    std::vector<const std::pair<MapKey, Value>*> items;
    for (const auto& item : map.items) items.push_back(&item);
    if (form_.sort_keys) {
      std::sort(items.begin(), items.end(), [](auto* a, auto* b) { return a->first < b->first; });
    }
    out_ += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out_ += form_.item_separator;
      NewLine(level + 1);
      out_ += JsonString(ToText(FromMapKey(items[i]->first)), form_.ensure_ascii);
      out_ += form_.key_separator;
      RETURN_IF_ERROR(Write(items[i]->second, level + 1));
    }
    NewLine(level);
    out_ += '}';
    return absl::OkStatus();
  }

  const JsonForm& form_;
  std::string out_;
};

}  // namespace

const Value* Map::Find(const MapKey& key) const {
  const auto found = places.find(key);
  return found == places.end() ? nullptr : &items[found->second].second;
}

Value Value::Markup(std::string s) {
  Value value;
  value.v_ = std::make_shared<const String>(String{std::move(s), /*is_markup=*/true});
  return value;
}

absl::StatusOr<Value> Value::OfList(std::vector<Value> items) {
  auto list = std::make_shared<List>();
  for (const Value& item : items) {
    RETURN_IF_ERROR(CheckMember(item));
    list->depth = std::max(list->depth, item.depth() + 1);
  }
  list->items = std::move(items);
  Value value;
  value.v_ = ListPtr(std::move(list));
  return value;
}

absl::StatusOr<Value> Value::OfMap(MapItems items) {
  auto map = std::make_shared<Map>();
  for (auto& [key, item] : items) {
    RETURN_IF_ERROR(CheckMember(item));
    map->depth = std::max(map->depth, item.depth() + 1);
    const auto [place, is_new] = map->places.try_emplace(key, map->items.size());
    if (is_new) {
      map->items.emplace_back(std::move(key), std::move(item));
    } else {
      map->items[place->second].second = std::move(item);
    }
  }
  Value value;
  value.v_ = MapPtr(std::move(map));
  return value;
}

absl::StatusOr<Value> Value::FromJson(const Json& json) {
  if (json.is_null()) return Value(None{});
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t{INT64_MAX}) {
    return Value(json.get<double>());
  }
  if (json.is_number_integer()) return Value(json.get<int64_t>());
  if (json.is_number()) return Value(json.get<double>());
  if (json.is_string()) return Value(json.get<std::string>());
  if (json.is_array()) {
    std::vector<Value> items;
    for (const Json& item : json) {
      ASSIGN_OR_RETURN(items.emplace_back(), FromJson(item));
    }
    return OfList(std::move(items));
  }
  MapItems items;
  for (const auto& [key, item] : json.items()) {
    ASSIGN_OR_RETURN(Value value, FromJson(item));
    items.emplace_back(key, std::move(value));
  }
  return OfMap(std::move(items));
}

double Value::number() const {
  return is_float() ? std::get<double>(v_) : static_cast<double>(integral());
}

bool Value::IsTrue() const {
  if (is_number()) return number() != 0;
  if (is_string()) return !string().empty();
  if (is_list()) return !list().empty();
  if (is_map()) return !map().items.empty();
  return is_namespace() || is_callable();
}

int Value::depth() const {
  if (is_list()) return std::get<ListPtr>(v_)->depth;
  return is_map() ? map().depth : 0;
}

std::string_view Value::Kind() const {
  if (is_undefined()) return "something undefined";
  if (is_none()) return "None";
  if (is_bool()) return "a boolean";
  if (is_int()) return "an integer";
  if (is_float()) return "a float";
  if (is_string()) return "a string";
  if (is_list()) return "a list";
  if (is_map()) return "a map";
  return is_namespace() ? "a namespace" : "a function";
}

std::optional<MapKey> ToMapKey(const Value& value) {
  if (value.is_string()) return value.string();
  if (value.is_integral()) return value.integral();
  return std::nullopt;
}

Value FromMapKey(const MapKey& key) {
  const auto* text = std::get_if<std::string>(&key);
  return text != nullptr ? Value(*text) : Value(std::get<int64_t>(key));
}

bool Equal(const Value& a, const Value& b) {
  if (a.is_integral() && b.is_integral()) return a.integral() == b.integral();
  if (a.is_number() && b.is_number()) return a.number() == b.number();
  if (a.is_string() && b.is_string()) return a.string() == b.string();
  if (a.is_list() && b.is_list()) {
    return std::equal(a.list().begin(), a.list().end(), b.list().begin(), b.list().end(), Equal);
  }
  if (a.is_map() && b.is_map()) {
    if (a.map().items.size() != b.map().items.size()) return false;
    return std::all_of(a.map().items.begin(), a.map().items.end(), [&](const auto& item) {
      const Value* other = b.map().Find(item.first);
      return other != nullptr && Equal(item.second, *other);
    });
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

std::string ToText(const Value& value) {
  if (value.is_string()) return value.string();
  if (value.is_undefined()) return "";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.boolean() ? "True" : "False";
  if (value.is_int()) return absl::StrCat(value.integral());
  if (value.is_float()) return PythonFloat(value.number());
  if (value.is_namespace()) return "<Namespace>";
  if (value.is_callable()) return "<function>";
  std::string out;
  AppendRepr(value, out);
  return out;
}

absl::StatusOr<std::string> ToJsonText(const Value& value, const JsonForm& form) {
  JsonWriter writer(form);
  RETURN_IF_ERROR(writer.Write(value, 0));
  return writer.Take();
}

}  // namespace flowmesh::chat
