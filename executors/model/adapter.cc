#include "executors/model/adapter.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <regex>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "common/files.h"
#include "common/strings.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

constexpr char kHeadWeight[] = "lm_head.weight";
constexpr char kPrefix[] = "base_model.model.";
constexpr char kConfigFile[] = "adapter_config.json";
constexpr char kWeightsFile[] = "adapter_model.safetensors";
constexpr char kPickledFile[] = "adapter_model.bin";  // PyTorch's own format, which is not read

// Whether `name` means the module at `path`.
bool Matches(const std::string& path, const std::string& name) {
  return path == name || absl::EndsWith(path, "." + name);
}

std::string LastPart(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// By its name: a model whose head is its embeddings has no module of that name.
bool IsHead(const std::string& path) { return LastPart(path) == "lm_head"; }

// The names of the model's linear layers, each once.
std::string LinearNames(const Decoder& model) {
  std::vector<std::string> names;
  for (const LinearModule& module : model.parameters().linears()) {
    const std::string name = LastPart(module.path);
    if (!IsHead(module.path) && std::find(names.begin(), names.end(), name) == names.end()) {
      names.push_back(name);
    }
  }
  return absl::StrJoin(names, ", ");
}

// Whether `name` means a module that is no linear layer: one with parameters of its own, or one
// that holds others.
bool IsOtherModule(const Decoder& model, const std::string& name) {
  std::set<std::string> linears;
  for (const LinearModule& module : model.parameters().linears()) linears.insert(module.path);
  for (const Parameter& parameter : model.parameters().all()) {
    for (const StoredName& part : parameter.parts) {
      std::string path = part.name;
      for (size_t dot; (dot = path.rfind('.')) != std::string::npos;) {
        path.resize(dot);
        if (!linears.contains(path) && Matches(path, name)) return true;
      }
    }
  }
  return false;
}

// As PEFT matches the keys of rank_pattern and alpha_pattern. Throws std::regex_error.
std::regex RegexOf(const std::string& key) {
  return std::regex(absl::StrCat("(.*\\.)?(", key, ")"));
}

template <typename T>
const T* PatternOf(const std::vector<std::pair<std::string, T>>& pattern, const std::string& path) {
  for (const auto& [key, value] : pattern) {
    if (std::regex_match(path, RegexOf(key))) return &value;
  }
  return nullptr;
}

template <typename T>
absl::Status ReadPattern(const Field& field,
                         const std::function<absl::StatusOr<T>(const Field&)>& read,
                         std::vector<std::pair<std::string, T>>& pattern) {
  RETURN_IF_ERROR(field.CheckMap());
  if (!field.present()) return absl::OkStatus();
  for (const auto& entry : field.json().items()) {
    try {
      RegexOf(entry.key());
    } catch (const std::regex_error& error) {
      return field.Error(absl::StrCat("expected regular expressions of module paths, got '",
                                      entry.key(), "': ", error.what()));
    }
    ASSIGN_OR_RETURN(T value, read(field[entry.key()]));
    pattern.emplace_back(entry.key(), value);
  }
  return absl::OkStatus();
}

absl::StatusOr<LoraConfig> ReadConfig(const Field& root) {
  ASSIGN_OR_RETURN(const std::string type, root["peft_type"].StringOr("LORA"));
  if (ToLower(type) != "lora") return root["peft_type"].Expected("LORA");
  ASSIGN_OR_RETURN(const bool use_dora, root["use_dora"].BoolOr(false));
  if (use_dora) return root["use_dora"].Error("DoRA adapters are not supported");
  LoraConfig config;
  if (root["modules_to_save"].present()) {
    ASSIGN_OR_RETURN(config.modules_to_save, root["modules_to_save"].StringList());
  }
  ASSIGN_OR_RETURN(config.r, root["r"].IntOr(8, 1));
  ASSIGN_OR_RETURN(config.alpha, root["lora_alpha"].NumberOr(8));
  ASSIGN_OR_RETURN(config.dropout, root["lora_dropout"].NumberOr(0));
  ASSIGN_OR_RETURN(config.use_rslora, root["use_rslora"].BoolOr(false));
  ASSIGN_OR_RETURN(const std::string bias, root["bias"].StringOr("none"));
  if (bias == "all") config.bias = LoraBias::kAll;
  if (bias == "lora_only") config.bias = LoraBias::kLoraOnly;
  const Field targets = root["target_modules"];
  if (targets.present() && targets.json().is_string()) {
    config.target_modules = {targets.json().get<std::string>()};
  } else {
    ASSIGN_OR_RETURN(config.target_modules, targets.StringList());
  }
  RETURN_IF_ERROR(ReadPattern<int64_t>(
      root["rank_pattern"], [](const Field& value) { return value.Int(1); }, config.rank_pattern));
  RETURN_IF_ERROR(ReadPattern<double>(
      root["alpha_pattern"], [](const Field& value) { return value.Number(); },
      config.alpha_pattern));
  return config;
}

absl::Status CheckShape(const std::string& name, const at::Tensor& tensor,
                        const std::vector<int64_t>& shape) {
  if (tensor.sizes() == at::IntArrayRef(shape)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("tensor ", name, ": expected shape [",
                                                 absl::StrJoin(shape, ", "), "], got [",
                                                 absl::StrJoin(tensor.sizes(), ", "), "]"));
}

// Whether a parameter is of a module that PEFT saves whole: one whose path ends in one of the
// names, or one inside of such a module.
bool IsSavedWhole(const LoraConfig& config, std::string path) {
  for (size_t dot; (dot = path.rfind('.')) != std::string::npos;) {
    path.resize(dot);
    for (const std::string& name : config.modules_to_save) {
      if (absl::EndsWith(path, name)) return true;
    }
  }
  return false;
}

// The shapes of the model's parameters as they are stored; a tied head too.
std::map<std::string, std::vector<int64_t>> StoredShapes(const Decoder& model) {
  std::map<std::string, std::vector<int64_t>> shapes = {{kHeadWeight, model.head().sizes().vec()}};
  for (const Parameter& parameter : model.parameters().all()) {
    for (const StoredName& part : parameter.parts) {
      std::vector<int64_t>& shape = shapes[part.name] = part.shape;
      if (part.transposed) std::reverse(shape.begin(), shape.end());
    }
  }
  return shapes;
}

// The tensors of a file, by the module or parameter that they are for.
absl::Status ReadTensors(const Safetensors& file, const Decoder& model, Adapter* adapter) {
  std::map<std::string, const LinearModule*> modules;
  for (const LinearModule& module : model.parameters().linears()) modules[module.path] = &module;
  const std::map<std::string, std::vector<int64_t>> stored = StoredShapes(model);
  for (const SafetensorsTensor& tensor : file.tensors()) {
    absl::string_view rest = tensor.name;
    absl::ConsumePrefix(&rest, kPrefix);
    const bool is_a = absl::ConsumeSuffix(&rest, ".lora_A.weight");
    const bool is_b = !is_a && absl::ConsumeSuffix(&rest, ".lora_B.weight");
    if (!is_a && !is_b) {
      std::string name(rest);
      constexpr std::string_view kBaseLayer = ".base_layer";  // of a module that has matrices too
      const size_t base_layer = name.find(kBaseLayer);
      if (base_layer != std::string::npos) name.erase(base_layer, kBaseLayer.size());
      const auto shape = stored.find(name);
      if (shape == stored.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat("tensor ", tensor.name, ": the model has no ", name));
      }
      adapter->whole[name] = tensor.Copy();
      RETURN_IF_ERROR(CheckShape(tensor.name, adapter->whole[name], shape->second));
      continue;
    }
    const std::string path(rest);
    const auto module = modules.find(path);
    if (module == modules.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", tensor.name, ": the model has no linear layer ", path));
    }
    const int64_t rank = adapter->config.RankOf(path);
    LowRank& low_rank = adapter->modules[path];
    low_rank.scale = adapter->config.ScaleOf(path);
    low_rank.dropout = adapter->config.dropout;
    (is_a ? low_rank.a : low_rank.b) = tensor.Copy();
    RETURN_IF_ERROR(CheckShape(
        tensor.name, is_a ? low_rank.a : low_rank.b,
        is_a ? std::vector{rank, module->second->in} : std::vector{module->second->out, rank}));
  }
  for (const auto& [path, low_rank] : adapter->modules) {
    if (!low_rank.a.defined() || !low_rank.b.defined()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor ", AdapterKey(path, low_rank.a.defined() ? "lora_B" : "lora_A"), " is missing"));
    }
  }
  if (adapter->modules.empty()) return absl::InvalidArgumentError("no adapter matrices in it");
  for (const auto& [name, shape] : stored) {
    if (IsSavedWhole(adapter->config, name) && !adapter->whole.contains(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat("tensor ", kPrefix, name, " is missing: it is in modules_to_save"));
    }
  }
  return absl::OkStatus();
}

// Puts what the adapter has whole in place of the model's.
void SetWhole(const Adapter& adapter, Decoder& model) {
  const at::NoGradGuard no_grad;
  if (model.config().tie_word_embeddings) {
    bool parts_them = adapter.whole.contains(kHeadWeight);
    for (const Parameter& parameter : model.parameters().all()) {
      const bool is_embeddings = parameter.tensor == &model.head();
      parts_them |= is_embeddings && adapter.whole.contains(parameter.parts[0].name);
    }
    if (parts_them) model.Untie();
  }
  for (const Parameter& parameter : model.parameters().all()) {
    int64_t row = 0;
    for (const StoredName& part : parameter.parts) {
      const auto found = adapter.whole.find(part.name);
      if (found != adapter.whole.end()) {
        const at::Tensor rows = parameter.tensor->narrow(0, row, part.shape[0]);
        rows.copy_(part.transposed ? found->second.t() : found->second);
      }
      row += part.shape[0];
    }
  }
}

}  // namespace

int64_t LoraConfig::RankOf(const std::string& path) const {
  const int64_t* rank = PatternOf(rank_pattern, path);
  return rank != nullptr ? *rank : r;
}

double LoraConfig::ScaleOf(const std::string& path) const {
  const double* own = PatternOf(alpha_pattern, path);
  const auto rank = static_cast<double>(RankOf(path));
  return (own != nullptr ? *own : alpha) / (use_rslora ? std::sqrt(rank) : rank);
}

std::string AdapterKey(const std::string& path, const char* matrix) {
  return absl::StrCat(kPrefix, path, ".", matrix, ".weight");
}

absl::StatusOr<std::vector<LinearModule>> TargetModules(const Decoder& model,
                                                        const std::vector<std::string>& names) {
  const bool all = names.size() == 1 && names[0] == "all-linear";
  std::vector<LinearModule> modules;
  for (const LinearModule& module : model.parameters().linears()) {
    bool matches = all && !IsHead(module.path);
    for (const std::string& name : names) matches |= Matches(module.path, name);
    if (matches) modules.push_back(module);
  }
  for (const std::string& name : names) {
    if (IsHead(name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is the output head, which has no adapter"));
    }
    if (!all && IsOtherModule(model, name)) {
      return absl::InvalidArgumentError(
          absl::StrCat(name, " is no linear layer; linear layers are: ", LinearNames(model)));
    }
  }
  if (modules.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("no module is called ",
                                                   absl::StrJoin(names, " or "),
                                                   "; linear layers are: ", LinearNames(model)));
  }
  return modules;
}

absl::StatusOr<fs::path> FindAdapterFolder(const fs::path& root) {
  std::error_code error;
  if (fs::exists(root / kConfigFile, error)) return root;
  std::vector<fs::path> found;
  for (fs::recursive_directory_iterator it(root, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().filename() == kConfigFile) found.push_back(it->path().parent_path());
  }
  if (found.empty()) {
    return absl::NotFoundError(
        absl::StrCat("no ", kConfigFile, " in ", root.string(), " or below"));
  }
  return *std::min_element(found.begin(), found.end());
}

absl::StatusOr<Adapter> ReadAdapter(const fs::path& folder, const Decoder& model) {
  const fs::path config_path = folder / kConfigFile;
  ASSIGN_OR_RETURN(const std::string text, ReadFile(config_path));
  const absl::StatusOr<Json> document = ParseJson(text);
  if (!document.ok()) return Annotate(document.status(), config_path.string());
  Adapter adapter;
  auto config = ReadConfig(Field(&*document, ""));
  if (!config.ok()) return Annotate(config.status(), config_path.string());
  adapter.config = *std::move(config);
  const fs::path weights = folder / kWeightsFile;
  std::error_code ignored;
  if (!fs::exists(weights, ignored) && fs::exists(folder / kPickledFile, ignored)) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder.string(), ": found ", kPickledFile, ", but needed is ", kWeightsFile));
  }
  ASSIGN_OR_RETURN(const auto file, Safetensors::OpenFile(weights));
  const absl::Status read = ReadTensors(*file, model, &adapter);
  if (!read.ok()) return Annotate(read, weights.string());
  return adapter;
}

void Attach(const Adapter& adapter, double scale, Decoder& model) {
  SetWhole(adapter, model);
  for (const LinearModule& module : model.parameters().linears()) {
    const auto found = adapter.modules.find(module.path);
    if (found == adapter.modules.end()) continue;
    LowRank low_rank = found->second;
    low_rank.a = low_rank.a.to(model.device());
    low_rank.b = low_rank.b.to(model.device());
    low_rank.scale *= scale;
    low_rank.dropout = 0;
    module.adapters->push_back(std::move(low_rank));
  }
}

void Merge(const Adapter& adapter, double scale, Decoder& model) {
  const at::NoGradGuard no_grad;
  SetWhole(adapter, model);
  for (const LinearModule& module : model.parameters().linears()) {
    const auto found = adapter.modules.find(module.path);
    if (found == adapter.modules.end()) continue;
    const LowRank& low_rank = found->second;
    const at::Tensor delta = at::mm(low_rank.b.to(model.device()).to(at::kFloat),
                                    low_rank.a.to(model.device()).to(at::kFloat)) *
                             (low_rank.scale * scale);
    const at::Tensor rows = module.weight->narrow(0, module.first_row, module.out);
    rows.copy_(rows.to(at::kFloat) + delta);
  }
}

absl::Status WriteAdapter(const fs::path& folder, const LoraConfig& config,
                          const std::string& base_model, bool fan_in_fan_out,
                          const std::vector<NamedTensor>& tensors) {
  const char* bias = config.bias == LoraBias::kNone  ? "none"
                     : config.bias == LoraBias::kAll ? "all"
                                                     : "lora_only";
  Json ranks = Json::object(), alphas = Json::object();
  for (const auto& [path, rank] : config.rank_pattern) ranks[path] = rank;
  for (const auto& [path, alpha] : config.alpha_pattern) alphas[path] = alpha;
  const auto number = [](double value) {  // PEFT's lora_alpha is an integer as a rule
    return value == std::floor(value) ? Json(static_cast<int64_t>(value)) : Json(value);
  };
  const Json document = {{"peft_type", "LORA"},
                         {"task_type", "CAUSAL_LM"},
                         {"base_model_name_or_path", base_model},
                         {"revision", nullptr},
                         {"r", config.r},
                         {"lora_alpha", number(config.alpha)},
                         {"lora_dropout", config.dropout},
                         {"bias", bias},
                         {"target_modules", config.target_modules},
                         {"fan_in_fan_out", fan_in_fan_out},
                         {"use_rslora", config.use_rslora},
                         {"use_dora", false},
                         {"init_lora_weights", true},
                         {"inference_mode", true},
                         {"modules_to_save", nullptr},
                         {"rank_pattern", ranks},
                         {"alpha_pattern", alphas},
                         {"layers_to_transform", nullptr},
                         {"layers_pattern", nullptr}};
  RETURN_IF_ERROR(WriteSafetensors(folder / kWeightsFile, tensors));
  return WriteFileAtomically(folder / kConfigFile, DumpJson(document, 2) + "\n");
}

}  // namespace flowmesh::model
