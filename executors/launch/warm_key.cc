#include "executors/launch/warm_key.h"

#include <nlohmann/json.hpp>

#include "common/field.h"

namespace flowmesh::executor {
namespace {

// The same value with sorted keys and without nulls, which mean absent (TASKS.md 1.4).
nlohmann::json Canonical(const Json& value) {
  if (value.is_object()) {
    nlohmann::json result = nlohmann::json::object();
    for (const auto& [key, member] : value.items()) {
      if (!member.is_null()) result[key] = Canonical(member);
    }
    return result;
  }
  if (value.is_array()) {
    nlohmann::json result = nlohmann::json::array();
    for (const Json& member : value) result.push_back(Canonical(member));
    return result;
  }
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_float()) return value.get<double>();
  if (value.is_number_unsigned()) return value.get<uint64_t>();
  if (value.is_number()) return value.get<int64_t>();
  return nullptr;
}

}  // namespace

bool EnforcesCpu(const Json& spec) {
  const absl::StatusOr<bool> value = Field(&spec, "spec")["enforce_cpu"].BoolOr(false);
  return value.ok() && *value;
}

std::string WarmKey(const Json& spec) {
  const Field root(&spec, "spec");
  nlohmann::json key = {{"enforce_cpu", EnforcesCpu(spec)}};
  for (const char* name : {"model", "checkpoint"}) {
    if (root[name].present()) key[name] = Canonical(root[name].json());
  }
  const Field gpus = root["resources"]["hardware"]["gpu"]["count"];
  if (gpus.present()) key["gpu_count"] = Canonical(gpus.json());
  return key.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace flowmesh::executor
