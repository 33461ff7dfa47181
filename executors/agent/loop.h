// The loop of one agent: the model speaks, its tool calls are run and answered, until it says
// something without calling any.
#pragma once

#include <functional>
#include <string>

#include "executors/agent/chat_model.h"
#include "executors/agent/tools/toolbox.h"
#include "executors/agent/transcript.h"

namespace flowmesh::agent {

// Everything that is pointed to must outlive the runs.
struct Agent {
  std::string name;  // in a team; empty: the only one
  std::string instructions;
  ChatModel* model = nullptr;
  const Toolbox* tools = nullptr;
  int max_turns = 20;
  // A call of this tool that succeeds ends the run, with its arguments as the output. Empty: none.
  std::string last_tool;
};

struct RunContext {
  ToolContext tools;  // its deadline and is_stopped bound the whole run
  Transcript* transcript = nullptr;
  std::function<void(const std::string& step)> on_step;  // `turn 3`, `web_search`
};

// The agent's answer to `task`. Cancelled, DeadlineExceeded: the run's. ResourceExhausted: no
// answer after max_turns. Others: the model's failure.
absl::StatusOr<std::string> RunAgent(const Agent& agent, const std::string& task,
                                     const RunContext& context);

}  // namespace flowmesh::agent
