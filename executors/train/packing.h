// Several short documents in one row (TASKS.md 4.4, point 5).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace flowmesh::train {

// Which documents stand in which row of `max_length` tokens, in order of the rows' creation:
// best-fit decreasing, in groups of 1000 documents. No document is longer than a row.
std::vector<std::vector<int64_t>> PackBestFit(std::span<const int64_t> lengths, int64_t max_length);

}  // namespace flowmesh::train
