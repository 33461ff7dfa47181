#include "executors/text/tokenizer_config.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/text/tokenizer_document.h"

namespace flowmesh::text {
namespace {

constexpr std::string_view kRoles[] = {"bos_token", "eos_token", "unk_token", "sep_token",
                                       "pad_token", "cls_token", "mask_token"};
constexpr std::string_view kAdditional = "additional_special_tokens";

// A JSON file of `folder`, an empty map when it does not exist.
absl::StatusOr<Json> ReadOptionalJson(const std::filesystem::path& folder, std::string_view name) {
  absl::StatusOr<std::string> text = ReadFile(folder / name, uint64_t{1} << 28);
  if (absl::IsNotFound(text.status())) return Json::object();
  if (!text.ok()) return text.status();
  absl::StatusOr<TokenizerDocument> document = ParseTokenizerDocument(*text);
  if (!document.ok()) return Annotate(document.status(), name);
  if (!document->root.is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(ToAbsl(name), ": expected a map"));
  }
  return std::move(document->root);
}

std::string WithoutFast(std::string name) {
  if (name.ends_with("Fast") && name != "PreTrainedTokenizerFast") name.resize(name.size() - 4);
  return name;
}

// The class that Transformers picks when no file names one.
std::string ClassOfModelType(std::string_view type) {
  static const std::map<std::string_view, std::string_view> kClasses = {
      {"llama", "LlamaTokenizer"},       {"mistral", "LlamaTokenizer"},
      {"mixtral", "LlamaTokenizer"},     {"gemma", "GemmaTokenizer"},
      {"gemma2", "GemmaTokenizer"},      {"gemma3", "GemmaTokenizer"},
      {"gemma3_text", "GemmaTokenizer"}, {"qwen2", "Qwen2Tokenizer"},
      {"qwen3", "Qwen2Tokenizer"},       {"gpt2", "GPT2Tokenizer"},
      {"bert", "BertTokenizer"},         {"distilbert", "DistilBertTokenizer"},
      {"roberta", "RobertaTokenizer"},   {"xlm-roberta", "XLMRobertaTokenizer"},
      {"albert", "AlbertTokenizer"},     {"t5", "T5Tokenizer"}};
  const auto found = kClasses.find(type);
  return found == kClasses.end() ? std::string() : std::string(found->second);
}

using Defaults = std::map<std::string_view, std::string_view>;

// The special tokens that a class has unless its configuration says otherwise.
const Defaults& DefaultTokens(std::string_view tokenizer_class) {
  static const Defaults kNone;
  static const Defaults kBert = {{"unk_token", "[UNK]"},
                                 {"sep_token", "[SEP]"},
                                 {"pad_token", "[PAD]"},
                                 {"cls_token", "[CLS]"},
                                 {"mask_token", "[MASK]"}};
  static const Defaults kRoberta = {
      {"bos_token", "<s>"},   {"eos_token", "</s>"},  {"sep_token", "</s>"},   {"cls_token", "<s>"},
      {"unk_token", "<unk>"}, {"pad_token", "<pad>"}, {"mask_token", "<mask>"}};
  static const std::map<std::string_view, Defaults> kByClass = {
      {"LlamaTokenizer", {{"unk_token", "<unk>"}, {"bos_token", "<s>"}, {"eos_token", "</s>"}}},
      {"GemmaTokenizer",
       {{"unk_token", "<unk>"},
        {"bos_token", "<bos>"},
        {"eos_token", "<eos>"},
        {"pad_token", "<pad>"}}},
      {"GPT2Tokenizer",
       {{"unk_token", "<|endoftext|>"},
        {"bos_token", "<|endoftext|>"},
        {"eos_token", "<|endoftext|>"}}},
      {"Qwen2Tokenizer",
       {{"unk_token", "<|endoftext|>"},
        {"eos_token", "<|endoftext|>"},
        {"pad_token", "<|endoftext|>"}}},
      {"BertTokenizer", kBert},
      {"DistilBertTokenizer", kBert},
      {"RobertaTokenizer", kRoberta},
      {"XLMRobertaTokenizer", kRoberta},
      {"AlbertTokenizer",
       {{"bos_token", "[CLS]"},
        {"eos_token", "[SEP]"},
        {"unk_token", "<unk>"},
        {"sep_token", "[SEP]"},
        {"pad_token", "<pad>"},
        {"cls_token", "[CLS]"},
        {"mask_token", "[MASK]"}}},
      {"T5Tokenizer", {{"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}}}};
  const auto found = kByClass.find(tokenizer_class);
  return found == kByClass.end() ? kNone : found->second;
}

// A bare text or a map with attributes.
absl::StatusOr<NamedToken> ReadNamedToken(std::string_view name, const Field& value) {
  NamedToken named;
  named.name = std::string(name);
  if (value.json().is_string()) {
    named.plain = true;
    ASSIGN_OR_RETURN(named.token.content, value.String());
  } else if (value.json().is_object()) {
    ASSIGN_OR_RETURN(named.token, ReadAddedToken(value));
  } else {
    return value.Expected("a token's text or a map with its content");
  }
  return named;
}

// `map`, where it is not null, goes before `config` (files older than added_tokens_decoder).
absl::Status ReadSpecialTokens(const Json& config, const Json* map, TokenizerConfig& out) {
  const auto field = [&](std::string_view name) {
    const Field of_config = Field(&config, "")[name];
    if (map == nullptr) return of_config;
    return map->contains(std::string(name)) ? Field(map, "special_tokens_map.json")[name]
                                            : of_config;
  };
  const auto is_named = [&](std::string_view name) {
    const std::string key(name);
    return config.contains(key) || (map != nullptr && map->contains(key));
  };
  const Defaults& defaults = DefaultTokens(out.tokenizer_class);
  for (const std::string_view role : kRoles) {
    if (const Field value = field(role); value.present()) {
      ASSIGN_OR_RETURN(NamedToken named, ReadNamedToken(role, value));
      out.special_tokens.push_back(std::move(named));
    } else if (const auto found = defaults.find(role); found != defaults.end() && !is_named(role)) {
      NamedToken named{std::string(role), {}, true, true};
      named.token.content = std::string(found->second);
      out.special_tokens.push_back(std::move(named));
    }
  }
  const Field additional = field(kAdditional);
  RETURN_IF_ERROR(additional.CheckList());
  for (size_t i = 0; i < additional.size(); ++i) {
    ASSIGN_OR_RETURN(NamedToken named, ReadNamedToken(kAdditional, additional[i]));
    out.special_tokens.push_back(std::move(named));
  }
  return absl::OkStatus();
}

bool IsNamedSpecial(const TokenizerConfig& config, const std::string& content) {
  return std::any_of(config.special_tokens.begin(), config.special_tokens.end(),
                     [&](const NamedToken& named) { return named.token.content == content; });
}

absl::Status ReadAddedTokensDecoder(const Field& decoder, TokenizerConfig& out) {
  RETURN_IF_ERROR(decoder.CheckMap());
  std::map<int64_t, AddedToken> tokens;
  for (const auto& [key, value] : decoder.json().items()) {
    int64_t id = 0;
    const Field entry(&value, absl::StrCat(decoder.path(), "[\"", key, "\"]"));
    if (!absl::SimpleAtoi(key, &id)) return entry.Error("expected a token id as the key");
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(entry));
    token.special = token.special || IsNamedSpecial(out, token.content);
    tokens.emplace(id, std::move(token));
  }
  for (auto& [id, token] : tokens) out.added_tokens.push_back(std::move(token));
  return absl::OkStatus();
}

// added_tokens.json: {"content": id}.
absl::Status ReadLegacyAddedTokens(const Json& file, TokenizerConfig& out) {
  std::map<int64_t, AddedToken> tokens;
  for (const auto& [content, value] : file.items()) {
    ASSIGN_OR_RETURN(
        const int64_t id,
        Field(&value, absl::StrCat("added_tokens.json[\"", content.substr(0, 100), "\"]")).Int(0));
    AddedToken token;
    token.content = content;
    token.special = IsNamedSpecial(out, content);
    token.normalized = !token.special;
    tokens.emplace(id, std::move(token));
  }
  for (auto& [id, token] : tokens) out.added_tokens.push_back(std::move(token));
  return absl::OkStatus();
}

// One template, or a list of named ones.
absl::Status ReadChatTemplates(const Field& field, TokenizerConfig& out) {
  if (!field.json().is_array()) {
    ASSIGN_OR_RETURN(out.chat_template, field.StringOr(""));
    return absl::OkStatus();
  }
  for (size_t i = 0; i < field.size(); ++i) {
    ASSIGN_OR_RETURN(const std::string name, field[i]["name"].StringOr(""));
    if (name == "default") {
      ASSIGN_OR_RETURN(out.chat_template, field[i]["template"].String());
    } else if (name == "tool_use") {
      ASSIGN_OR_RETURN(out.tool_template, field[i]["template"].String());
    }
  }
  return absl::OkStatus();
}

// Files come before what the configuration says.
void ReadTemplateFiles(const std::filesystem::path& folder, TokenizerConfig& out) {
  constexpr uint64_t kMaxBytes = 1 << 24;
  auto chat = ReadFile(folder / "chat_template.jinja", kMaxBytes);
  auto tools = ReadFile(folder / "additional_chat_templates/tool_use.jinja", kMaxBytes);
  if (!chat.ok() && !tools.ok()) return;
  out.chat_template = std::move(chat).value_or("");
  out.tool_template = std::move(tools).value_or("");
}

absl::Status ReadSettings(const Field& config, TokenizerConfig& out) {
  ASSIGN_OR_RETURN(out.add_prefix_space, config["add_prefix_space"].BoolOr(false));
  ASSIGN_OR_RETURN(out.do_lower_case, config["do_lower_case"].BoolOr(true));
  ASSIGN_OR_RETURN(out.tokenize_chinese_chars, config["tokenize_chinese_chars"].BoolOr(true));
  if (config["strip_accents"].present()) {
    ASSIGN_OR_RETURN(out.strip_accents, config["strip_accents"].Bool());
  }
  out.own_template =
      out.tokenizer_class == "LlamaTokenizer" || out.tokenizer_class == "GemmaTokenizer";
  // For other classes add_bos_token matters only where GPT-2 files are converted.
  ASSIGN_OR_RETURN(out.add_bos, config["add_bos_token"].BoolOr(out.own_template));
  ASSIGN_OR_RETURN(out.add_eos, config["add_eos_token"].BoolOr(false));
  if (config["model_max_length"].present()) {
    ASSIGN_OR_RETURN(const double length, config["model_max_length"].Number());
    constexpr double kMeansNone = 1e15;  // Transformers writes 1e30 for no limit
    if (length < 1) return config["model_max_length"].Expected("a positive integer");
    if (length <= kMeansNone) out.model_max_length = static_cast<int64_t>(length);
  }
  return ReadChatTemplates(config["chat_template"], out);
}

absl::StatusOr<std::string> ReadTokenizerClass(const Json& config,
                                               const std::filesystem::path& folder,
                                               std::string_view default_class) {
  ASSIGN_OR_RETURN(std::string name, Field(&config, "")["tokenizer_class"].StringOr(""));
  if (!name.empty()) return WithoutFast(std::move(name));
  ASSIGN_OR_RETURN(const Json model, ReadOptionalJson(folder, "config.json"));
  const Field model_field(&model, "config.json");
  ASSIGN_OR_RETURN(name, model_field["tokenizer_class"].StringOr(""));
  if (!name.empty()) return WithoutFast(std::move(name));
  ASSIGN_OR_RETURN(const std::string type, model_field["model_type"].StringOr(""));
  name = ClassOfModelType(type);
  return name.empty() ? std::string(default_class) : name;
}

}  // namespace

absl::StatusOr<TokenizerConfig> ReadTokenizerConfig(const std::filesystem::path& folder,
                                                    std::string_view default_class) {
  constexpr std::string_view kFile = "tokenizer_config.json";
  ASSIGN_OR_RETURN(const Json config, ReadOptionalJson(folder, kFile));
  const Field root(&config, "");
  TokenizerConfig out;
  ASSIGN_OR_RETURN(out.tokenizer_class, ReadTokenizerClass(config, folder, default_class));
  out.has_added_tokens = root["added_tokens_decoder"].present();
  Json map, legacy;
  if (!out.has_added_tokens) {
    ASSIGN_OR_RETURN(map, ReadOptionalJson(folder, "special_tokens_map.json"));
    ASSIGN_OR_RETURN(legacy, ReadOptionalJson(folder, "added_tokens.json"));
  }
  if (absl::Status status = ReadSpecialTokens(config, out.has_added_tokens ? nullptr : &map, out);
      !status.ok()) {
    return Annotate(status, kFile);
  }
  if (out.has_added_tokens) {
    const absl::Status status = ReadAddedTokensDecoder(root["added_tokens_decoder"], out);
    if (!status.ok()) return Annotate(status, kFile);
  } else {
    RETURN_IF_ERROR(ReadLegacyAddedTokens(legacy, out));
  }
  if (absl::Status status = ReadSettings(root, out); !status.ok()) return Annotate(status, kFile);
  ReadTemplateFiles(folder, out);
  return out;
}

void ApplyOverrides(const TokenizerConfig& config, Json& root) {
  if (!root.is_object()) return;
  const Field pre_tokenizer = Field(&root, "")["pre_tokenizer"];
  if (pre_tokenizer["type"].json() == "ByteLevel") {
    root["pre_tokenizer"]["add_prefix_space"] = config.add_prefix_space;
  }
  const bool is_bert = config.tokenizer_class == "BertTokenizer" ||
                       config.tokenizer_class == "DistilBertTokenizer" ||
                       config.tokenizer_class == "ElectraTokenizer";
  if (is_bert && Field(&root, "")["normalizer"]["type"].json() == "BertNormalizer") {
    Json& normalizer = root["normalizer"];
    normalizer["lowercase"] = config.do_lower_case;
    normalizer["handle_chinese_chars"] = config.tokenize_chinese_chars;
    normalizer["strip_accents"] =
        config.strip_accents.has_value() ? Json(*config.strip_accents) : Json();
  }
}

}  // namespace flowmesh::text
