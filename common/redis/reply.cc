#include "common/redis/reply.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace flowmesh::redis {
namespace {

const Reply* FirstError(const std::vector<Reply>& replies) {
  for (const Reply& reply : replies) {
    if (reply.is_error()) return &reply;
    if (const Reply* inner = FirstError(reply.elements)) return inner;
  }
  return nullptr;
}

}  // namespace

std::vector<Command> Transaction(std::vector<Command> commands) {
  commands.insert(commands.begin(), Command{"MULTI"});
  commands.push_back({"EXEC"});
  return commands;
}

absl::Status TransactionStatus(const Replies& replies) {
  if (!replies.ok()) return replies.status();
  if (const Reply* error = FirstError(*replies)) {
    return absl::InternalError(absl::StrCat("Redis: ", error->text));
  }
  if (replies->empty() || replies->back().kind != Reply::Kind::kArray) {
    return absl::InternalError("Redis: the transaction was not executed");
  }
  return absl::OkStatus();
}

void AppendCommand(const Command& command, std::string& out) {
  absl::StrAppend(&out, "*", command.size(), "\r\n");
  for (const std::string& word : command) {
    absl::StrAppend(&out, "$", word.size(), "\r\n", word, "\r\n");
  }
}

}  // namespace flowmesh::redis
