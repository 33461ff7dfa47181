// The prompts of a task, from `spec.data` (TASKS.md 2.4): what an inference task answers.
#pragma once

#include <string>
#include <vector>

#include "common/field.h"
#include "common/json.h"
#include "common/status.h"

namespace flowmesh::data {

struct Prompt {
  Json raw;              // as the data holds it
  std::string rendered;  // with the system prompt: what the model gets
  Json metadata;         // a map: `prompt`, `rendered_prompt` and what the spec gives besides
  std::string path;      // the field it came from, for errors: `spec.data.items[3]`
};

// Reads `spec.data` of type `list` or `graph_template`. At least one prompt, in their order.
// InvalidArgument names the field, and for a type that is not read here the types that are.
absl::StatusOr<std::vector<Prompt>> ReadPrompts(const Field& spec,
                                                const std::string& system_prompt);

}  // namespace flowmesh::data
