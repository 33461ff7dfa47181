// A chat model behind an OpenAI-compatible endpoint (TASKS.md 3.9).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "common/env.h"
#include "executors/agent/chat_model.h"

namespace flowmesh::agent {

enum class ChatApi { kChatCompletions, kResponses };

// What a configuration says of the model, beside or instead of the environment.
struct ModelOverrides {
  // A model that this process runs itself, instead of an endpoint: `source.identifier` of an
  // inference task. Its chat template; empty: its own.
  std::string local, chat_template;
  std::string type, name, base_url;  // empty: the environment's
  std::string api_key_env;           // the variable with the key; empty: UTU_LLM_API_KEY
  std::optional<double> temperature;
  std::optional<int64_t> max_tokens;
};

struct EndpointSettings {
  ChatApi api = ChatApi::kChatCompletions;
  std::string model;
  std::string base_url;  // without a slash at its end
  std::string api_key;   // secret: goes into the header and nowhere else
  std::optional<double> temperature;
  std::optional<int64_t> max_tokens;              // of one reply
  absl::Duration silence = absl::Minutes(5);      // longest wait for the next byte
  absl::Duration retry_limit = absl::Minutes(2);  // of tries that fail, pauses included
};

// From UTU_LLM_TYPE, UTU_LLM_MODEL, UTU_LLM_BASE_URL and UTU_LLM_API_KEY. FailedPrecondition names
// the variables that are missing, InvalidArgument one that is wrong.
absl::StatusOr<EndpointSettings> ReadEndpointSettings(const EnvLookup& env,
                                                      const ModelOverrides& overrides);

// A model that streams its replies; a server that cannot is asked for whole ones. What may go away
// by itself (no connection, 408, 409, 425, 429, 5xx, a stream that stops half-way) is tried again.
std::unique_ptr<ChatModel> MakeEndpoint(EndpointSettings settings);

}  // namespace flowmesh::agent
