// JSON documents: one type for the whole project, a parser that bounds its input, and a writer that
// never emits NaN. Objects keep the order of their keys, because `jsonl_export.fields` is written
// in it.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "common/status.h"

namespace flowmesh {

using Json = nlohmann::ordered_json;

inline constexpr int kMaxJsonDepth = 256;

// Parses one document. Bare `NaN`, `Infinity` and `-Infinity`, which Python peers write, read as
// null. InvalidArgument: not UTF-8, not JSON (with the byte offset), or nested deeper than
// kMaxJsonDepth.
absl::StatusOr<Json> ParseJson(std::string_view text);

// One line, UTF-8, non-ASCII kept; NaN and infinities become null, invalid UTF-8 becomes U+FFFD.
// `indent` spaces per level when it is not negative.
std::string DumpJson(const Json& value, int indent = -1);

// JSON in Python's json.dumps form with `, ` and `: ` and non-ASCII kept (TASKS.md 2.5).
std::string DumpJsonSpaced(const Json& value);

// A value as text inside prompts and exports (TASKS.md 2.14): strings as they are, null empty,
// booleans `True`/`False`, floats as Python prints them, lists and maps in DumpJsonSpaced form.
std::string JsonToText(const Json& value);

// A value in an error message: `a map`, `a list`, `"two"`, `3.5`, `true`, `nothing` (null). Long
// strings are cut.
std::string DescribeJson(const Json& value);

}  // namespace flowmesh
