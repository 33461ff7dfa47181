// Waiting for states that announce themselves nowhere.
#pragma once

#include <functional>

#include "absl/time/time.h"

namespace flowmesh::testing {

// Polls `condition` until it holds or `timeout` has passed; returns whether it held.
bool Eventually(const std::function<bool()>& condition, absl::Duration timeout = absl::Seconds(20));

}  // namespace flowmesh::testing
