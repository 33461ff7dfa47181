// What responses.json holds of a training that failed (TASKS.md 3.3) when its ranks could not say:
// they died, were ended, or never started.
#pragma once

#include <string>

#include "absl/time/time.h"
#include "common/json.h"
#include "flowmesh/v1/executor.pb.h"

namespace flowmesh::executor {

// Of the training task `request` of that canonical type, whose parsed document is `document`, after
// `time` with the error `message`. The number of rows is not known here: 0.
Json TrainingFailureRecord(const v1::ExecuteRequest& request, const Json& document,
                           const std::string& type, absl::Duration time,
                           const std::string& message);

}  // namespace flowmesh::executor
