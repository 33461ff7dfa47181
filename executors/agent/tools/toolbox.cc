#include "executors/agent/tools/toolbox.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "common/strings.h"
#include "executors/agent/tools/schema.h"

namespace flowmesh::agent {
namespace {

// What the model wrote, as a map. Nothing at all is an empty one: some models write that for tools
// without arguments.
absl::StatusOr<Json> ParseArguments(const std::string& text) {
  if (Trim(text).empty()) return Json::object();
  absl::StatusOr<Json> arguments = ParseJson(text);
  if (!arguments.ok()) return Annotate(arguments.status(), "the arguments are no JSON");
  if (arguments->is_null()) return Json::object();
  if (arguments->is_object()) return arguments;
  return absl::InvalidArgumentError(
      absl::StrCat("the arguments: expected a map, got ", DescribeJson(*arguments)));
}

}  // namespace

std::string CutAnswer(std::string text, size_t max_bytes) {
  if (text.size() <= max_bytes) return text;
  const size_t total = text.size(), kept = CutUtf8(text, max_bytes).size();
  text.resize(kept);
  return absl::StrCat(text, "\n[cut: ", total - kept, " of ", total, " bytes are left out]");
}

absl::Status Toolbox::Add(std::shared_ptr<Tool> tool) {
  const std::string& name = tool->spec().name;
  for (const chat::ToolSpec& spec : specs_) {
    if (spec.name == name) return absl::AlreadyExistsError(absl::StrCat("two tools named ", name));
  }
  specs_.push_back(tool->spec());
  tools_.push_back(std::move(tool));
  return absl::OkStatus();
}

absl::StatusOr<std::string> Toolbox::Run(const chat::ToolCall& call, const ToolContext& context,
                                         const Hide& hide) const {
  const auto tool = std::find_if(tools_.begin(), tools_.end(),
                                 [&](const auto& one) { return one->spec().name == call.name; });
  if (tool == tools_.end()) {
    std::vector<std::string> names;
    for (const chat::ToolSpec& spec : specs_) names.push_back(spec.name);
    return absl::NotFoundError(absl::StrCat(
        "no tool is named '", ToAbsl(CutUtf8(hide ? hide(call.name) : call.name, 100)), "'; ",
        names.empty() ? "there are none"
                      : absl::StrCat("known are: ", absl::StrJoin(names, ", "))));
  }
  ASSIGN_OR_RETURN(const Json arguments, ParseArguments(call.arguments));
  RETURN_IF_ERROR(CheckSchema((*tool)->spec().parameters, arguments, ""));
  try {  // of the standard library, which a tool may let through
    return (*tool)->Call(arguments, context);
  } catch (const std::exception& e) {
    return absl::InternalError(absl::StrCat("the tool failed: ", e.what()));
  }
}

absl::StatusOr<ToolAnswer> Toolbox::Call(const chat::ToolCall& call, const ToolContext& context,
                                         const Hide& hide) const {
  absl::StatusOr<std::string> answer = Run(call, context, hide);
  if (context.is_stopped && context.is_stopped()) return absl::CancelledError("cancelled");
  if (Clock::Real().Monotonic() >= context.deadline) {
    return absl::DeadlineExceededError("the time limit was reached");
  }
  ToolAnswer result{.failed = !answer.ok()};
  const std::string text =
      answer.ok() ? *std::move(answer) : absl::StrCat("error: ", Message(answer.status()));
  result.text = CutAnswer(hide ? hide(text) : text, max_answer_);
  return result;
}

}  // namespace flowmesh::agent
