// What dpo and ppo train on when a task gives no data at all (TASKS.md 2.8): enough to see that the
// machinery runs, and nothing to learn from.
#pragma once

#include <string>
#include <vector>

#include "executors/data/training_data.h"

namespace flowmesh::data {

std::vector<Preference> DemoPreferences();
std::vector<std::string> DemoQueries();

}  // namespace flowmesh::data
