// The ranks of one task as a group that computes together: collectives over c10d, with Gloo between
// CPU ranks and NCCL between GPUs. Errors are values and name what was stuck and who was missing:
//   all_reduce #7 (25000000 bytes) did not finish within 10m: rank 2 has not come (its last:
//   broadcast #6 of 4 bytes)
//
// Every rank must begin the same collectives in the same order. Tensors are contiguous, fp32, bf16
// or fp16 (broadcast and all-gather: any type), on the group's device. After a first error the
// group is over: each further call gives that error at once.
//
// Threads: one at a time begins collectives; Pending::Wait may be called from any.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/time/time.h"
#include "common/status.h"

namespace flowmesh::parallel {

class Collectives;
class Watch;
struct Work;

// A collective that was begun. It keeps its tensors alive; nobody may touch them until Wait. Must
// not outlive its group. Movable. The destructor waits.
class Pending {
 public:
  Pending() = default;  // nothing to wait for
  Pending(Pending&& other) noexcept { *this = std::move(other); }
  Pending& operator=(Pending&& other) noexcept;
  ~Pending() { (void)Wait(); }

  // CPU: blocks until the result is there. GPU: the current stream waits for it, the host does not;
  // an error of the collective itself shows in a later call. A second call gives the same.
  // DeadlineExceeded: a rank did not come in time. Aborted: a rank is gone. InvalidArgument: a
  // tensor that the collective cannot take. Internal: others.
  absl::Status Wait();

 private:
  friend class ProcessGroup;
  explicit Pending(absl::Status status) : status_(std::move(status)) {}
  explicit Pending(std::function<absl::Status()> wait) : wait_(std::move(wait)) {}

  std::function<absl::Status()> wait_;  // empty: the result is in status_
  absl::Status status_;
};

struct GroupOptions {
  int rank = 0;
  int world_size = 1;
  std::string master_addr;  // where rank 0 listens: a name or an address
  int master_port = 0;
  bool use_cuda = false;
  int device_index = 0;                            // of the visible GPUs
  absl::Duration timeout = absl::Minutes(10);      // of every collective
  absl::Duration join_timeout = absl::Minutes(5);  // until all ranks have joined
};

class ProcessGroup {
 public:
  // A world of one: every collective is done at once.
  static std::unique_ptr<ProcessGroup> Single();

  // Joins the group; blocks until all ranks have. A world of one needs no address.
  // DeadlineExceeded: not all came, with the ranks that are missing. FailedPrecondition: a GPU
  // group where NCCL is not built in. InvalidArgument: a wrong rank, size or port.
  static absl::StatusOr<std::unique_ptr<ProcessGroup>> Join(const GroupOptions& options);

  // Options from RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT; a world of one without
  // them. InvalidArgument names the variable.
  static absl::StatusOr<GroupOptions> OptionsFromEnvironment(bool use_cuda);

  ~ProcessGroup();

  int rank() const { return options_.rank; }
  int world_size() const { return options_.world_size; }

  // tensor = sum over ranks. bf16 and fp16 sums are rounded after each addition. What is not finite
  // on a rank, or overflows (in fp16 beyond 65504), is infinite or NaN in the sum, and the same on
  // every rank: all see that a step of scaled gradients has to be left out.
  Pending AllReduceSum(const at::Tensor& tensor);
  // out = sum over ranks of their `in`'s piece number rank(): in is [world_size * out.numel()].
  // bf16 and fp16 are added up in fp32 and rounded once on CPUs. What is not finite or overflows
  // shows in the piece of the rank that holds it. `in` is not changed.
  Pending ReduceScatterSum(const at::Tensor& out, const at::Tensor& in);
  // out = the ranks' `in` one after the other: out is [world_size * in.numel()]. `in` may be out's
  // own piece number rank(), which saves a copy.
  Pending AllGather(const at::Tensor& out, const at::Tensor& in);
  // tensor = that of rank `root`.
  Pending Broadcast(const at::Tensor& tensor, int root);
  // Each of `values` becomes its sum over ranks, in double precision. Blocks until it is there, so
  // an error of any collective before it shows here, on GPUs too.
  absl::Status SumNumbers(std::vector<double>& values);
  // Blocks until all ranks are here and their earlier collectives are done.
  absl::Status Barrier();
  // A barrier after what rank 0 does alone, which takes as long as it takes: the others wait for
  // rank 0 beyond the time limit of collectives. Cancelled: `is_stopped` said so while this rank
  // waited for it. Aborted: rank 0 is gone. Others: the barrier's.
  absl::Status WaitForFirst(const std::function<bool()>& is_stopped);

  // How long this rank has been blocked in these so far: what other ranks cost it.
  absl::Duration waited() const { return waited_; }

 private:
  explicit ProcessGroup(GroupOptions options);

  // Begins a collective and watches over it.
  using Start = std::function<Work(uint64_t sequence)>;
  Pending Begin(const char* kind, int64_t bytes, const Start& start);

  const GroupOptions options_;
  absl::Duration waited_;
  int64_t waits_for_first_ = 0;
  // Null in a world of one. The watch goes first: it may abort the collectives.
  std::unique_ptr<Collectives> collectives_;
  std::unique_ptr<Watch> watch_;
};

}  // namespace flowmesh::parallel
