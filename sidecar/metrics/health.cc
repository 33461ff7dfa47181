#include "sidecar/metrics/health.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace flowmesh::sidecar {

bool HealthPart::ready() const {
  return problem.empty() && std::all_of(parts.begin(), parts.end(),
                                        [](const HealthPart& part) { return part.ready(); });
}

std::string HealthPart::Why() const {
  if (!problem.empty()) return problem;
  for (const HealthPart& part : parts) {
    if (!part.ready()) return absl::StrCat(part.name, ": ", part.Why());
  }
  return "";
}

Json HealthPart::ToJson() const {
  Json json = {{"name", name}, {"ready", ready()}};
  if (!ready()) json["reason"] = Why();
  if (!detail.empty()) json["detail"] = detail;
  for (const HealthPart& part : parts) json["parts"].push_back(part.ToJson());
  return json;
}

}  // namespace flowmesh::sidecar
