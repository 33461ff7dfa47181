// Decides whether a resident rank may serve the next task.
#pragma once

#include <string>

#include "common/json.h"

namespace flowmesh::executor {

// A canonical text (keys sorted, nulls dropped, switches read leniently) of everything in an
// inference spec that decides what is loaded: model, checkpoint, enforce_cpu, and the number of
// GPUs asked for. Two tasks with equal keys can share a rank (TASKS.md 1.2, last rule). Never
// fails: a spec that is wrong gets a key like any other, and the rank says what is wrong with it.
std::string WarmKey(const Json& spec);

// Whether the spec asks for the CPU (`enforce_cpu`, read as TASKS.md 1.4 says).
bool EnforcesCpu(const Json& spec);

}  // namespace flowmesh::executor
