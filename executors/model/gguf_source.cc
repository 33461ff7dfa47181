#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "executors/model/dequantize.h"
#include "executors/model/weight_source.h"

namespace flowmesh::model {
namespace {

using NameMap = std::map<std::string, std::string>;

// Hugging Face's names outside the layers.
const NameMap& TopNames() {
  static const auto& names = *new NameMap{{"model.embed_tokens.weight", "token_embd.weight"},
                                          {"model.norm.weight", "output_norm.weight"},
                                          {"lm_head.weight", "output.weight"},
                                          {"transformer.wte.weight", "token_embd.weight"},
                                          {"transformer.wpe.weight", "position_embd.weight"},
                                          {"transformer.ln_f.weight", "output_norm.weight"},
                                          {"transformer.ln_f.bias", "output_norm.bias"}};
  return names;
}

// The parts of a layer, after `model.layers.<n>.` and without `.weight` or `.bias`.
const NameMap& LayerNames(Family family) {
  static const NameMap& gpt2 = *new NameMap{
      {"ln_1", "attn_norm"}, {"attn.c_attn", "attn_qkv"}, {"attn.c_proj", "attn_output"},
      {"ln_2", "ffn_norm"},  {"mlp.c_fc", "ffn_up"},      {"mlp.c_proj", "ffn_down"}};
  static const NameMap& llama =
      *new NameMap{{"input_layernorm", "attn_norm"},    {"self_attn.q_proj", "attn_q"},
                   {"self_attn.k_proj", "attn_k"},      {"self_attn.v_proj", "attn_v"},
                   {"self_attn.o_proj", "attn_output"}, {"self_attn.q_norm", "attn_q_norm"},
                   {"self_attn.k_norm", "attn_k_norm"}, {"post_attention_layernorm", "ffn_norm"},
                   {"mlp.gate_proj", "ffn_gate"},       {"mlp.up_proj", "ffn_up"},
                   {"mlp.down_proj", "ffn_down"}};
  static const NameMap& gemma = *new NameMap([] {
    NameMap names = llama;
    names["post_attention_layernorm"] = "post_attention_norm";
    names["pre_feedforward_layernorm"] = "ffn_norm";
    names["post_feedforward_layernorm"] = "post_ffw_norm";
    return names;
  }());
  if (family == Family::kGpt2) return gpt2;
  return family == Family::kGemma2 || family == Family::kGemma3 ? gemma : llama;
}

class GgufSource : public WeightSource {
 public:
  GgufSource(const GgufFile& file, const ModelConfig& config)
      : file_(file),
        family_(config.family),
        num_heads_(config.num_heads),
        num_kv_heads_(config.num_kv_heads) {}

  std::optional<std::vector<int64_t>> ShapeOf(const StoredName& name) const override {
    const GgufTensor* tensor = file_.FindTensor(FileName(name.name));
    if (tensor == nullptr) return std::nullopt;
    return tensor->shape;
  }

  void Read(const StoredName& name, const at::Tensor& out) const override {
    const GgufTensor& tensor = *file_.FindTensor(FileName(name.name));
    if (const int64_t heads = PermutedHeads(name.name); heads > 0) {
      const at::Tensor interleaved = at::empty(out.sizes(), out.options());
      Dequantize(tensor.type, tensor.data, interleaved);
      const int64_t half = out.size(0) / heads / 2;
      const int64_t rest = out.numel() / out.size(0);
      out.view({heads, 2, half, rest})
          .copy_(interleaved.view({heads, half, 2, rest}).transpose(1, 2));
    } else if (IsGemmaNorm(name.name)) {
      const at::Tensor one_plus = at::empty(out.sizes(), at::TensorOptions(at::kFloat));
      Dequantize(tensor.type, tensor.data, one_plus);
      out.copy_(one_plus - 1);
    } else {
      Dequantize(tensor.type, tensor.data, out);
    }
    file_.file().Release(tensor.data);
  }

  std::string DisplayName(const StoredName& name) const override { return FileName(name.name); }
  std::string Location() const override { return file_.path().string(); }

  std::vector<std::string> Unused(const std::vector<StoredName>& used) const override {
    std::set<std::string> names = {"rope_freqs.weight"};  // part of the configuration
    for (const StoredName& name : used) names.insert(FileName(name.name));
    std::vector<std::string> unused;
    for (const GgufTensor& tensor : file_.tensors()) {
      if (!names.contains(tensor.name)) unused.push_back(tensor.name);
    }
    return unused;
  }

 private:
  // `model.layers.3.mlp.up_proj.weight` is `blk.3.ffn_up.weight`.
  std::string FileName(const std::string& name) const {
    if (const auto it = TopNames().find(name); it != TopNames().end()) return it->second;
    const std::string prefix = family_ == Family::kGpt2 ? "transformer.h." : "model.layers.";
    const size_t dot = name.find('.', prefix.size());
    const size_t last = name.rfind('.');
    const std::string stem = name.substr(dot + 1, last - dot - 1);
    return absl::StrCat("blk.", name.substr(prefix.size(), dot - prefix.size()), ".",
                        LayerNames(family_).at(stem), name.substr(last));
  }

  // How many heads the rows of a `llama` file's q and k are; 0 where rows are in order.
  int64_t PermutedHeads(const std::string& name) const {
    if (family_ != Family::kLlama) return 0;
    if (absl::StrContains(name, ".q_proj.")) return num_heads_;
    return absl::StrContains(name, ".k_proj.") ? num_kv_heads_ : 0;
  }

  bool IsGemmaNorm(const std::string& name) const {
    return (family_ == Family::kGemma2 || family_ == Family::kGemma3) &&
           absl::StrContains(name, "norm.");
  }

  const GgufFile& file_;
  const Family family_;
  const int64_t num_heads_, num_kv_heads_;
};

}  // namespace

std::unique_ptr<WeightSource> MakeGgufSource(const GgufFile& file, const ModelConfig& config) {
  return std::make_unique<GgufSource>(file, config);
}

}  // namespace flowmesh::model
