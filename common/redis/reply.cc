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

absl::Status ErrorStatus(const Replies& replies) {
  if (!replies.ok()) return replies.status();
  const Reply* error = FirstError(*replies);
  if (error == nullptr) return absl::OkStatus();
  return absl::InternalError(absl::StrCat("Redis: ", error->text));
}

}  // namespace

Replies WithoutErrors(Replies replies) {
  RETURN_IF_ERROR(ErrorStatus(replies));
  return replies;
}

std::vector<Command> Transaction(std::vector<Command> commands) {
  commands.insert(commands.begin(), Command{"MULTI"});
  commands.push_back({"EXEC"});
  return commands;
}

absl::Status TransactionStatus(const Replies& replies) {
  RETURN_IF_ERROR(ErrorStatus(replies));
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
