// Reads the two event channels (PROTOCOL.md 5). Pure.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/json.h"

namespace flowmesh::orchestrator {

struct Event {
  bool is_task = false;  // its type begins with TASK
  std::string type;      // upper case
  std::string worker_id;
  std::string task_id;  // not empty for task events
  std::string status;   // empty when null
  std::string error;    // empty when null
  // An orchestrator's own short STATUS, which says nothing about the worker being alive.
  bool is_short = true;
  Json payload = Json::object();
};

// Nothing for a message that breaks the contract: no object, a number where text is due, `payload`
// or `metrics` that is no map, `tags` that is no list of texts, a task event without a task id.
std::optional<Event> ParseEvent(std::string_view message);

}  // namespace flowmesh::orchestrator
