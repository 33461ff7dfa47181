// The seam between the process group and a backend of c10d. Libtorch's exceptions pass through
// here; the process group turns them into errors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "executors/parallel/process_group.h"

namespace flowmesh::parallel {

// What was begun: `wait` as Pending::Wait, throwing; `done`, where a backend can tell without
// waiting.
struct Work {
  std::function<void()> wait;
  std::function<bool()> done;
};

// Each method begins a collective over checked arguments (see ProcessGroup). `sequence` is the
// collective's number, the same on all ranks.
class Collectives {
 public:
  virtual ~Collectives() = default;

  virtual Work AllReduceSum(const at::Tensor& tensor) = 0;
  virtual Work ReduceScatterSum(const at::Tensor& out, const at::Tensor& in, uint64_t sequence) = 0;
  virtual Work AllGather(const at::Tensor& out, const at::Tensor& in, uint64_t sequence) = 0;
  virtual Work Broadcast(const at::Tensor& tensor, int root) = 0;
  // Its wait blocks the host.
  virtual Work Barrier() = 0;
  // Ends what waits, with errors; nothing where a backend's own time limits do that. Any thread.
  virtual void Abort() = 0;
};

using StorePointer = c10::intrusive_ptr<c10d::Store>;

// Connects all ranks through the store.
std::unique_ptr<Collectives> MakeGloo(const StorePointer& store, const GroupOptions& options);

// NCCL's, from its own library. FailedPrecondition: it is not there or cannot be loaded.
absl::StatusOr<std::unique_ptr<Collectives>> LoadNccl(const StorePointer& store,
                                                      const GroupOptions& options);

// What that library exports.
inline constexpr char kNcclLibrary[] = "libflowmesh_nccl.so";
inline constexpr char kNcclFactory[] = "flowmesh_make_nccl";
using NcclFactory = Collectives* (*)(const StorePointer& store, const GroupOptions& options);

}  // namespace flowmesh::parallel
