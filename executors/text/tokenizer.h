// Text to token ids and back, with the ids of the reference libraries (TASKS.md 5.4): Hugging Face
// tokenizers for `tokenizer.json`, llama.cpp for GGUF files.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flowmesh::text {

using TokenId = int32_t;

// Immutable after construction; all methods are thread-safe.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of `text` (valid UTF-8). `add_special_tokens`: with the tokenizer's own BOS/EOS template.
  // Text that spells an added or special token becomes that token, as in the references.
  virtual std::vector<TokenId> Encode(std::string_view text, bool add_special_tokens) const = 0;

  // Text of `ids`; ids out of range are skipped. No clean-up of spaces. May end in an incomplete
  // UTF-8 sequence only as U+FFFD, as the references do.
  virtual std::string Decode(const std::vector<TokenId>& ids, bool skip_special_tokens) const = 0;

  // Ids from 0 to vocab_size() - 1 exist (added tokens included).
  virtual int vocab_size() const = 0;
  // The token's stored text (`Ġthe`, `<0x0A>`, `</s>`); empty for an unknown id.
  virtual std::string TokenText(TokenId id) const = 0;
  virtual std::optional<TokenId> TokenToId(std::string_view token) const = 0;
  virtual bool IsSpecial(TokenId id) const = 0;

  std::optional<TokenId> bos_id() const { return bos_id_; }
  std::optional<TokenId> eos_id() const { return eos_id_; }
  std::optional<TokenId> pad_id() const { return pad_id_; }
  std::optional<TokenId> unk_id() const { return unk_id_; }
  // Longest input in tokens; nothing when not limited.
  std::optional<int64_t> model_max_length() const { return model_max_length_; }
  // Jinja source, empty when the model has none.
  const std::string& chat_template() const { return chat_template_; }
  // The one that is named `tool_use`, for conversations with tools; empty: the same serves them.
  const std::string& tool_template() const { return tool_template_; }

 protected:
  std::optional<TokenId> bos_id_, eos_id_, pad_id_, unk_id_;
  std::optional<int64_t> model_max_length_;
  std::string chat_template_, tool_template_;
};

// The tokenizer of a Hugging Face model folder: tokenizer.json with tokenizer_config.json and
// special_tokens_map.json, else vocab.json + merges.txt, else vocab.txt.
// NotFound: none of these (a lone `tokenizer.model` is named). InvalidArgument: malformed, or a
// component that is not supported, by its name.
absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFromFolder(
    const std::filesystem::path& folder);

// What a GGUF file says of its tokenizer (`tokenizer.ggml.*`, `tokenizer.chat_template` and
// `tokenizer.chat_template.tool_use`).
struct GgufVocabulary {
  std::string model;  // `llama` or `gpt2`
  std::string pre;    // tokenizer.ggml.pre; empty when absent
  std::vector<std::string> tokens;
  std::vector<float> scores;  // `llama` only
  std::vector<int32_t>
      token_types;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  std::vector<std::string> merges;  // `gpt2` only
  std::optional<int64_t> bos_id, eos_id, unk_id, pad_id;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
  std::string chat_template, tool_template;
};

// InvalidArgument: an unknown model or pre-tokenizer, lists of different lengths, ids out of range.
absl::StatusOr<std::unique_ptr<Tokenizer>> MakeGgufTokenizer(GgufVocabulary vocabulary);

// Turns a growing list of ids into a growing text (TASKS.md 4.1): a leading space survives, bytes
// of an unfinished UTF-8 character are held back. One per sequence; not thread-safe.
class IncrementalDecoder {
 public:
  // `prompt_ids`: the ids that came before, whose tail is the context of the first piece.
  IncrementalDecoder(const Tokenizer* tokenizer, const std::vector<TokenId>& prompt_ids);

  // The text that `id` adds: possibly empty, always whole characters. Special tokens add nothing.
  std::string Append(TokenId id);

 private:
  std::string Decode(size_t begin, size_t end) const;  // text of ids_[begin, end)

  const Tokenizer* tokenizer_;
  std::vector<TokenId> ids_;
  size_t read_begin_ = 0;  // ids_[0, read_begin_) is context, the rest is not wholly emitted yet
  size_t emitted_ = 0;     // bytes of the rest's text that are
};

}  // namespace flowmesh::text
