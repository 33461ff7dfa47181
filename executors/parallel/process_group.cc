#include "executors/parallel/process_group.h"

#include <ATen/ops/tensor.h>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <set>
#include <string>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/clock.h"
#include "executors/parallel/addresses.h"
#include "executors/parallel/collectives.h"
#include "executors/parallel/watch.h"

namespace flowmesh::parallel {
namespace {

// For questions to a store that is up; those that wait for ranks have the time to join.
constexpr std::chrono::milliseconds kStoreTimeout{5000};
// Between looks at whether rank 0 has passed.
constexpr absl::Duration kLook = absl::Milliseconds(20);

std::chrono::milliseconds Milliseconds(absl::Duration duration) {
  return std::chrono::milliseconds(absl::ToInt64Milliseconds(duration));
}

absl::Status CheckOptions(const GroupOptions& options) {
  if (options.world_size < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("WORLD_SIZE: expected at least 1, got ", options.world_size));
  }
  if (options.rank < 0 || options.rank >= options.world_size) {
    return absl::InvalidArgumentError(
        absl::StrCat("RANK: expected 0 to ", options.world_size - 1, ", got ", options.rank));
  }
  if (options.world_size == 1) return absl::OkStatus();
  if (options.master_addr.empty()) {
    return absl::InvalidArgumentError("MASTER_ADDR: expected the address of rank 0, got nothing");
  }
  if (options.master_port < 1 || options.master_port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("MASTER_PORT: expected 1 to 65535, got ", options.master_port));
  }
  return absl::OkStatus();
}

std::string MasterOf(const GroupOptions& options) {
  return absl::StrCat(options.master_addr, ":", options.master_port);
}

std::string JoinKey(int rank) { return absl::StrCat("flowmesh/joined/", rank); }

// A connection to the group's store, which rank 0 holds (`listening` is its socket then).
absl::StatusOr<StorePointer> OpenStore(const GroupOptions& options, UniqueFd listening) {
  c10d::TCPStoreOptions store;
  store.port = static_cast<uint16_t>(options.master_port);
  store.isServer = listening.valid();
  if (store.isServer) store.masterListenFd = listening.Release();
  store.waitWorkers = false;
  store.timeout = Milliseconds(options.join_timeout);
  try {
    return c10::make_intrusive<c10d::TCPStore>(options.master_addr, store);
  } catch (const std::exception&) {
    return absl::DeadlineExceededError(absl::StrCat("rank 0 could not be reached at ",
                                                    MasterOf(options), " within ",
                                                    absl::FormatDuration(options.join_timeout)));
  }
}

absl::Status WaitForAll(const StorePointer& store, const GroupOptions& options) {
  std::vector<std::string> keys;
  for (int rank = 0; rank < options.world_size; ++rank) keys.push_back(JoinKey(rank));
  try {
    store->set(JoinKey(options.rank), std::string("here"));
    store->wait(keys, Milliseconds(options.join_timeout));
    return absl::OkStatus();
  } catch (const std::exception&) {
  }
  std::vector<std::string> missing;
  try {
    for (int rank = 0; rank < options.world_size; ++rank) {
      if (!store->check({JoinKey(rank)})) missing.push_back(absl::StrCat(rank));
    }
  } catch (const std::exception&) {
    return absl::AbortedError("rank 0 was lost before all ranks had joined");
  }
  return absl::DeadlineExceededError(
      absl::StrCat("not all ranks joined within ", absl::FormatDuration(options.join_timeout),
                   ": of ", options.world_size, " are missing: ", absl::StrJoin(missing, ", ")));
}

absl::Status CheckTensor(const at::Tensor& tensor, bool is_summed) {
  if (!tensor.is_contiguous()) {
    return absl::InvalidArgumentError("a collective needs contiguous tensors");
  }
  const at::ScalarType type = tensor.scalar_type();
  if (is_summed && type != at::kFloat && type != at::kBFloat16 && type != at::kHalf) {
    return absl::InvalidArgumentError(
        absl::StrCat("a sum over ranks needs fp32, bf16 or fp16, got ", c10::toString(type)));
  }
  return absl::OkStatus();
}

// `many` holds one `piece` per rank.
absl::Status CheckPieces(const at::Tensor& many, const at::Tensor& piece, int world_size,
                         bool is_summed) {
  RETURN_IF_ERROR(CheckTensor(many, is_summed));
  RETURN_IF_ERROR(CheckTensor(piece, is_summed));
  if (many.dim() == 1 && piece.dim() == 1 && many.scalar_type() == piece.scalar_type() &&
      many.numel() == piece.numel() * world_size) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat("expected flat tensors of one type, one ",
                                                 world_size, " times the other, got ", many.numel(),
                                                 " and ", piece.numel(), " elements"));
}

int64_t Bytes(const at::Tensor& tensor) { return static_cast<int64_t>(tensor.nbytes()); }

}  // namespace

// --- Pending -------------------------------------------------------------------------------------

Pending& Pending::operator=(Pending&& other) noexcept {
  if (this == &other) return *this;
  (void)Wait();
  wait_ = std::exchange(other.wait_, nullptr);
  status_ = other.status_;
  return *this;
}

absl::Status Pending::Wait() {
  if (wait_) {
    status_ = wait_();
    wait_ = nullptr;
  }
  return status_;
}

// --- Joining -------------------------------------------------------------------------------------

ProcessGroup::ProcessGroup(GroupOptions options) : options_(std::move(options)) {}
ProcessGroup::~ProcessGroup() = default;

std::unique_ptr<ProcessGroup> ProcessGroup::Single() {
  return std::unique_ptr<ProcessGroup>(new ProcessGroup({}));
}

absl::StatusOr<std::unique_ptr<ProcessGroup>> ProcessGroup::Join(const GroupOptions& options) {
  RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<ProcessGroup> group(new ProcessGroup(options));
  if (options.world_size == 1) return group;

  UniqueFd listening;
  if (options.rank == 0) {
    ASSIGN_OR_RETURN(listening, ListenAt(options.master_addr, options.master_port));
  }
  ASSIGN_OR_RETURN(const StorePointer store, OpenStore(options, std::move(listening)));
  RETURN_IF_ERROR(WaitForAll(store, options));
  // The store by itself waits for ever for answers, which a stopped rank 0 does not give.
  const std::set<int> others = ConnectionsTo(options.master_port);
  ASSIGN_OR_RETURN(const StorePointer notes, OpenStore(options, UniqueFd()));
  notes->setTimeout(kStoreTimeout);
  for (const int fd : ConnectionsTo(options.master_port)) {
    if (others.count(fd) == 0) LimitWaiting(fd, absl::FromChrono(kStoreTimeout));
  }
  try {
    const StorePointer prefixed = c10::make_intrusive<c10d::PrefixStore>("backend", store);
    if (options.use_cuda) {
      ASSIGN_OR_RETURN(group->collectives_, LoadNccl(prefixed, options));
    } else {
      group->collectives_ = MakeGloo(prefixed, options);
    }
  } catch (const std::exception& error) {
    return absl::AbortedError(absl::StrCat("the ranks could not connect: ", error.what()));
  }
  Collectives* collectives = group->collectives_.get();
  group->watch_ = std::make_unique<Watch>(notes, options, [collectives] { collectives->Abort(); });
  RETURN_IF_ERROR(group->Barrier());  // from here on everybody has a note
  return group;
}

absl::StatusOr<GroupOptions> ProcessGroup::OptionsFromEnvironment(bool use_cuda) {
  GroupOptions options{.use_cuda = use_cuda};
  const auto read = [](const char* name, int fallback, int* number) -> absl::Status {
    const char* text = std::getenv(name);
    *number = fallback;
    if (text == nullptr || *text == '\0' || absl::SimpleAtoi(text, number)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": expected an integer, got \"", text, "\""));
  };
  RETURN_IF_ERROR(read("RANK", 0, &options.rank));
  RETURN_IF_ERROR(read("WORLD_SIZE", 1, &options.world_size));
  RETURN_IF_ERROR(read("LOCAL_RANK", 0, &options.device_index));
  RETURN_IF_ERROR(read("MASTER_PORT", 0, &options.master_port));
  const char* address = std::getenv("MASTER_ADDR");
  options.master_addr = address == nullptr ? "" : address;
  RETURN_IF_ERROR(CheckOptions(options));
  return options;
}

// --- Collectives ---------------------------------------------------------------------------------

Pending ProcessGroup::Begin(const char* kind, int64_t bytes, const Start& start) {
  if (absl::Status over = watch_->failure(); !over.ok()) return Pending(over);
  const uint64_t sequence = watch_->Begin(kind, bytes);
  try {
    Work work = start(sequence);
    if (work.done) watch_->AbortWhenLate(sequence, std::move(work.done));
    return Pending([this, sequence, wait = std::move(work.wait)]() -> absl::Status {
      const absl::Duration begin = Clock::Real().Monotonic();
      const absl::Cleanup note = [&] { waited_ += Clock::Real().Monotonic() - begin; };
      try {
        wait();
        return watch_->failure();
      } catch (const std::exception& error) {
        return watch_->Fail(sequence, error.what());
      }
    });
  } catch (const std::exception& error) {
    return Pending(watch_->Fail(sequence, error.what()));
  }
}

Pending ProcessGroup::AllReduceSum(const at::Tensor& tensor) {
  if (absl::Status status = CheckTensor(tensor, true); !status.ok()) return Pending(status);
  if (world_size() == 1 || tensor.numel() == 0) return {};
  return Begin("all_reduce", Bytes(tensor),
               [&](uint64_t) { return collectives_->AllReduceSum(tensor); });
}

Pending ProcessGroup::ReduceScatterSum(const at::Tensor& out, const at::Tensor& in) {
  if (absl::Status status = CheckPieces(in, out, world_size(), true); !status.ok()) {
    return Pending(status);
  }
  if (world_size() == 1 && out.data_ptr() != in.data_ptr()) out.copy_(in);
  if (world_size() == 1 || out.numel() == 0) return {};
  return Begin("reduce_scatter", Bytes(in), [&](uint64_t sequence) {
    return collectives_->ReduceScatterSum(out, in, sequence);
  });
}

Pending ProcessGroup::AllGather(const at::Tensor& out, const at::Tensor& in) {
  if (absl::Status status = CheckPieces(out, in, world_size(), false); !status.ok()) {
    return Pending(status);
  }
  if (world_size() == 1 && out.data_ptr() != in.data_ptr()) out.copy_(in);
  if (world_size() == 1 || in.numel() == 0) return {};
  return Begin("all_gather", Bytes(out),
               [&](uint64_t sequence) { return collectives_->AllGather(out, in, sequence); });
}

Pending ProcessGroup::Broadcast(const at::Tensor& tensor, int root) {
  if (absl::Status status = CheckTensor(tensor, false); !status.ok()) return Pending(status);
  if (root < 0 || root >= world_size()) {
    return Pending(absl::InvalidArgumentError(
        absl::StrCat("expected a root of 0 to ", world_size() - 1, ", got ", root)));
  }
  if (world_size() == 1 || tensor.numel() == 0) return {};
  return Begin("broadcast", Bytes(tensor),
               [&](uint64_t) { return collectives_->Broadcast(tensor, root); });
}

absl::Status ProcessGroup::SumNumbers(std::vector<double>& values) {
  if (world_size() == 1 || values.empty()) return absl::OkStatus();
  const at::Device device =
      options_.use_cuda
          ? at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(options_.device_index))
          : at::Device(at::kCPU);
  const at::Tensor sums = at::tensor(values, at::TensorOptions(at::kDouble)).to(device);
  RETURN_IF_ERROR(Begin("all_reduce", Bytes(sums), [&](uint64_t) {
                    return collectives_->AllReduceSum(sums);
                  }).Wait());
  const at::Tensor result = sums.to(at::kCPU);
  values.assign(result.const_data_ptr<double>(), result.const_data_ptr<double>() + values.size());
  return watch_->failure();  // an aborted GPU collective ends like any other
}

absl::Status ProcessGroup::Barrier() {
  if (world_size() == 1) return absl::OkStatus();
  return Begin("barrier", 0, [&](uint64_t) { return collectives_->Barrier(); }).Wait();
}

absl::Status ProcessGroup::WaitForFirst(const std::function<bool()>& is_stopped) {
  if (world_size() == 1) return absl::OkStatus();
  const std::string key = absl::StrCat("flowmesh/first/", ++waits_for_first_);
  try {
    if (rank() == 0) {
      watch_->Post(key);
    } else {
      const absl::Duration begin = Clock::Real().Monotonic();
      const absl::Cleanup note = [&] { waited_ += Clock::Real().Monotonic() - begin; };
      while (!watch_->IsPosted(key)) {
        RETURN_IF_ERROR(watch_->failure());
        if (is_stopped()) return absl::CancelledError("stopped");
        absl::SleepFor(kLook);
      }
    }
  } catch (const std::exception&) {
    return absl::AbortedError("rank 0 is gone or stopped, and with it the store of the group");
  }
  return Barrier();  // nobody leaves, and with rank 0 the store, before all have seen it
}

}  // namespace flowmesh::parallel
