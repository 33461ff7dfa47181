// What is said to a chat model and by it, in the form of OpenAI's chat completions.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"

namespace flowmesh::chat {

// A tool as a model is told of it.
struct ToolSpec {
  std::string name;
  std::string description;
  Json parameters;  // JSON schema of the arguments
};

// What a model asks for.
struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;  // JSON text as the model wrote it, right or not
};

struct Message {
  std::string role;  // `system`, `user`, `assistant`, `tool`
  std::string content;
  std::vector<ToolCall> tool_calls;  // of an assistant
  std::string tool_call_id;          // of a tool: the call that it answers
  std::string name;                  // of a tool
};

}  // namespace flowmesh::chat
