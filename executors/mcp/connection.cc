#include "executors/mcp/connection.h"

#include "common/clock.h"
#include "common/http.h"
#include "common/redact.h"

namespace flowmesh::mcp {

absl::Status CheckLimits(const CallLimits& limits) {
  if (limits.is_stopped && limits.is_stopped()) return absl::CancelledError("stopped");
  if (Clock::Real().Monotonic() < limits.deadline) return absl::OkStatus();
  return absl::DeadlineExceededError("no answer in time");
}

std::vector<std::string> ServerSettings::Secrets() const {
  std::vector<std::string> texts = args, secrets;
  texts.push_back(url);
  const auto add = [&](const std::vector<std::string>& more) {
    secrets.insert(secrets.end(), more.begin(), more.end());
  };
  for (const auto& [name, value] : env) {
    add(SecretsIn(value));
    add(SecretsInArguments({value}));
  }
  for (const auto& [name, value] : headers) {
    if (!IsOrdinaryHeader(name)) add(SecretsIn(value));
  }
  add(SecretsInArguments(texts));
  return secrets;
}

}  // namespace flowmesh::mcp
