// The tools that come with the worker, by the names that configurations give them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/env.h"
#include "common/json.h"
#include "common/status.h"
#include "executors/agent/tools/tool.h"
#include "executors/retrieval/ingest.h"

namespace flowmesh::agent {

// A tool that an agent may use, by its name in the catalogue, with its options.
struct ToolChoice {
  std::string name;
  Json options = Json::object();
  std::string path;  // the field, for errors
};

// The encoder of that name, loaded, for as long as the task lasts; its calls may come from several
// threads.
using MakeEmbedder = std::function<absl::StatusOr<retrieval::Embedder>(const std::string& model)>;

// What tools are made with. All but `env` may be empty; only `make_embedder`'s results are kept.
struct ToolEnvironment {
  EnvLookup env;
  bool allow_private_addresses = false;          // in URLs that a model chooses
  std::function<void(const std::string&)> warn;  // gets what is off on this machine
  std::function<bool()> is_stopped;              // polled
  MakeEmbedder make_embedder;                    // empty: there are no encoders to be had
  retrieval::OnIngest on_ingest;                 // as documents come into a store
};

using Tools = std::vector<std::shared_ptr<Tool>>;

// What `choice` stands for, which may be several tools, or none with a warning where this machine
// cannot run it safely. InvalidArgument: an unknown name or a wrong option, by its field.
// FailedPrecondition: an environment variable that it needs is missing.
absl::StatusOr<Tools> MakeTools(const ToolChoice& choice, const ToolEnvironment& environment);

// Values of the environment that tools send to their servers, and the worker's own tokens.
std::vector<std::string> ToolSecrets(const EnvLookup& env);

}  // namespace flowmesh::agent
