// Jinja's grammar, as far as chat templates use it.
#pragma once

#include <string_view>

#include "common/status.h"
#include "executors/chat/ast.h"

namespace flowmesh::chat {

// The name under which the filters of a set block find its text; no template can write it.
inline constexpr char kBlockText[] = "{block}";

// Deepest nesting of tags and of expressions.
inline constexpr int kMaxTemplateDepth = 100;

// InvalidArgument, with the line: what was expected and what was found, or a tag that is not
// supported.
absl::StatusOr<Body> ParseTemplate(std::string_view source);

}  // namespace flowmesh::chat
