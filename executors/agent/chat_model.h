// A model that an agent talks with: an endpoint over HTTP, or one that runs in this process.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/status.h"
#include "executors/chat/message.h"

namespace flowmesh::agent {

struct ChatUsage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
};

struct ChatReply {
  chat::Message message;      // an assistant's
  std::string finish_reason;  // `stop`, `length`, `tool_calls`
  ChatUsage usage;            // zeros where the model gives none
};

struct ChatRequest {
  const std::vector<chat::Message>& messages;
  const std::vector<chat::ToolSpec>& tools;
  absl::Duration deadline = absl::InfiniteDuration();  // on Clock::Real().Monotonic()
  std::function<bool()> is_stopped;                    // polled while waiting
  // Told why a try failed, before the next one. May be null.
  std::function<void(const std::string& why)> on_retry;
};

class ChatModel {
 public:
  virtual ~ChatModel() = default;

  // One reply. Several threads may call this at once. Cancelled: is_stopped() said so.
  // DeadlineExceeded: not by the deadline. Others: the model's failure, in a sentence.
  virtual absl::StatusOr<ChatReply> Chat(const ChatRequest& request) = 0;
};

}  // namespace flowmesh::agent
