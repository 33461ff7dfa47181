// Collectives between CPU ranks. All-reduce, broadcast and barrier are c10d's. Its reduce-scatter
// would all-reduce a copy of everything, and its all-gather copies the result once more, so both
// are made of its sends and receives here: each byte that is needed crosses once, straight from and
// into the tensors.
#include <ATen/ops/add.h>
#include <ATen/ops/empty.h>

#include <limits>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <vector>

#include "executors/parallel/addresses.h"
#include "executors/parallel/collectives.h"

namespace flowmesh::parallel {
namespace {

using WorkPointer = c10::intrusive_ptr<c10d::Work>;

Work WaitFor(const WorkPointer& work) {
  return {.wait = [work] { work->wait(); }, .done = nullptr};
}

// sum = own + others, where `own` may be `sum` itself.
void AddUp(const at::Tensor& sum, const at::Tensor& own, const std::vector<at::Tensor>& others) {
  if (others.size() == 1 || sum.scalar_type() == at::kFloat) {
    at::Tensor result = sum;
    at::add_out(result, own, others[0]);
    for (size_t i = 1; i < others.size(); ++i) result.add_(others[i]);
    return;
  }
  at::Tensor total = own.to(at::kFloat);
  for (const at::Tensor& other : others) total.add_(other);
  sum.copy_(total);
}

class GlooCollectives : public Collectives {
 public:
  GlooCollectives(const StorePointer& store, const GroupOptions& options)
      : rank_(options.rank),
        world_(options.world_size),
        timeout_(absl::ToInt64Milliseconds(options.timeout)) {
    auto gloo = c10d::ProcessGroupGloo::Options::create(timeout_);
    gloo->devices.push_back(c10d::ProcessGroupGloo::createDeviceForHostname(
        LocalAddressTowards(options.master_addr).value_or(options.master_addr)));
    group_ = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank_, world_, std::move(gloo));
  }

  Work AllReduceSum(const at::Tensor& tensor) override {
    std::vector<at::Tensor> tensors = {tensor};
    return WaitFor(group_->allreduce(tensors));
  }

  Work ReduceScatterSum(const at::Tensor& out, const at::Tensor& in, uint64_t sequence) override {
    const at::Tensor scratch = at::empty({(world_ - 1) * out.numel()}, in.options());
    const auto piece = [&](const at::Tensor& of, int64_t i) {
      return of.narrow(0, i * out.numel(), out.numel());
    };
    std::vector<WorkPointer> works;
    std::vector<at::Tensor> others;
    for (int step = 1; step < world_; ++step) {
      others.push_back(piece(scratch, step - 1));
      works.push_back(Receive(others.back(), (rank_ + world_ - step) % world_, sequence));
    }
    for (int step = 1; step < world_; ++step) {
      const int peer = (rank_ + step) % world_;
      works.push_back(Send(piece(in, peer), peer, sequence));
    }
    return {.wait =
                [this, works = std::move(works), others = std::move(others), out,
                 own = piece(in, rank_)] {
                  WaitForAll(works);
                  AddUp(out, own, others);
                },
            .done = nullptr};
  }

  Work AllGather(const at::Tensor& out, const at::Tensor& in, uint64_t sequence) override {
    const auto piece = [&](int64_t i) { return out.narrow(0, i * in.numel(), in.numel()); };
    std::vector<WorkPointer> works;
    for (int step = 1; step < world_; ++step) {
      const int peer = (rank_ + world_ - step) % world_;
      works.push_back(Receive(piece(peer), peer, sequence));
    }
    for (int step = 1; step < world_; ++step) {
      works.push_back(Send(in, (rank_ + step) % world_, sequence));
    }
    const at::Tensor own = piece(rank_);
    if (own.data_ptr() != in.data_ptr()) own.copy_(in);
    return {.wait = [this, works = std::move(works), out] { WaitForAll(works); }, .done = nullptr};
  }

  Work Broadcast(const at::Tensor& tensor, int root) override {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return WaitFor(group_->broadcast(tensors, options));
  }

  Work Barrier() override { return WaitFor(group_->barrier()); }

  void Abort() override {}

 private:
  // Messages of different collectives never meet: the collective's number is their tag.
  static int Tag(uint64_t sequence) {
    return static_cast<int>(sequence % std::numeric_limits<int>::max());
  }
  WorkPointer Send(const at::Tensor& tensor, int peer, uint64_t sequence) {
    std::vector<at::Tensor> tensors = {tensor};
    return group_->send(tensors, peer, Tag(sequence));
  }
  WorkPointer Receive(const at::Tensor& tensor, int peer, uint64_t sequence) {
    std::vector<at::Tensor> tensors = {tensor};
    return group_->recv(tensors, peer, Tag(sequence));
  }
  void WaitForAll(const std::vector<WorkPointer>& works) const {
    for (const WorkPointer& work : works) work->wait(timeout_);
  }

  const int rank_, world_;
  const std::chrono::milliseconds timeout_;
  c10::intrusive_ptr<c10d::ProcessGroupGloo> group_;
};

}  // namespace

std::unique_ptr<Collectives> MakeGloo(const StorePointer& store, const GroupOptions& options) {
  return std::make_unique<GlooCollectives>(store, options);
}

}  // namespace flowmesh::parallel
