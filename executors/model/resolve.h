// Which local path a `model.source.identifier` means (TASKS.md 2.2, 5.6).
#pragma once

#include <filesystem>
#include <string>

#include "common/env.h"
#include "common/status.h"
#include "executors/hub/hub.h"

namespace flowmesh::model {

// In this order: a path (a folder or a .gguf file); a snapshot in the Hugging Face cache, whose
// root is `download_dir`, else HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub; the
// hub, whose files come into that cache: the configuration, the tokenizer and the weights as
// safetensors, else one GGUF file. An identifier that starts with `/`, `./`, `../` or `~` is a path
// and nothing else. `revision`: branch, tag or commit; empty means `main`.
// InvalidArgument: empty, or neither a path nor of the form `name` or `organisation/name`.
// NotFound, PermissionDenied, Unavailable and others say each place that was tried. Cancelled.
absl::StatusOr<std::filesystem::path> ResolveModel(const std::string& identifier,
                                                   const std::string& revision,
                                                   const std::string& download_dir,
                                                   const EnvLookup& env = SystemEnv(),
                                                   const hub::Callbacks& callbacks = {});

}  // namespace flowmesh::model
