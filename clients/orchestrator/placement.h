// Which worker gets a task (PROTOCOL.md 2.4, 12.5). Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace flowmesh::orchestrator {

// A worker that could take a task now.
struct Candidate {
  std::string id;
  Json hardware;  // `hardware_json`; anything but a map counts as unknown
};

// `24Gi`, `512mb`, `1T`, 1048576: bytes, every unit a power of 1024. Nothing when it cannot be
// read.
std::optional<uint64_t> ParseQuantity(const Json& value);

// The first requirement of a document's `spec.resources.hardware` that `hardware` does not satisfy,
// as `gpu.count: 1`; empty when it fits. A requirement that cannot be read constrains nothing; an
// unknown property of the worker satisfies no requirement.
std::string Lacking(const Json& document, const Json& hardware);

// The place of the best candidate that fits and is not `excluded`: GPU workers first, then most GPU
// memory, most memory, most cores, lowest id.
std::optional<size_t> ChooseWorker(const Json& document, const std::vector<Candidate>& candidates,
                                   std::string_view excluded);

}  // namespace flowmesh::orchestrator
