#include "executors/agent/loop.h"

#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/strings.h"

namespace flowmesh::agent {
namespace {

constexpr size_t kShownName = 100;   // bytes of a tool's name, which a model makes up
constexpr size_t kShownError = 200;  // and of what it is told

class Run {
 public:
  Run(const Agent& agent, const RunContext& context)
      : agent_(agent),
        context_(context),
        label_(agent.name.empty() ? "" : absl::StrCat(agent.name, ": ")) {}

  absl::StatusOr<std::string> Answer(const std::string& task) {
    if (!agent_.instructions.empty()) {
      Say({.role = "system", .content = agent_.instructions});
    }
    Say({.role = "user", .content = task});
    for (int turn = 1; turn <= agent_.max_turns; ++turn) {
      ASSIGN_OR_RETURN(const ChatReply reply, Turn(turn));
      if (reply.message.tool_calls.empty()) return reply.message.content;
      for (const chat::ToolCall& call : reply.message.tool_calls) {
        ASSIGN_OR_RETURN(const ToolAnswer answer, Call(call));
        if (!answer.failed && call.name == agent_.last_tool) return call.arguments;
      }
    }
    return absl::ResourceExhaustedError(absl::StrCat(label_, "no answer after ", agent_.max_turns,
                                                     " turns, the most that max_turns allows"));
  }

 private:
  void Say(chat::Message message) {
    context_.transcript->Message(agent_.name, message);
    messages_.push_back(std::move(message));
  }

  // Cut after the secrets are out: a cut through one would leave its first half.
  std::string NameOf(const chat::ToolCall& call) const {
    const std::string name = ToValidUtf8(context_.transcript->WithoutSecrets(call.name));
    return std::string(CutUtf8(name, kShownName));
  }

  absl::Status CheckTime() const {
    if (context_.tools.is_stopped && context_.tools.is_stopped()) {
      return absl::CancelledError("cancelled");
    }
    if (Clock::Real().Monotonic() < context_.tools.deadline) return absl::OkStatus();
    return absl::DeadlineExceededError("the time limit was reached");
  }

  absl::StatusOr<ChatReply> Turn(int turn) {
    RETURN_IF_ERROR(CheckTime());
    const std::string name = absl::StrCat("turn ", turn);
    if (context_.on_step) context_.on_step(label_ + name);
    const ChatRequest request{
        .messages = messages_,
        .tools = agent_.tools->specs(),
        .deadline = context_.tools.deadline,
        .is_stopped = context_.tools.is_stopped,
        .on_retry = [&](const std::string& why) {
          context_.transcript->Line(absl::StrCat(label_, name, ": trying again: ", why));
        }};
    ASSIGN_OR_RETURN(ChatReply reply, agent_.model->Chat(request));
    reply.message.content = context_.transcript->WithoutSecrets(reply.message.content);
    context_.transcript->Count(reply.usage);
    std::vector<std::string> notes;
    if (const int64_t tokens = reply.usage.completion_tokens; tokens > 0) {
      notes.push_back(absl::StrCat(tokens, tokens == 1 ? " token" : " tokens"));
    }
    if (reply.finish_reason == "length") notes.emplace_back("cut at the model's limit");
    for (const chat::ToolCall& call : reply.message.tool_calls) {
      notes.push_back(absl::StrCat("calls ", NameOf(call)));
    }
    context_.transcript->Line(
        absl::StrCat(label_, name, notes.empty() ? "" : ": ", absl::StrJoin(notes, ", ")));
    Say(reply.message);
    return reply;
  }

  absl::StatusOr<ToolAnswer> Call(const chat::ToolCall& call) {
    RETURN_IF_ERROR(CheckTime());
    const std::string name = NameOf(call);
    if (context_.on_step) context_.on_step(label_ + name);
    const absl::Duration begin = Clock::Real().Monotonic();
    const auto hide = [this](const std::string& text) {
      return context_.transcript->WithoutSecrets(text);
    };
    ASSIGN_OR_RETURN(ToolAnswer answer, agent_.tools->Call(call, context_.tools, hide));
    const double seconds = absl::ToDoubleSeconds(Clock::Real().Monotonic() - begin);
    context_.transcript->Line(absl::StrFormat("%s%s: %.2f s, %s", label_, name, seconds,
                                              answer.failed
                                                  ? std::string(CutUtf8(answer.text, kShownError))
                                                  : absl::StrCat(answer.text.size(), " bytes")));
    Say({.role = "tool", .content = answer.text, .tool_call_id = call.id, .name = call.name});
    return answer;
  }

  const Agent& agent_;
  const RunContext& context_;
  const std::string label_;
  std::vector<chat::Message> messages_;
};

}  // namespace

absl::StatusOr<std::string> RunAgent(const Agent& agent, const std::string& task,
                                     const RunContext& context) {
  return Run(agent, context).Answer(task);
}

}  // namespace flowmesh::agent
