#include "executors/mcp/connection.h"

#include "common/http.h"
#include "common/redact.h"

namespace flowmesh::mcp {

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
