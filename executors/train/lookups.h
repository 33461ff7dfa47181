// The gradient of embeddings: rows of a matrix, those that tokens looked up, summed over ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "common/status.h"
#include "executors/parallel/process_group.h"

namespace flowmesh::train {

// Adds the rows of all ranks to `sums`, flat numbers in which the matrix begins at element
// `offset`; of the matrix only what lies in `sums` is there. `gradient`: this rank's rows, sparse,
// [rows, width]. A collective: every rank must call it. Errors: those of collectives.
absl::Status AddLookups(const at::Tensor& gradient, int64_t offset, const at::Tensor& sums,
                        parallel::ProcessGroup& group);

}  // namespace flowmesh::train
