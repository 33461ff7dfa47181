#include "executors/model/sentence_config.h"

#include <map>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "executors/model/checkpoint.h"

namespace flowmesh::model {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kMaxWidth = 1 << 24;  // that no real model passes

// The last part of a dotted name.
std::string LastName(const std::string& name) { return name.substr(name.rfind('.') + 1); }

bool Exists(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

absl::Status ReadTransformer(const fs::path& folder, SentenceConfig* config) {
  config->encoder = folder;
  for (const char* name : {"sentence_bert_config.json", "sentence_roberta_config.json",
                           "sentence_distilbert_config.json"}) {
    const fs::path path = folder / name;
    if (!Exists(path)) continue;
    ASSIGN_OR_RETURN(const Json document, ReadJsonFile(path));
    const Field root(&document, path.string());
    RETURN_IF_ERROR(root.CheckMap());
    if (const Field limit = root["max_seq_length"]; limit.present()) {
      ASSIGN_OR_RETURN(config->max_seq_length, limit.Int(1));
    }
    ASSIGN_OR_RETURN(config->do_lower_case, root["do_lower_case"].BoolOr(false));
    break;
  }
  return absl::OkStatus();
}

absl::Status ReadPooling(const fs::path& folder, SentenceConfig* config) {
  const fs::path path = folder / "config.json";
  ASSIGN_OR_RETURN(const Json document, ReadJsonFile(path));
  const Field root(&document, path.string());
  RETURN_IF_ERROR(root.CheckMap());
  // In the order in which their vectors are put side by side.
  const std::pair<const char*, Pooling> modes[] = {
      {"pooling_mode_cls_token", Pooling::kCls},
      {"pooling_mode_max_tokens", Pooling::kMax},
      {"pooling_mode_mean_tokens", Pooling::kMean},
      {"pooling_mode_mean_sqrt_len_tokens", Pooling::kMeanSqrtLength},
      {"pooling_mode_weightedmean_tokens", Pooling::kWeightedMean},
      {"pooling_mode_lasttoken", Pooling::kLastToken}};
  config->pooling.clear();
  for (const auto& [key, mode] : modes) {
    ASSIGN_OR_RETURN(const bool wanted, root[key].BoolOr(mode == Pooling::kMean));
    if (wanted) config->pooling.push_back(mode);
  }
  if (config->pooling.empty()) return root.Error("expected a pooling_mode that is true");
  return absl::OkStatus();
}

absl::StatusOr<SentenceStep> ReadDense(const fs::path& folder) {
  const fs::path path = folder / "config.json";
  ASSIGN_OR_RETURN(const Json document, ReadJsonFile(path));
  const Field root(&document, path.string());
  RETURN_IF_ERROR(root.CheckMap());
  SentenceStep step{.kind = SentenceStep::Kind::kDense, .folder = folder};
  ASSIGN_OR_RETURN(step.in, root["in_features"].Int(1, kMaxWidth));
  ASSIGN_OR_RETURN(step.out, root["out_features"].Int(1, kMaxWidth));
  ASSIGN_OR_RETURN(step.bias, root["bias"].BoolOr(true));
  using Activation = SentenceStep::Activation;
  static const auto& activations =
      *new std::map<std::string, Activation>{{"Identity", Activation::kIdentity},
                                             {"Tanh", Activation::kTanh},
                                             {"ReLU", Activation::kRelu},
                                             {"GELU", Activation::kGelu}};
  const Field function = root["activation_function"];
  ASSIGN_OR_RETURN(const std::string name, function.StringOr("Tanh"));
  const auto it = activations.find(LastName(name));
  if (it == activations.end()) return function.Expected("Identity, Tanh, ReLU or GELU");
  step.activation = it->second;
  return step;
}

// A path of modules.json, which stays inside the folder.
absl::StatusOr<fs::path> ReadPath(const fs::path& folder, const Field& field) {
  ASSIGN_OR_RETURN(const std::string given, field.StringOr(""));
  const fs::path path = fs::path(given).lexically_normal();
  if (path.is_absolute() || given.find("..") != std::string::npos) {
    return field.Expected("a path inside the model's folder");
  }
  return given.empty() ? folder : folder / path;
}

}  // namespace

absl::StatusOr<SentenceConfig> ReadSentenceConfig(const fs::path& folder) {
  SentenceConfig config;
  const fs::path list = folder / "modules.json";
  if (!Exists(list)) {
    RETURN_IF_ERROR(ReadTransformer(folder, &config));
    config.steps.push_back({.kind = SentenceStep::Kind::kNormalize});
    return config;
  }
  ASSIGN_OR_RETURN(const Json document, ReadJsonFile(list));
  const Field modules(&document, list.string());
  RETURN_IF_ERROR(modules.CheckList());
  if (modules.size() < 2) return modules.Expected("a list of a Transformer, a Pooling and others");
  for (size_t i = 0; i < modules.size(); ++i) {
    const Field type = modules[i]["type"];
    ASSIGN_OR_RETURN(const std::string full_name, type.NonEmptyString());
    ASSIGN_OR_RETURN(const fs::path path, ReadPath(folder, modules[i]["path"]));
    const std::string name = LastName(full_name);
    const bool is_own = name == "Transformer" || name == "Pooling";
    if (is_own != (i < 2) || (is_own && (name == "Transformer") != (i == 0))) {
      return type.Error(absl::StrCat("expected a Transformer, a Pooling, then others, got \"", name,
                                     "\" in place ", i));
    }
    if (name == "Transformer") {
      RETURN_IF_ERROR(ReadTransformer(path, &config));
    } else if (name == "Pooling") {
      RETURN_IF_ERROR(ReadPooling(path, &config));
    } else if (name == "Dense") {
      ASSIGN_OR_RETURN(SentenceStep step, ReadDense(path));
      config.steps.push_back(std::move(step));
    } else if (name == "Normalize") {
      config.steps.push_back({.kind = SentenceStep::Kind::kNormalize});
    } else {
      return type.Expected("a Transformer, Pooling, Dense or Normalize");
    }
  }
  return config;
}

}  // namespace flowmesh::model
