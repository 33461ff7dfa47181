// How a training's process keeps memory.
#pragma once

namespace flowmesh::train {

// Makes malloc keep what is freed, up to 2 GB: each pass makes and drops the same tensors, and to
// get their pages from the kernel anew costs a fifth of the time. What is larger than 32 MB still
// comes from the kernel and goes back to it. For a process that trains and then ends.
void KeepFreedMemory();

}  // namespace flowmesh::train
