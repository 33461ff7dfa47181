// The tools of one agent: finds the one that a model calls, checks what it is called with, bounds
// what it answers.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "executors/agent/tools/tool.h"

namespace flowmesh::agent {

struct ToolAnswer {
  std::string text;  // for the model; a failure begins with `error: `
  bool failed = false;
};

// Immutable after the Adds; calls may come from several threads.
class Toolbox {
 public:
  // An answer longer than `max_answer` bytes is cut.
  explicit Toolbox(size_t max_answer) : max_answer_(max_answer) {}

  // AlreadyExists: a tool of that name is there.
  absl::Status Add(std::shared_ptr<Tool> tool);

  const std::vector<chat::ToolSpec>& specs() const { return specs_; }

  // Whatever is wrong with the call or the tool is an answer. `hide`, which may be null, takes the
  // secrets out of it before it is cut: a cut through one would leave its first half. Fails only
  // when the task must end: Cancelled (is_stopped), DeadlineExceeded (the context's deadline).
  using Hide = std::function<std::string(const std::string& text)>;
  absl::StatusOr<ToolAnswer> Call(const chat::ToolCall& call, const ToolContext& context,
                                  const Hide& hide = nullptr) const;

 private:
  absl::StatusOr<std::string> Run(const chat::ToolCall& call, const ToolContext& context,
                                  const Hide& hide) const;

  const size_t max_answer_;
  std::vector<std::shared_ptr<Tool>> tools_;
  std::vector<chat::ToolSpec> specs_;  // in the order of tools_
};

// `text`, or as many of its first bytes as the bound allows with a line on what is missing.
std::string CutAnswer(std::string text, size_t max_bytes);

}  // namespace flowmesh::agent
