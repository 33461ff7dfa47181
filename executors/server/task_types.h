// Which task types this worker knows, and which of them it can run (TASKS.md 1.2).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::executor {

// Immutable; any thread.
class TaskTypes {
 public:
  // `runnable` beside echo, which always is. Every other known type is unrunnable for `reason`.
  TaskTypes(std::vector<std::string> runnable, std::string reason);

  // The canonical type that `document`'s spec.taskType names: trimmed, in lower case, aliases
  // resolved. InvalidArgument, with the text for the user: missing, no string, unknown, or not
  // runnable here.
  absl::StatusOr<std::string> Route(const Json& document) const;

  const std::vector<std::string>& runnable() const { return runnable_; }  // sorted
  const std::map<std::string, std::string>& unrunnable() const { return unrunnable_; }

 private:
  std::vector<std::string> runnable_;
  std::map<std::string, std::string> unrunnable_;  // type → reason
};

inline constexpr char kNotBuilt[] = "not built into this version";

}  // namespace flowmesh::executor
