// Commands and replies of the Redis protocol as plain values.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "common/status.h"

namespace flowmesh::redis {

// The words of one command: {"HSET", "key", "field", "value"}.
using Command = std::vector<std::string>;

struct Reply {
  enum class Kind { kNil, kText, kInteger, kArray, kError };

  Kind kind = Kind::kNil;
  std::string text;  // of a text or an error
  int64_t integer = 0;
  std::vector<Reply> elements;

  bool is_error() const { return kind == Kind::kError; }
};

using Replies = absl::StatusOr<std::vector<Reply>>;

// `replies` as they are, or Internal with the server's words when one of them, at any depth, is an
// error.
Replies WithoutErrors(Replies replies);

// `commands` between MULTI and EXEC.
std::vector<Command> Transaction(std::vector<Command> commands);

// The outcome of a Transaction's replies in one status: Internal with the server's words when EXEC,
// or a command in it, was refused.
absl::Status TransactionStatus(const Replies& replies);

// Appends `command` to `out` in the form of the wire.
void AppendCommand(const Command& command, std::string& out);

}  // namespace flowmesh::redis
