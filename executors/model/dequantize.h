// Quantised GGUF blocks to plain floats, on all threads.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <span>

#include "executors/model/gguf.h"

namespace flowmesh::model {

// Decodes `data`, blocks of `type`, into `out`: a contiguous CPU tensor of float32, bfloat16 or
// float16 with as many weights as `data` holds. Each weight is computed in float32, in the order of
// operations of the reference library, then rounded once.
void Dequantize(GgufType type, std::span<const std::byte> data, const at::Tensor& out);

}  // namespace flowmesh::model
