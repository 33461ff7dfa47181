// For tests: the GGUF vocabularies of tests/goldens/tokenizers.
#pragma once

#include "common/json.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {

// The `vocabulary` of a golden: the keys of tokenizer.ggml without the prefix.
inline GgufVocabulary ReadVocabulary(const Json& json) {
  GgufVocabulary v;
  v.model = json["model"].get<std::string>();
  v.pre = json.value("pre", "");
  v.tokens = json["tokens"].get<std::vector<std::string>>();
  v.token_types = json["token_type"].get<std::vector<int32_t>>();
  if (json.contains("scores")) v.scores = json["scores"].get<std::vector<float>>();
  if (json.contains("merges")) v.merges = json["merges"].get<std::vector<std::string>>();
  const auto read_id = [&](const char* key, std::optional<int64_t>& id) {
    if (json.contains(key)) id = json[key].get<int64_t>();
  };
  read_id("bos_id", v.bos_id);
  read_id("eos_id", v.eos_id);
  read_id("unk_id", v.unk_id);
  read_id("pad_id", v.pad_id);
  const auto read_flag = [&](const char* key, std::optional<bool>& flag) {
    if (json.contains(key)) flag = json[key].get<bool>();
  };
  read_flag("add_bos", v.add_bos);
  read_flag("add_eos", v.add_eos);
  read_flag("add_space_prefix", v.add_space_prefix);
  return v;
}

}  // namespace flowmesh::text
