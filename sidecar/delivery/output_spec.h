// Where a task wants its result (`spec.output`, PROTOCOL.md 6.1 to 6.3).
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/field.h"

namespace flowmesh::sidecar {

struct OutputSpec {
  enum class Destination { kLocal, kHttp, kUnknown };

  Destination destination = Destination::kLocal;
  std::string type = "local";  // as it stands in the document
  std::string path;            // kLocal only; empty: RESULTS_DIR

  // kHttp only.
  std::string url;  // empty: the orchestrator's
  std::string method = "POST";
  std::vector<std::pair<std::string, std::string>> headers;  // values are secret
  std::optional<absl::Duration> timeout;                     // nothing: the default of what is sent

  std::vector<std::string> artifacts;  // without leading `./` and trailing `/`, none empty

  bool delivers() const { return destination == Destination::kHttp; }
};

// Reads `spec.output`. InvalidArgument names the field, what was expected and what was found, never
// the value of a header. A relative path that leaves RESULTS_DIR is an error; fields that the
// destination does not use are not looked at.
absl::StatusOr<OutputSpec> ParseOutputSpec(const Field& spec);

}  // namespace flowmesh::sidecar
