// How the two forms of OpenAI's chat, `chat.completions` and `responses`, are written and read.
#pragma once

#include <memory>
#include <string>

#include "common/sse.h"
#include "executors/agent/chat_model.h"
#include "executors/agent/endpoint.h"

namespace flowmesh::agent {

// Puts one reply together. Unavailable: the server gave up or the stream stopped too early, another
// try may help. DataLoss: what came is no such reply.
class ReplyReader {
 public:
  virtual ~ReplyReader() = default;

  virtual absl::Status OnEvent(const SseEvent& event) = 0;
  virtual absl::StatusOr<ChatReply> FinishStream() = 0;
  // Instead of a stream.
  virtual absl::StatusOr<ChatReply> ReadWhole(const Json& answer) = 0;
};

std::unique_ptr<ReplyReader> MakeCompletionsReader();
std::unique_ptr<ReplyReader> MakeResponsesReader();

Json CompletionsRequest(const EndpointSettings& settings, const ChatRequest& request,
                        bool is_streamed);
Json ResponsesRequest(const EndpointSettings& settings, const ChatRequest& request,
                      bool is_streamed);

// A call's arguments for the history of a chat. Servers read them there and refuse every further
// turn where they are no map: what a model wrote instead stands in one.
std::string ArgumentsOf(const chat::ToolCall& call);

// Text that stands as a string or as a list of parts with `text`; empty for anything else.
std::string TextOf(const Json& content);

// What a server says in an answer that began well: `{"error": {"message": ...}}`, as a status of
// that code.
absl::Status ErrorOf(const Json& answer, absl::StatusCode code);

}  // namespace flowmesh::agent
