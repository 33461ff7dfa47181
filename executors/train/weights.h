// The weights that a training task changes, their gradients and the optimiser's state, laid out for
// it: flat buffers, one unit for each layer, one (number -1) for all else and one for what stays
// float32 beside others in half precision, each cut into as many equal shards as there are ranks.
// What every rank holds whole and what only by its shard is DeepSpeed's ZeRO stage:
//   0: all whole; 1: the optimiser's state by shard; 2: gradients too; 3: weights too, which are
//   gathered for a layer while it computes, and for the next one meanwhile.
// Exchanges run beside the computation where they can; a unit is waited for when it is wanted.
// The results are the same in every stage.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "common/status.h"
#include "executors/parallel/process_group.h"
#include "executors/train/recompute.h"

namespace flowmesh::train {

// One tensor to train: float32 (the master copy's start), on the device.
struct TrainedTensor {
  std::string name;              // of errors and saved state; unique
  at::Tensor* tensor = nullptr;  // the model's own; becomes a view that wants gradients
  int unit = -1;                 // index of the layer it belongs to
  bool is_wide = false;          // computes in float32 under autocast: norms
  // Rows that stay as they are, [begin, end): those of other layers in a stack.
  std::vector<std::pair<int64_t, int64_t>> frozen_rows;
};

struct WeightOptions {
  at::ScalarType compute = at::kFloat;  // of the model's weights and a pass's gradients
  // As over float32 weights: wide tensors stay float32, and so are the sums of gradients over
  // passes and ranks. Without, both are of the compute dtype, as weights of that dtype have them.
  bool autocast = true;
  int zero_stage = 0;
  parallel::ProcessGroup* group = nullptr;  // not owned
};

// A rank's piece of a unit, as the optimiser sees it: one-dimensional tensors of equal length.
struct WeightShard {
  at::Tensor master;               // float32
  at::Tensor compute;              // the same in the dtype of the computation; may be master itself
  at::Tensor gradient;             // of the sums' dtype; undefined between steps in stages 2 and 3
  at::Tensor exp_avg, exp_avg_sq;  // float32, Adam's moments
  int64_t decayed = 0;             // the first so many elements have weight decay
};

// One thread at a time.
class TrainedWeights {
 public:
  // Takes the tensors over: each becomes a view of its unit's buffer, in the compute dtype.
  TrainedWeights(const std::vector<TrainedTensor>& tensors, const WeightOptions& options);
  TrainedWeights(const TrainedWeights&) = delete;
  TrainedWeights& operator=(const TrainedWeights&) = delete;
  ~TrainedWeights();

  // What the layers' runner has to call.
  LayerHooks hooks();

  // A step is: BeginStep; for each micro-batch BeginPass, forward and backward, EndPass; then the
  // optimiser on the shards, with Share for each. Every rank must do the same. After the last
  // EndPass a shard's gradient is the sum over ranks. Errors: those of collectives.
  void BeginStep();
  absl::Status BeginPass(bool is_last);
  absl::Status EndPass();
  // The weights of this shard, one of shards(), have changed: they are on their way to the ranks
  // that hold all, and there in the next pass or use.
  void Share(const WeightShard& shard);

  // For passes without gradients (rollouts, a reference): between these two the weights are whole,
  // those of layers only if `with_layers` (else the hooks gather each, a collective).
  absl::Status BeginUse(bool with_layers = true);
  void EndUse();

  std::vector<WeightShard>& shards();
  // The sum of `value` over the ranks where shards differ between them; `value` itself in stage 0.
  absl::StatusOr<double> SumOverShards(double value);
  int64_t numel() const;  // of all tensors, padding left out

  // The whole of something that each rank has its shard of: `part(shard)`, by tensor, in the order
  // of the units. Every rank must call it; only rank 0 gets the tensors.
  struct Named {
    std::string name;
    at::Tensor tensor;  // of the tensor's shape, on the CPU
  };
  absl::StatusOr<std::vector<Named>> Collect(const std::function<at::Tensor(WeightShard&)>& part);
  // The opposite: `part` of each shard from whole tensors, which every rank has. InvalidArgument: a
  // tensor that is missing or has another shape.
  absl::Status Distribute(const std::function<const at::Tensor*(const std::string& name)>& find,
                          const std::function<at::Tensor(WeightShard&)>& part);
  // After the masters were changed from outside.
  absl::Status RefreshCompute();

 private:
  struct Unit;

  void MakeUnits(const std::vector<TrainedTensor>& tensors);
  Unit* OfLayer(int layer);  // null: the layer has none
  bool IsLast(int layer) const;
  void BeforeForward(int layer);
  void AfterForward(int layer);
  void BeforeBackward(int layer);
  void AfterBackward(int layer);
  // The units that are there from the beginning of a pass to its end.
  std::vector<Unit*> BesideLayers();

  void BeginGather(Unit& unit);    // stage 3: weights; others are never without
  void Gather(Unit& unit);         // until all weights have come
  void Release(Unit& unit);        // stage 3
  void MakeGradients(Unit& unit);  // of a pass, where they are not the sums themselves
  void DropGradients(Unit& unit);
  void BeginExchange(Unit& unit);   // of gradients
  void FinishExchange(Unit& unit);  // stages 2 and 3: into its shard
  void Settle();                    // the one that was begun last, of a layer in stages 2 and 3
  // What is in no layer, a vocabulary's head above all, has its gradients when the layers' backward
  // pass begins, but for the rows of embeddings that were looked up. Its exchange begins then, and
  // those rows follow as sparse gradients: of its matrices nothing else may get a gradient after
  // that.
  void ExchangeOuterEarly();
  void FinishOuter();
  void Note(const absl::Status& status) { status_.Update(status); }

  const WeightOptions options_;
  const int world_, rank_;
  const at::ScalarType sums_;  // in which gradients are added up
  std::vector<std::unique_ptr<Unit>> units_;
  bool has_outer_ = false;           // the unit of what is in no layer; it is the first one
  bool has_wide_ = false;            // that of wide tensors; it is the last one
  std::vector<int> unit_of_layer_;   // its place in units_, or -1
  std::vector<WeightShard> shards_;  // one for each unit
  bool is_last_pass_ = false;
  int forwards_ = 0;  // of this pass, with gradients
  bool outer_is_early_ = false;
  Unit* unsettled_ = nullptr;
  absl::Status status_;  // the first error, from hooks too
};

}  // namespace flowmesh::train
