// How a process that computes much keeps memory.
#pragma once

namespace flowmesh::device {

// Makes malloc keep what is freed, up to 2 GB: each pass of a training, each batch of texts to
// embed makes and drops the same tensors, and to get their pages from the kernel anew costs a fifth
// to a half of the time. What is larger than 32 MB, as a model's weights, still comes from the
// kernel and goes back to it.
void KeepFreedMemory();

// Gives back what is free now, once, after something large has gone in small pieces.
void ReturnFreedMemory();

}  // namespace flowmesh::device
