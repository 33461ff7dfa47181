// What stands beside a tokenizer.json: tokenizer_config.json, special_tokens_map.json,
// added_tokens.json, chat_template.jinja and the model_type of config.json, read with the rules of
// Transformers 4.57's fast tokenizers.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "executors/text/added_tokens.h"

namespace flowmesh::text {

// A special token with a role.
struct NamedToken {
  std::string name;  // `bos_token`, `eos_token`, ..., `additional_special_tokens`
  AddedToken token;
  bool plain = false;       // given as a bare text, without attributes
  bool is_default = false;  // the tokenizer class's default; counts only if the token exists
};

struct TokenizerConfig {
  std::string tokenizer_class;  // without `Fast`; empty when unknown
  std::vector<NamedToken> special_tokens;
  // added_tokens_decoder (added_tokens.json where it is absent), by rising id.
  std::vector<AddedToken> added_tokens;
  bool has_added_tokens = false;  // added_tokens_decoder is present
  bool own_template = false;      // add_bos and add_eos replace the post-processor
  bool add_bos = false, add_eos = false;
  bool add_prefix_space = false;
  // BertTokenizer's, which override the normalizer's settings.
  bool do_lower_case = true, tokenize_chinese_chars = true;
  std::optional<bool> strip_accents;
  std::optional<int64_t> model_max_length;
  std::string chat_template, tool_template;  // as Tokenizer's
};

// Files that are absent count as empty. `default_class`: the tokenizer's class when no file names
// one, without `Fast`. InvalidArgument: malformed, by file and field.
absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& folder,
                                                    std::string_view default_class);

// Changes the settings in `root` (a tokenizer.json) that Transformers overrides when it loads one.
// Added tokens are not touched by it: they keep the form that the file's own normalizer gives them.
void ApplyOverrides(const TokenizerConfig& config, Json& root);

}  // namespace flowmesh::text
