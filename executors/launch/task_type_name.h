// The canonical form of spec.taskType, the same in the server and in the rank.
#pragma once

#include <string>
#include <string_view>

#include "common/strings.h"

namespace flowmesh::executor {

// Trimmed and in lower case, with the aliases of TASKS.md 1.2 resolved. Whether such a type exists
// is the caller's question.
inline std::string CanonicalTaskType(std::string_view given) {
  std::string type = ToLower(Trim(given));
  if (type == "vllm" || type == "default") type = "inference";
  return type;
}

// Of a canonical type.
inline bool IsTrainingType(std::string_view type) {
  return type == "sft" || type == "lora_sft" || type == "dpo" || type == "ppo";
}

}  // namespace flowmesh::executor
