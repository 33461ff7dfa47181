#include "executors/train/weights.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/DeviceGuard.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "executors/device/allocator.h"
#include "executors/train/lookups.h"

namespace flowmesh::train {
namespace {

constexpr int64_t kAlignment = 16;  // elements: a cache line of float32

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

// Frees the memory behind a flat tensor, or makes it anew, with all views of it left as they are.
void ResizeStorage(const at::Tensor& flat, int64_t elements) {
  c10::StorageImpl* storage = flat.storage().unsafeGetStorageImpl();
  const size_t bytes = static_cast<size_t>(elements) * flat.element_size();
  if (storage->nbytes() == bytes) return;
  const c10::DeviceGuard guard(storage->device());  // an allocator uses the current one
  at::DataPtr memory = storage->allocator()->allocate(bytes);
  storage->set_data_ptr_noswap(std::move(memory));
  storage->set_nbytes(bytes);
}

}  // namespace

struct TrainedWeights::Unit {
  struct Slot {
    std::string name;
    at::Tensor* tensor;
    std::vector<int64_t> shape;
    std::vector<std::pair<int64_t, int64_t>> frozen_rows;
    int64_t offset;
    int64_t numel;
  };

  at::Tensor View(const at::Tensor& flat, const Slot& slot) const {
    return flat.narrow(0, slot.offset, slot.numel).view(slot.shape);
  }

  explicit Unit(at::ScalarType dtype) : dtype(dtype) {}

  const at::ScalarType dtype;  // of the computation and a pass's gradients
  std::vector<Slot> slots;
  int64_t size = 0;     // with padding
  int64_t decayed = 0;  // elements before this have weight decay
  at::Tensor compute;   // [size]
  at::Tensor gradient;  // [size], of a pass; defined only around the unit's backward pass, or total
  at::Tensor total;     // [size], in stages 0 and 1: the sum over passes, then ranks
  at::Tensor sum;       // this rank's piece of the sum over ranks, while that is computed
  WeightShard* shard = nullptr;
  int64_t begin = 0;           // of the shard
  bool is_whole = true;        // has its memory; stage 3: between Gather and Release
  parallel::Pending gather;    // of weights
  parallel::Pending exchange;  // of gradients
};

TrainedWeights::TrainedWeights(const std::vector<TrainedTensor>& tensors,
                               const WeightOptions& options)
    : options_(options),
      world_(options.group->world_size()),
      rank_(options.group->rank()),
      sums_(options.autocast ? at::kFloat : options.compute) {
  const at::NoGradGuard no_grad;
  MakeUnits(tensors);
  shards_.resize(units_.size());
  for (size_t i = 0; i < units_.size(); ++i) {
    Unit& unit = *units_[i];
    WeightShard& shard = shards_[i];
    unit.shard = &shard;
    const at::Device device = unit.slots[0].tensor->device();
    const auto fp32 = at::TensorOptions(at::kFloat).device(device);
    at::Tensor master = at::zeros({unit.size}, fp32);
    for (const Unit::Slot& slot : unit.slots) {
      unit.View(master, slot).copy_(*slot.tensor);
      *slot.tensor = at::Tensor();  // before the next one takes memory
    }
    const bool is_sharded = options_.zero_stage > 0;
    const int64_t piece = is_sharded ? unit.size / world_ : unit.size;
    const int64_t begin = unit.begin = is_sharded ? rank_ * piece : 0;
    unit.compute = master.to(unit.dtype);
    shard.compute = unit.compute.narrow(0, begin, piece);
    if (unit.dtype == at::kFloat && options_.zero_stage < 3) {
      shard.master = shard.compute;
    } else {
      shard.master = is_sharded ? master.narrow(0, begin, piece).clone() : master;
    }
    if (options_.zero_stage == 3) shard.compute = shard.master.to(unit.dtype);
    shard.exp_avg = at::zeros({piece}, fp32);
    shard.exp_avg_sq = at::zeros({piece}, fp32);
    shard.decayed = std::clamp<int64_t>(unit.decayed - begin, 0, piece);
    if (options_.zero_stage < 2) {
      unit.total = at::zeros({unit.size}, fp32.dtype(sums_));
      if (unit.dtype == sums_) unit.gradient = unit.total;
      shard.gradient = unit.total.narrow(0, begin, piece);
    }
    for (const Unit::Slot& slot : unit.slots) {
      at::Tensor view = unit.View(unit.compute, slot).detach();
      view.requires_grad_(true);
      if (unit.gradient.defined()) view.mutable_grad() = unit.View(unit.gradient, slot);
      *slot.tensor = std::move(view);
    }
    Release(unit);
  }
  // What the model's own tensors have left are holes between small things that live on, each too
  // small for a unit.
  device::ReturnFreedMemory();
}

TrainedWeights::~TrainedWeights() = default;

void TrainedWeights::MakeUnits(const std::vector<TrainedTensor>& tensors) {
  int most = -1;
  for (const TrainedTensor& tensor : tensors) most = std::max(most, tensor.unit);
  unit_of_layer_.assign(static_cast<size_t>(most + 1), -1);
  const int wide = most + 1;
  const auto unit_of = [&](const TrainedTensor& tensor) {
    return tensor.is_wide && sums_ != options_.compute ? wide : tensor.unit;
  };
  for (int index = -1; index <= wide; ++index) {
    auto unit = std::make_unique<Unit>(index == wide ? at::kFloat : options_.compute);
    // Matrices have weight decay, vectors (biases, norms) none, as HF Trainer groups them.
    for (const bool decays : {true, false}) {
      for (const TrainedTensor& tensor : tensors) {
        if (unit_of(tensor) != index || (tensor.tensor->dim() >= 2) != decays) continue;
        const int64_t numel = tensor.tensor->numel();
        unit->slots.push_back({tensor.name, tensor.tensor, tensor.tensor->sizes().vec(),
                               tensor.frozen_rows, unit->size, numel});
        unit->size += RoundUp(numel, kAlignment);
      }
      if (decays) unit->decayed = unit->size;
    }
    if (unit->slots.empty()) continue;
    unit->size = RoundUp(unit->size, kAlignment * world_);
    if (index < 0) {
      has_outer_ = true;
    } else if (index == wide) {
      has_wide_ = true;
    } else {
      unit_of_layer_[static_cast<size_t>(index)] = static_cast<int>(units_.size());
    }
    units_.push_back(std::move(unit));
  }
}

LayerHooks TrainedWeights::hooks() {
  return {.before_forward = [this](int layer) { BeforeForward(layer); },
          .after_forward = [this](int layer) { AfterForward(layer); },
          .before_backward = [this](int layer) { BeforeBackward(layer); },
          .after_backward = [this](int layer) { AfterBackward(layer); }};
}

TrainedWeights::Unit* TrainedWeights::OfLayer(int layer) {
  if (layer < 0 || static_cast<size_t>(layer) >= unit_of_layer_.size()) return nullptr;
  const int index = unit_of_layer_[static_cast<size_t>(layer)];
  return index < 0 ? nullptr : units_[static_cast<size_t>(index)].get();
}

bool TrainedWeights::IsLast(int layer) const {
  return layer + 1 == static_cast<int>(unit_of_layer_.size());
}

// While a layer computes, the weights of the next one come.
void TrainedWeights::BeforeForward(int layer) {
  if (IsLast(layer) && at::GradMode::is_enabled()) ++forwards_;
  if (Unit* unit = OfLayer(layer)) Gather(*unit);
  if (Unit* next = OfLayer(layer + 1)) BeginGather(*next);
}

void TrainedWeights::AfterForward(int layer) {
  if (IsLast(layer) && at::GradMode::is_enabled()) return;  // its backward pass is next
  if (Unit* unit = OfLayer(layer)) Release(*unit);
}

void TrainedWeights::BeforeBackward(int layer) {
  if (IsLast(layer)) ExchangeOuterEarly();
  if (Unit* unit = OfLayer(layer)) {
    Gather(*unit);
    MakeGradients(*unit);
  }
  if (Unit* next = OfLayer(layer - 1)) BeginGather(*next);
}

void TrainedWeights::AfterBackward(int layer) {
  if (Unit* unit = OfLayer(layer)) {
    // The exchange of one unit runs beside the backward pass of the next.
    Settle();
    BeginExchange(*unit);
    if (options_.zero_stage >= 2) unsettled_ = unit;
    Release(*unit);
  }
}

std::vector<TrainedWeights::Unit*> TrainedWeights::BesideLayers() {
  std::vector<Unit*> units;
  if (has_outer_) units.push_back(units_.front().get());
  if (has_wide_) units.push_back(units_.back().get());
  return units;
}

void TrainedWeights::BeginGather(Unit& unit) {
  if (unit.is_whole) return;
  ResizeStorage(unit.compute, unit.size);
  unit.is_whole = true;
  // Not as a change of the tensor: the same values come back to what autograd has kept.
  const at::Tensor whole = unit.compute.variable_data();
  if (status_.ok()) unit.gather = options_.group->AllGather(whole, unit.shard->compute);
}

void TrainedWeights::Gather(Unit& unit) {
  BeginGather(unit);
  Note(unit.gather.Wait());
  // After an error the pass goes on, with weights of zero, to its end, where the error is returned.
  if (options_.zero_stage == 3 && !status_.ok()) unit.compute.variable_data().zero_();
}

void TrainedWeights::Release(Unit& unit) {
  if (options_.zero_stage < 3) return;
  Note(unit.gather.Wait());  // nothing may come into memory that is given back
  ResizeStorage(unit.compute, 0);
  unit.is_whole = false;
}

void TrainedWeights::MakeGradients(Unit& unit) {
  if (options_.zero_stage < 2 && unit.dtype == sums_) return;
  unit.gradient = at::zeros({unit.size}, unit.compute.options());
  for (const Unit::Slot& slot : unit.slots) {
    slot.tensor->mutable_grad() = unit.View(unit.gradient, slot);
  }
}

void TrainedWeights::DropGradients(Unit& unit) {
  for (const Unit::Slot& slot : unit.slots) slot.tensor->mutable_grad() = at::Tensor();
  unit.gradient = at::Tensor();
}

void TrainedWeights::BeginExchange(Unit& unit) {
  if (!status_.ok()) return;
  const at::NoGradGuard no_grad;
  for (const Unit::Slot& slot : unit.slots) {
    for (const auto& [begin, end] : slot.frozen_rows) {
      unit.View(unit.gradient, slot).narrow(0, begin, end - begin).zero_();
    }
  }
  if (options_.zero_stage < 2) {
    if (unit.dtype != sums_) {
      unit.total.add_(unit.gradient);
      DropGradients(unit);
    }
    // Sums of ranks are wanted once a step, not for every pass.
    if (is_last_pass_ && world_ > 1) unit.exchange = options_.group->AllReduceSum(unit.total);
    return;
  }
  unit.gradient = unit.gradient.to(sums_);
  unit.sum = at::empty({unit.shard->compute.numel()}, unit.gradient.options());
  unit.exchange = options_.group->ReduceScatterSum(unit.sum, unit.gradient);
}

void TrainedWeights::FinishExchange(Unit& unit) {
  Note(unit.exchange.Wait());
  if (options_.zero_stage < 2 || !unit.sum.defined()) return;  // after an error there is none
  const at::NoGradGuard no_grad;
  WeightShard& shard = *unit.shard;
  if (shard.gradient.defined()) {
    shard.gradient.add_(unit.sum);
  } else {
    shard.gradient = unit.sum;
  }
  unit.sum = at::Tensor();
  DropGradients(unit);
}

void TrainedWeights::Settle() {
  if (unsettled_ != nullptr) FinishExchange(*std::exchange(unsettled_, nullptr));
}

void TrainedWeights::ExchangeOuterEarly() {
  // After several forward passes its gradients would go on.
  if (!has_outer_ || world_ == 1 || forwards_ != 1) return;
  if (options_.zero_stage < 2 && !is_last_pass_) return;
  Unit& outer = *units_[0];
  BeginExchange(outer);
  outer_is_early_ = true;
  for (const Unit::Slot& slot : outer.slots) {
    if (slot.shape.size() != 2) continue;
    slot.tensor->mutable_grad() =
        at::zeros(slot.shape, outer.compute.options().layout(at::kSparse));
  }
}

void TrainedWeights::FinishOuter() {
  Unit& outer = *units_[0];
  const bool has_total = outer.total.defined();
  std::vector<std::pair<int64_t, at::Tensor>> lookups;
  for (const Unit::Slot& slot : outer.slots) {
    const at::Tensor gradient = slot.tensor->grad();
    if (!gradient.defined() || !gradient.is_sparse()) continue;
    lookups.emplace_back(slot.offset, gradient);
    slot.tensor->mutable_grad() =
        has_total && outer.dtype == sums_ ? outer.View(outer.total, slot) : at::Tensor();
  }
  FinishExchange(outer);
  const at::Tensor& sums = has_total ? outer.total : outer.shard->gradient;
  for (const auto& [offset, gradient] : lookups) {
    if (!status_.ok()) return;
    Note(AddLookups(gradient, offset - (has_total ? 0 : outer.begin), sums, *options_.group));
  }
}

void TrainedWeights::BeginStep() {
  for (const std::unique_ptr<Unit>& unit : units_) {
    if (unit->total.defined()) unit->total.zero_();
    if (options_.zero_stage >= 2) unit->shard->gradient = at::Tensor();
  }
}

absl::Status TrainedWeights::BeginPass(bool is_last) {
  is_last_pass_ = is_last;
  forwards_ = 0;
  for (Unit* unit : BesideLayers()) {
    Gather(*unit);
    MakeGradients(*unit);
  }
  return status_;
}

absl::Status TrainedWeights::EndPass() {
  Settle();
  const Unit* early = std::exchange(outer_is_early_, false) ? units_[0].get() : nullptr;
  for (Unit* unit : BesideLayers()) {
    if (unit != early) BeginExchange(*unit);
  }
  for (Unit* unit : BesideLayers()) {
    if (unit == early) {
      FinishOuter();
    } else {
      FinishExchange(*unit);
    }
  }
  for (const std::unique_ptr<Unit>& unit : units_) {
    Note(unit->exchange.Wait());
    Release(*unit);
  }
  return status_;
}

void TrainedWeights::Share(const WeightShard& shard) {
  if (options_.zero_stage == 0 || options_.zero_stage == 3 || !status_.ok()) return;
  Unit& unit = *units_[static_cast<size_t>(&shard - shards_.data())];
  unit.gather = options_.group->AllGather(unit.compute, shard.compute);
}

absl::Status TrainedWeights::BeginUse(bool with_layers) {
  std::vector<Unit*> wanted = BesideLayers();
  if (with_layers) {
    wanted.clear();
    for (const std::unique_ptr<Unit>& unit : units_) wanted.push_back(unit.get());
  }
  for (Unit* unit : wanted) BeginGather(*unit);
  for (Unit* unit : wanted) Gather(*unit);
  return status_;
}

void TrainedWeights::EndUse() {
  for (const std::unique_ptr<Unit>& unit : units_) Release(*unit);
}

std::vector<WeightShard>& TrainedWeights::shards() { return shards_; }

absl::StatusOr<double> TrainedWeights::SumOverShards(double value) {
  if (options_.zero_stage == 0) return value;
  std::vector<double> sum = {value};
  RETURN_IF_ERROR(options_.group->SumNumbers(sum));
  return sum[0];
}

int64_t TrainedWeights::numel() const {
  int64_t sum = 0;
  for (const std::unique_ptr<Unit>& unit : units_) {
    for (const Unit::Slot& slot : unit->slots) sum += slot.numel;
  }
  return sum;
}

absl::StatusOr<std::vector<TrainedWeights::Named>> TrainedWeights::Collect(
    const std::function<at::Tensor(WeightShard&)>& part) {
  const at::NoGradGuard no_grad;
  std::vector<Named> named;
  for (const std::unique_ptr<Unit>& unit : units_) {
    at::Tensor whole = part(*unit->shard);
    if (options_.zero_stage > 0 && world_ > 1) {
      const at::Tensor piece = whole.contiguous();
      whole = at::empty({unit->size}, piece.options());
      RETURN_IF_ERROR(options_.group->AllGather(whole, piece).Wait());
    }
    if (rank_ != 0) continue;
    for (const Unit::Slot& slot : unit->slots) {
      named.push_back({slot.name, unit->View(whole, slot)
                                      .to(at::kCPU, /*non_blocking=*/false,
                                          /*copy=*/true)});
    }
  }
  return named;
}

absl::Status TrainedWeights::Distribute(
    const std::function<const at::Tensor*(const std::string& name)>& find,
    const std::function<at::Tensor(WeightShard&)>& part) {
  const at::NoGradGuard no_grad;
  for (const std::unique_ptr<Unit>& unit : units_) {
    RETURN_IF_ERROR(unit->gather.Wait());
    const at::Tensor piece = part(*unit->shard);
    at::Tensor whole = at::zeros({unit->size}, piece.options());
    for (const Unit::Slot& slot : unit->slots) {
      const at::Tensor* tensor = find(slot.name);
      if (tensor == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", slot.name, " is missing"));
      }
      if (tensor->sizes() != at::IntArrayRef(slot.shape)) {
        return absl::InvalidArgumentError(absl::StrCat("tensor ", slot.name, " has another shape"));
      }
      unit->View(whole, slot).copy_(*tensor);
    }
    piece.copy_(whole.narrow(0, unit->begin, piece.numel()));
  }
  return absl::OkStatus();
}

absl::Status TrainedWeights::RefreshCompute() {
  const at::NoGradGuard no_grad;
  for (WeightShard& shard : shards_) {
    if (!shard.compute.is_alias_of(shard.master)) shard.compute.copy_(shard.master);
    Share(shard);
  }
  return status_;
}

}  // namespace flowmesh::train
