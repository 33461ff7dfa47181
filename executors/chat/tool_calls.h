// Tool calls in what a model writes: Hermes' and Qwen's form, `<tool_call>{"name": ...,
// "arguments": {...}}</tool_call>`, and Llama 3's, `{"name": ..., "parameters": {...}}`, one or
// several parted by `;`, after `<|python_tag|>` or not.
#pragma once

#include <string_view>
#include <vector>

#include "executors/chat/message.h"

namespace flowmesh::chat {

// An assistant's message: `text` without its calls, and the calls, each with an id of its own. A
// marked call whose JSON is broken is a call with what could be read of its name and with the
// broken text as its arguments, so that the model can be told; one that is not even that, and
// anything that is no call, stays text. Calls in Llama's form are looked for only when they are
// all that there is and name one of `tools`.
Message ReadReply(std::string_view text, const std::vector<ToolSpec>& tools);

}  // namespace flowmesh::chat
