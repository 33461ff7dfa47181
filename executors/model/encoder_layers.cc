#include "executors/model/encoder_layers.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>

namespace flowmesh::model {
namespace {

// Every token attends to all tokens of its sequence. q, k, v: [tokens, hidden] -> [tokens, hidden].
at::Tensor AttendToAll(const std::vector<at::Tensor>& qkv, int64_t num_heads,
                       const std::vector<int64_t>& lengths) {
  std::vector<at::Tensor> results;
  for (const EqualRun& run : EqualRuns(lengths)) {
    // [count, heads, length, head_dim]
    const auto by_head = [&](const at::Tensor& x) {
      return x.narrow(0, run.begin, run.count * run.length)
          .unflatten(0, {run.count, run.length})
          .unflatten(2, {num_heads, -1})
          .transpose(1, 2);
    };
    const at::Tensor mixed =
        at::scaled_dot_product_attention(by_head(qkv[0]), by_head(qkv[1]), by_head(qkv[2]));
    results.push_back(mixed.transpose(1, 2).flatten(2).flatten(0, 1));
  }
  return at::cat(results);
}

}  // namespace

EncoderNames BertNames(const std::string& body) {
  return {.body = body,
          .layers = "encoder.layer",
          .attention = "attention.self",
          .qkv = {"query", "key", "value"},
          .attention_output = "attention.output.dense",
          .attention_norm = "attention.output.LayerNorm",
          .up = "intermediate.dense",
          .down = "output.dense",
          .norm = "output.LayerNorm"};
}

std::vector<EqualRun> EqualRuns(const std::vector<int64_t>& lengths) {
  std::vector<EqualRun> runs;
  int64_t begin = 0;
  for (const int64_t length : lengths) {
    if (runs.empty() || runs.back().length != length) runs.push_back({begin, 0, length});
    ++runs.back().count;
    begin += length;
  }
  return runs;
}

EncoderEmbeddings::EncoderEmbeddings(const ParameterScope& scope, const EncoderConfig& c)
    : words_(scope / "word_embeddings", c.vocab_size, c.hidden_size),
      positions_(scope / "position_embeddings", c.positions, c.hidden_size),
      norm_(scope / "LayerNorm", c.hidden_size, c.norm_eps) {
  if (c.types > 0) types_.emplace(scope / "token_type_embeddings", c.types, c.hidden_size);
}

at::Tensor EncoderEmbeddings::operator()(const at::Tensor& ids, const at::Tensor& positions) const {
  at::Tensor x = words_(ids, at::kFloat);
  if (types_) x = x + types_->weight()[0];
  return norm_(x + positions_(positions, at::kFloat));
}

EncoderLayer::EncoderLayer(const ParameterScope& scope, const EncoderConfig& c,
                           const EncoderNames& names)
    : num_heads_(c.num_heads),
      activation_(c.activation),
      qkv_(scope / names.attention, names.qkv, c.hidden_size,
           {c.hidden_size, c.hidden_size, c.hidden_size}, true),
      attention_output_(scope / names.attention_output, c.hidden_size, c.hidden_size, true,
                        Split::kColumns),
      attention_norm_(scope / names.attention_norm, c.hidden_size, c.norm_eps),
      up_(scope / names.up, c.hidden_size, c.intermediate_size, true, Split::kRows),
      down_(scope / names.down, c.intermediate_size, c.hidden_size, true, Split::kColumns),
      norm_(scope / names.norm, c.hidden_size, c.norm_eps) {}

at::Tensor EncoderLayer::operator()(const at::Tensor& x,
                                    const std::vector<int64_t>& lengths) const {
  const at::Tensor mixed = AttendToAll(qkv_(x), num_heads_, lengths);
  const at::Tensor attended = attention_norm_(x + attention_output_(mixed));
  return norm_(attended + down_(Activate(up_(attended), activation_)));
}

}  // namespace flowmesh::model
