// Collectives between GPUs: a library of its own, loaded only when a GPU is chosen, because
// libtorch's CUDA half costs every CPU rank time and memory (DESIGN.md 5).
#include <c10/core/Device.h>

#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#include <vector>

#include "executors/parallel/collectives.h"

namespace flowmesh::parallel {
namespace {

class NcclCollectives : public Collectives {
 public:
  NcclCollectives(const StorePointer& store, const GroupOptions& options)
      : device_index_(options.device_index) {
    // On an error c10d would end the process; ours aborts the collectives and reports it (watch.h).
    ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*overwrite=*/0);
    auto nccl = c10d::ProcessGroupNCCL::Options::create();
    nccl->timeout = std::chrono::milliseconds(absl::ToInt64Milliseconds(options.timeout));
    group_ = c10::make_intrusive<c10d::ProcessGroupNCCL>(store, options.rank, options.world_size,
                                                         std::move(nccl));
    group_->setBoundDeviceId(
        at::Device(at::kCUDA, static_cast<at::DeviceIndex>(options.device_index)));
  }

  Work AllReduceSum(const at::Tensor& tensor) override {
    std::vector<at::Tensor> tensors = {tensor};
    return Watched(group_->allreduce(tensors));
  }

  Work ReduceScatterSum(const at::Tensor& out, const at::Tensor& in, uint64_t) override {
    at::Tensor to = out, from = in;
    return Watched(group_->_reduce_scatter_base(to, from));
  }

  Work AllGather(const at::Tensor& out, const at::Tensor& in, uint64_t) override {
    at::Tensor to = out, from = in;
    return Watched(group_->_allgather_base(to, from));
  }

  Work Broadcast(const at::Tensor& tensor, int root) override {
    std::vector<at::Tensor> tensors = {tensor};
    c10d::BroadcastOptions options;
    options.rootRank = root;
    return Watched(group_->broadcast(tensors, options));
  }

  Work Barrier() override {
    c10d::BarrierOptions options;
    options.device_ids = {device_index_};
    return Watched(group_->barrier(options));
  }

  void Abort() override { group_->abort(); }

 private:
  static Work Watched(const c10::intrusive_ptr<c10d::Work>& work) {
    return {.wait = [work] { work->wait(); },
            .done =
                [work] {
                  if (!work->isCompleted()) return false;
                  // What NCCL itself found broken counts as completed.
                  if (const std::exception_ptr error = work->exception())
                    std::rethrow_exception(error);
                  return true;
                }};
  }

  const int64_t device_index_;
  c10::intrusive_ptr<c10d::ProcessGroupNCCL> group_;
};

}  // namespace
}  // namespace flowmesh::parallel

extern "C" __attribute__((visibility("default"))) flowmesh::parallel::Collectives*
flowmesh_make_nccl(const flowmesh::parallel::StorePointer& store,
                   const flowmesh::parallel::GroupOptions& options) {
  return new flowmesh::parallel::NcclCollectives(store, options);
}
