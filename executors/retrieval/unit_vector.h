// Vectors of length 1, of which the cosine is the product.
#pragma once

#include <cstddef>
#include <vector>

namespace flowmesh::retrieval {

std::vector<float> Unit(std::vector<float> vector);

// Of `n` components each.
float Dot(const float* a, const float* b, size_t n);

}  // namespace flowmesh::retrieval
