#include "executors/model/gguf.h"

namespace flowmesh::model {
namespace {

absl::StatusOr<std::optional<int64_t>> OptionalInt(const GgufFile& file, std::string_view key) {
  if (!file.Has(key)) return std::nullopt;
  ASSIGN_OR_RETURN(const int64_t value, file.Int(key));
  return value;
}

absl::StatusOr<std::optional<bool>> OptionalBool(const GgufFile& file, std::string_view key) {
  if (!file.Has(key)) return std::nullopt;
  ASSIGN_OR_RETURN(const bool value, file.Bool(key));
  return value;
}

absl::StatusOr<std::string> StringOrEmpty(const GgufFile& file, std::string_view key) {
  if (!file.Has(key)) return std::string();
  return file.String(key);
}

}  // namespace

absl::StatusOr<text::GgufVocabulary> ReadGgufVocabulary(const GgufFile& file) {
  text::GgufVocabulary v;
  ASSIGN_OR_RETURN(v.model, file.String("tokenizer.ggml.model"));
  ASSIGN_OR_RETURN(v.pre, StringOrEmpty(file, "tokenizer.ggml.pre"));
  ASSIGN_OR_RETURN(v.tokens, file.StringList("tokenizer.ggml.tokens"));
  if (file.Has("tokenizer.ggml.scores")) {
    ASSIGN_OR_RETURN(const std::vector<double> scores, file.NumberList("tokenizer.ggml.scores"));
    v.scores.assign(scores.begin(), scores.end());
  }
  if (file.Has("tokenizer.ggml.token_type")) {
    ASSIGN_OR_RETURN(const std::vector<int64_t> types, file.IntList("tokenizer.ggml.token_type"));
    v.token_types.assign(types.begin(), types.end());
  }
  if (file.Has("tokenizer.ggml.merges")) {
    ASSIGN_OR_RETURN(v.merges, file.StringList("tokenizer.ggml.merges"));
  }
  ASSIGN_OR_RETURN(v.bos_id, OptionalInt(file, "tokenizer.ggml.bos_token_id"));
  ASSIGN_OR_RETURN(v.eos_id, OptionalInt(file, "tokenizer.ggml.eos_token_id"));
  ASSIGN_OR_RETURN(v.unk_id, OptionalInt(file, "tokenizer.ggml.unknown_token_id"));
  ASSIGN_OR_RETURN(v.pad_id, OptionalInt(file, "tokenizer.ggml.padding_token_id"));
  ASSIGN_OR_RETURN(v.add_bos, OptionalBool(file, "tokenizer.ggml.add_bos_token"));
  ASSIGN_OR_RETURN(v.add_eos, OptionalBool(file, "tokenizer.ggml.add_eos_token"));
  ASSIGN_OR_RETURN(v.add_space_prefix, OptionalBool(file, "tokenizer.ggml.add_space_prefix"));
  ASSIGN_OR_RETURN(v.chat_template, StringOrEmpty(file, "tokenizer.chat_template"));
  ASSIGN_OR_RETURN(v.tool_template, StringOrEmpty(file, "tokenizer.chat_template.tool_use"));
  return v;
}

}  // namespace flowmesh::model
