#include "executors/text/gguf_export.h"

#include <algorithm>
#include <set>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "common/strings.h"
#include "executors/text/gguf_tokenizer.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

constexpr char kSpace[] = "\u2581";  // stands for a space

using Ids = absl::flat_hash_map<absl::string_view, size_t>;

struct Merge {
  size_t left, right;  // token ids
  float score;         // of what they become
};

// A vocabulary is a map here: texts that occur twice, or are no text at all, get names that no text
// is cut into. The last of equals keeps its text, as in the GGUF tokenizer.
void MakeUnique(std::vector<std::string>& tokens) {
  absl::flat_hash_map<std::string, size_t> last;
  for (size_t i = 0; i < tokens.size(); ++i) last[tokens[i]] = i;
  for (size_t i = 0; i < tokens.size(); ++i) {
    if (last[tokens[i]] == i && IsValidUtf8(tokens[i])) continue;
    std::string name = absl::StrCat("[UNUSABLE_", i, "]");
    while (last.contains(name)) name += "_";
    last[name] = i;
    tokens[i] = std::move(name);
  }
}

Ids IdsOf(const std::vector<std::string>& tokens) {
  Ids ids;
  ids.reserve(tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) ids[tokens[i]] = i;
  return ids;
}

// Orders merges of one score: of two that want the same symbol, the one to whose right it is comes
// first, as scores let the leftmost pair in a text win. Where that has no answer (`a b` and `b a`)
// the order stays.
void OrderEquals(std::vector<Merge>::iterator begin, std::vector<Merge>::iterator end) {
  const std::vector<Merge> merges(begin, end);
  absl::flat_hash_map<size_t, size_t> before;              // merges to come whose right is the key
  absl::flat_hash_map<size_t, std::vector<size_t>> after;  // merges whose left is the key
  for (size_t i = 0; i < merges.size(); ++i) {
    after[merges[i].left].push_back(i);
    if (merges[i].left != merges[i].right) ++before[merges[i].right];
  }
  std::set<size_t> ready, waiting;
  for (size_t i = 0; i < merges.size(); ++i) {
    (before.contains(merges[i].left) ? waiting : ready).insert(i);
  }
  while (begin != end) {
    std::set<size_t>& from = ready.empty() ? waiting : ready;
    const Merge& next = merges[*from.begin()];
    from.erase(from.begin());
    *begin++ = next;
    if (next.left == next.right || --before[next.right] > 0) continue;
    for (const size_t freed : after[next.right]) {
      if (waiting.erase(freed) > 0) ready.insert(freed);
    }
  }
}

// Every pair of tokens whose joined text is a token, the best score first.
std::vector<Merge> MergesOfScores(const GgufVocabulary& v, const Ids& ids) {
  std::vector<Merge> merges;
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const absl::string_view token = v.tokens[id];
    for (size_t cut = Utf8Length(static_cast<unsigned char>(token[0])); cut < token.size();
         cut += Utf8Length(static_cast<unsigned char>(token[cut]))) {
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left != ids.end() && right != ids.end()) {
        merges.push_back({left->second, right->second, v.scores[id]});
      }
    }
  }
  std::stable_sort(merges.begin(), merges.end(),
                   [](const Merge& a, const Merge& b) { return a.score > b.score; });
  for (auto begin = merges.begin(); begin != merges.end();) {
    const auto end = std::find_if(begin, merges.end(),
                                  [&](const Merge& merge) { return merge.score != begin->score; });
    OrderEquals(begin, end);
    begin = end;
  }
  return merges;
}

// The merges of the file whose parts and result are tokens; others cannot be written.
std::vector<Merge> StoredMerges(const GgufVocabulary& v, const Ids& ids) {
  std::vector<Merge> merges;
  for (const std::string& merge : v.merges) {
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos) continue;  // llama.cpp never finds such a merge either
    const std::string left = merge.substr(0, space), right = merge.substr(space + 1);
    const auto left_id = ids.find(left), right_id = ids.find(right);
    if (left_id == ids.end() || right_id == ids.end() || !ids.contains(left + right)) continue;
    merges.push_back({left_id->second, right_id->second, 0});
  }
  return merges;
}

// Large lists are written as text at once: a Json map of as many keys would take minutes.
std::string ModelJson(const GgufVocabulary& v, const Json& settings) {
  const Ids ids = IdsOf(v.tokens);
  std::vector<std::string> quoted;
  quoted.reserve(v.tokens.size());
  for (const std::string& token : v.tokens) quoted.push_back(DumpJson(token));
  std::string text = DumpJson(settings);
  text.pop_back();  // its brace
  text += ",\"vocab\":{";
  for (size_t id = 0; id < quoted.size(); ++id) {
    absl::StrAppend(&text, id == 0 ? "" : ",", quoted[id], ":", id);
  }
  text += "},\"merges\":[";
  const char* comma = "";
  for (const Merge& merge : v.model == "llama" ? MergesOfScores(v, ids) : StoredMerges(v, ids)) {
    absl::StrAppend(&text, comma, "[", quoted[merge.left], ",", quoted[merge.right], "]");
    comma = ",";
  }
  text += "]}";
  return text;
}

// Tokens that are cut out of raw text.
Json AddedTokens(const GgufVocabulary& v) {
  Json added = Json::array();
  for (size_t id = 0; id < v.tokens.size(); ++id) {
    const TokenKind kind = KindOf(v.tokens[id], v.token_types[id]);
    const bool is_special = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
    if (!is_special && kind != TokenKind::kUserDefined) continue;
    added.push_back({{"id", id},
                     {"content", v.tokens[id]},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", is_special}});
  }
  return added;
}

// BOS and EOS around a text; null when there is neither.
Json PostProcessor(const GgufVocabulary& v) {
  if (!*v.add_bos && !*v.add_eos) return nullptr;
  Json single = Json::array(), pair = Json::array(), special = Json::object();
  const auto add_special = [&](int64_t id, Json& list, int type) {
    const std::string& token = v.tokens[static_cast<size_t>(id)];
    special[token] = {{"id", token}, {"ids", {id}}, {"tokens", {token}}};
    list.push_back({{"SpecialToken", {{"id", token}, {"type_id", type}}}});
  };
  const auto add_text = [&](const char* name, Json& list, int type) {
    if (*v.add_bos) add_special(*v.bos_id, list, type);
    list.push_back({{"Sequence", {{"id", name}, {"type_id", type}}}});
    if (*v.add_eos) add_special(*v.eos_id, list, type);
  };
  add_text("A", single, 0);
  add_text("A", pair, 0);
  add_text("B", pair, 1);
  return {{"type", "TemplateProcessing"},
          {"single", std::move(single)},
          {"pair", std::move(pair)},
          {"special_tokens", std::move(special)}};
}

Json Sequence(const char* key, Json parts) {
  return {{"type", "Sequence"}, {key, std::move(parts)}};
}

Json Replace(const char* from, const char* to) {
  return {{"type", "Replace"}, {"pattern", {{"String", from}}}, {"content", to}};
}

// The parts around the model.
struct Parts {
  Json normalizer, pre_tokenizer, decoder;
  Json model = {{"type", "BPE"},
                {"dropout", nullptr},
                {"unk_token", nullptr},
                {"continuing_subword_prefix", nullptr},
                {"end_of_word_suffix", nullptr},
                {"fuse_unk", false},
                {"byte_fallback", false},
                {"ignore_merges", false}};
};

Parts SpmParts(const GgufVocabulary& v) {
  Parts parts;
  Json normalizers = Json::array(), decoders = Json::array();
  // Normalizers run on each stretch between special tokens, empty ones stay empty.
  if (*v.add_space_prefix) normalizers.push_back({{"type", "Prepend"}, {"prepend", kSpace}});
  normalizers.push_back(Replace(" ", kSpace));
  decoders.push_back(Replace(kSpace, " "));
  decoders.push_back({{"type", "ByteFallback"}});
  decoders.push_back({{"type", "Fuse"}});
  if (*v.add_space_prefix) {
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  parts.normalizer = Sequence("normalizers", std::move(normalizers));
  parts.decoder = Sequence("decoders", std::move(decoders));
  parts.model["byte_fallback"] = true;
  if (v.unk_id) parts.model["unk_token"] = v.tokens[static_cast<size_t>(*v.unk_id)];
  return parts;
}

Parts ByteLevelParts(const GgufVocabulary& v) {
  const PreTokenizerRule rule = *FindPreTokenizerRule(v.pre);
  Parts parts;
  Json pre_tokenizers = Json::array();
  for (const std::string_view pattern : rule.patterns) {
    pre_tokenizers.push_back({{"type", "Split"},
                              {"pattern", {{"Regex", std::string(pattern)}}},
                              {"behavior", "Isolated"},
                              {"invert", false}});
  }
  const Json byte_level = {{"type", "ByteLevel"},
                           {"add_prefix_space", false},
                           {"trim_offsets", true},
                           {"use_regex", false}};
  pre_tokenizers.push_back(byte_level);
  parts.pre_tokenizer = Sequence("pretokenizers", std::move(pre_tokenizers));
  parts.decoder = byte_level;
  parts.model["ignore_merges"] = rule.ignore_merges;
  return parts;
}

std::string TokenizerJson(const GgufVocabulary& v) {
  const Parts parts = v.model == "llama" ? SpmParts(v) : ByteLevelParts(v);
  const Json document = {{"version", "1.0"},
                         {"truncation", nullptr},
                         {"padding", nullptr},
                         {"added_tokens", AddedTokens(v)},
                         {"normalizer", parts.normalizer},
                         {"pre_tokenizer", parts.pre_tokenizer},
                         {"post_processor", PostProcessor(v)},
                         {"decoder", parts.decoder}};
  std::string text = DumpJson(document);
  text.pop_back();
  return absl::StrCat(text, ",\"model\":", ModelJson(v, parts.model), "}\n");
}

std::string ConfigJson(const GgufVocabulary& v, int64_t max_length) {
  // A class that takes tokenizer.json as it is; by itself it gives token types too, which decoders
  // refuse.
  Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                 {"model_input_names", {"input_ids", "attention_mask"}},
                 {"model_max_length", max_length},
                 {"clean_up_tokenization_spaces", false}};
  const auto add = [&](const char* name, const std::optional<int64_t>& id) {
    if (id) config[name] = v.tokens[static_cast<size_t>(*id)];
  };
  add("bos_token", v.bos_id);
  add("eos_token", v.eos_id);
  add("unk_token", v.unk_id);
  add("pad_token", v.pad_id);
  if (!v.tool_template.empty()) {
    config["chat_template"] = {{{"name", "default"}, {"template", v.chat_template}},
                               {{"name", "tool_use"}, {"template", v.tool_template}}};
  } else if (!v.chat_template.empty()) {
    config["chat_template"] = v.chat_template;
  }
  return DumpJson(config, 2) + "\n";
}

}  // namespace

absl::StatusOr<TokenizerFiles> ExportGgufTokenizer(GgufVocabulary vocabulary, int64_t max_length) {
  RETURN_IF_ERROR(CompleteVocabulary(&vocabulary));
  MakeUnique(vocabulary.tokens);
  return TokenizerFiles{TokenizerJson(vocabulary), ConfigJson(vocabulary, max_length)};
}

}  // namespace flowmesh::text
