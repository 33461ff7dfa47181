#include "clients/orchestrator/merge.h"

#include <nlohmann/json.hpp>

#include "common/field.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {

std::string MergeKey(const Json& document) {
  const Field spec = Field(&document, "")["spec"];
  const Json& type = spec["taskType"].json();
  if (!type.is_string()) return "";
  const std::string name = ToLower(Trim(type.get_ref<const std::string&>()));
  if (name != "inference" && name != "rag") return "";
  nlohmann::json sorted = spec.json();  // its maps sort by key
  sorted.erase("data");
  sorted.erase("_upstreamResults");
  if (const auto inference = sorted.find("inference");
      inference != sorted.end() && inference->is_object()) {
    inference->erase("system_prompt");
    inference->erase("systemPrompt");
  }
  return sorted.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace flowmesh::orchestrator
