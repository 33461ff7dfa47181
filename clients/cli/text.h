// How results, records and workers look to a person. Pure.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"

namespace flowmesh::cli {

// A result document: the outputs of an inference task, one by one; other results as indented JSON.
std::string ResultText(const Json& result);

// Columns padded to their widest cell; the first row is the heading.
std::string Table(const std::vector<std::vector<std::string>>& rows);

// Task records of a sidecar (`state`) or of an orchestrator (`status`) as a table.
std::string TaskTableText(const Json& records);

// The answer to GetWorker, or the orchestrator's list of workers.
std::string SidecarText(const Json& worker);
std::string WorkersText(const Json& workers);

}  // namespace flowmesh::cli
