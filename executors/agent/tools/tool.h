// What an agent's model may call.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/chat/message.h"

namespace flowmesh::agent {

// What a call may use and for how long.
struct ToolContext {
  std::filesystem::path workspace;  // the folder in which tools read and write files; exists
  absl::Duration deadline = absl::InfiniteDuration();  // on Clock::Real().Monotonic()
  std::function<bool()> is_stopped;                    // polled while waiting
};

// Calls may come from several threads at once.
class Tool {
 public:
  virtual ~Tool() = default;

  virtual const chat::ToolSpec& spec() const = 0;

  // What the model is answered. `arguments` is a map that fits the spec's schema. An error is the
  // model's to read as well, and never the end of a task: its text says what to do better.
  virtual absl::StatusOr<std::string> Call(const Json& arguments, const ToolContext& context) = 0;
};

}  // namespace flowmesh::agent
