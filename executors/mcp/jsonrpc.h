// Messages of JSON-RPC 2.0.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::mcp {

// The first request of a connection, which may not be cancelled.
inline constexpr char kInitialize[] = "initialize";

Json RequestMessage(int64_t id, const std::string& method, const Json& params);
Json NotificationMessage(const std::string& method, const Json& params);
// Of the request `id`, which will not be waited for any longer.
Json CancelledMessage(int64_t id);

// What we answer to a server's request: `ping` is answered, all else is not ours.
Json AnswerTo(const Json& request);

enum class MessageKind { kNone, kAnswer, kRequest, kNotification };
MessageKind KindOf(const Json& message);

// The id of an answer to one of our requests.
std::optional<int64_t> AnswerId(const Json& message);
// Its result, or its error as InvalidArgument.
absl::StatusOr<Json> ResultOf(const Json& answer);

}  // namespace flowmesh::mcp
