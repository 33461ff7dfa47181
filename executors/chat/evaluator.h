// Runs a parsed template.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "executors/chat/ast.h"

namespace flowmesh::chat {

// The text that `body` makes of `variables`. InvalidArgument, with the line: what the template
// cannot do with them, or what it says itself by raise_exception. ResourceExhausted: it costs too
// much (budget.h).
absl::StatusOr<std::string> Evaluate(const Body& body,
                                     std::vector<std::pair<std::string, Value>> variables,
                                     absl::Time now);

}  // namespace flowmesh::chat
