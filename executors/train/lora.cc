#include "executors/train/lora.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "executors/train/model_weights.h"

namespace flowmesh::train {
namespace {

using model::LoraBias;

// The stored names of the biases that are trained.
std::set<std::string> TrainedBiases(const model::Decoder& model, LoraBias bias) {
  std::set<std::string> adapted, names;
  for (const model::LinearModule& module : model.parameters().linears()) {
    if (!module.adapters->empty()) adapted.insert(module.path + ".bias");
  }
  for (const model::Parameter& parameter : model.parameters().all()) {
    for (const model::StoredName& part : parameter.parts) {
      if (!absl::EndsWith(part.name, ".bias")) continue;
      if (bias == LoraBias::kAll || (bias == LoraBias::kLoraOnly && adapted.contains(part.name))) {
        names.insert(part.name);
      }
    }
  }
  return names;
}

}  // namespace

absl::StatusOr<model::Adapter> MakeAdapter(const model::Decoder& model,
                                           const model::LoraConfig& config, uint64_t seed) {
  ASSIGN_OR_RETURN(const std::vector<model::LinearModule> targets,
                   TargetModules(model, config.target_modules));
  model::Adapter adapter;
  adapter.config = config;
  if (config.target_modules.size() == 1 && config.target_modules[0] == "all-linear") {
    std::set<std::string> names;  // stored as the list that it stands for
    for (const model::LinearModule& module : targets) {
      names.insert(module.path.substr(module.path.rfind('.') + 1));
    }
    adapter.config.target_modules.assign(names.begin(), names.end());
  }
  const at::Generator generator = at::detail::createCPUGenerator(seed);
  for (const model::LinearModule& module : targets) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(module.in));
    const int64_t rank = config.RankOf(module.path);
    model::LowRank& low_rank = adapter.modules[module.path];
    low_rank.a = at::empty({rank, module.in}, at::kFloat).uniform_(-bound, bound, generator);
    low_rank.b = at::zeros({module.out, rank}, at::kFloat);
    low_rank.scale = config.ScaleOf(module.path);
    low_rank.dropout = config.dropout;
  }
  return adapter;
}

absl::Status CheckTrainable(const model::Adapter& adapter) {
  for (const auto& [name, tensor] : adapter.whole) {
    if (absl::EndsWith(name, ".bias")) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "an adapter that has ", name,
        " whole (modules_to_save) can be used for inference, but not trained further"));
  }
  if (adapter.modules.contains("lm_head")) {
    return absl::InvalidArgumentError(
        "an adapter of lm_head can be used for inference, but not trained further");
  }
  return absl::OkStatus();
}

std::vector<TrainedTensor> TrainAdapter(const model::Adapter& adapter, model::Decoder& model) {
  std::vector<TrainedTensor> tensors;
  model::Attach({.config = adapter.config, .modules = adapter.modules, .whole = adapter.whole}, 1.0,
                model);
  for (const model::LinearModule& module : model.parameters().linears()) {
    if (module.adapters->empty()) continue;
    model::LowRank& low_rank = module.adapters->back();
    low_rank.dropout = adapter.config.dropout;
    low_rank.a = low_rank.a.to(at::kFloat).clone();
    low_rank.b = low_rank.b.to(at::kFloat).clone();
    const int unit = LayerOfName(module.path);
    tensors.push_back({model::AdapterKey(module.path, "lora_A"), &low_rank.a, unit});
    tensors.push_back({model::AdapterKey(module.path, "lora_B"), &low_rank.b, unit});
  }
  const std::set<std::string> biases = TrainedBiases(model, adapter.config.bias);
  for (const model::Parameter& parameter : model.parameters().all()) {
    TrainedTensor tensor = {parameter.parts[0].name, parameter.tensor,
                            LayerOfName(parameter.parts[0].name)};
    bool is_trained = false;
    int64_t row = 0;
    for (const model::StoredName& part : parameter.parts) {
      const int64_t end = row + part.shape[0];
      if (biases.contains(part.name)) {
        is_trained = true;
      } else {
        tensor.frozen_rows.emplace_back(row, end);
      }
      row = end;
    }
    if (is_trained) tensors.push_back(std::move(tensor));
  }
  return tensors;
}

std::vector<model::NamedTensor> StoredAdapter(const model::Decoder& model,
                                              const model::LoraConfig& config,
                                              const std::map<std::string, at::Tensor>& trained) {
  std::vector<model::NamedTensor> stored;
  std::set<std::string> adapted;
  for (const model::LinearModule& module : model.parameters().linears()) {
    if (module.adapters->empty()) continue;
    adapted.insert(module.path + ".bias");
    for (const char* matrix : {"lora_A", "lora_B"}) {
      const std::string key = model::AdapterKey(module.path, matrix);
      stored.push_back({key, trained.at(key)});
    }
  }
  const std::set<std::string> biases = TrainedBiases(model, config.bias);
  for (const model::Parameter& parameter : model.parameters().all()) {
    int64_t row = 0;
    for (const model::StoredName& part : parameter.parts) {
      if (biases.contains(part.name)) {
        const std::string path = part.name.substr(0, part.name.rfind('.'));
        const std::string key =
            adapted.contains(part.name) ? absl::StrCat(path, ".base_layer.bias") : part.name;
        stored.push_back({absl::StrCat("base_model.model.", key),
                          trained.at(parameter.parts[0].name).narrow(0, row, part.shape[0])});
      }
      row += part.shape[0];
    }
  }
  return stored;
}

}  // namespace flowmesh::train
