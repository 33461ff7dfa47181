// Where a stage of the pipeline puts what it makes: tar -> gzip -> file.
#pragma once

#include <functional>
#include <string_view>

#include "common/status.h"

namespace flowmesh::sidecar {

// Takes the next bytes. An error ends the stage that calls it, with that error.
using ByteSink = std::function<absl::Status(std::string_view bytes)>;

}  // namespace flowmesh::sidecar
