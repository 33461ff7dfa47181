#include "executors/train/lookups.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <set>

namespace flowmesh::train {
namespace {

// Adds rows [n, width] to those of the matrix with these ids [n].
void AddRows(const at::Tensor& ids, const at::Tensor& rows, int64_t offset,
             const at::Tensor& sums) {
  const int64_t width = rows.size(1), size = sums.numel();
  // The rows that are there as a whole.
  const int64_t first = offset >= 0 ? 0 : (-offset + width - 1) / width;
  const int64_t last = std::max(first, (size - offset) / width);
  const at::Tensor places = ((ids >= first) & (ids < last)).nonzero().squeeze(1);
  if (places.numel() > 0) {
    const at::Tensor here =
        sums.narrow(0, offset + first * width, (last - first) * width).view({-1, width});
    const at::Tensor at_rows = ids.index_select(0, places) - first;
    const at::Tensor added = rows.index_select(0, places);
    if (sums.is_cuda()) {
      // index_add_ adds in another order each time there, and ranks would drift apart; this sorts.
      here.index_put_({at_rows}, added, /*accumulate=*/true);
    } else {
      here.index_add_(0, at_rows, added);
    }
  }
  // Those that an end of the sums cuts.
  for (const int64_t row : std::set<int64_t>{first - 1, last}) {
    const int64_t begin = std::max<int64_t>(0, offset + row * width);
    const int64_t end = std::min(size, offset + (row + 1) * width);
    if (row < 0 || begin >= end) continue;
    const at::Tensor sum = rows.index_select(0, (ids == row).nonzero().squeeze(1)).sum(0);
    sums.narrow(0, begin, end - begin)
        .add_(sum.narrow(0, begin - offset - row * width, end - begin));
  }
}

}  // namespace

absl::Status AddLookups(const at::Tensor& gradient, int64_t offset, const at::Tensor& sums,
                        parallel::ProcessGroup& group) {
  const at::NoGradGuard no_grad;
  const int world = group.world_size();
  const int64_t count = gradient._nnz(), width = gradient.size(1);
  const auto longs = sums.options().dtype(at::kLong);
  // Ranks have looked up unlike numbers of rows: each sends as many as the one with the most.
  const at::Tensor counts = at::empty({world}, longs);
  RETURN_IF_ERROR(group.AllGather(counts, at::full({1}, count, longs)).Wait());
  const int64_t most = counts.max().item<int64_t>();
  if (most == 0) return absl::OkStatus();
  const at::Tensor ids = at::zeros({most}, longs);
  const at::Tensor rows = at::zeros({most * width}, sums.options());
  ids.narrow(0, 0, count).copy_(gradient._indices()[0]);
  rows.narrow(0, 0, count * width).copy_(gradient._values().view({-1}));
  const at::Tensor all_ids = at::empty({world * most}, longs);
  const at::Tensor all_rows = at::empty({world * most * width}, rows.options());
  RETURN_IF_ERROR(group.AllGather(all_ids, ids).Wait());
  RETURN_IF_ERROR(group.AllGather(all_rows, rows).Wait());
  AddRows(all_ids, all_rows.view({-1, width}), offset, sums);
  return absl::OkStatus();
}

}  // namespace flowmesh::train
