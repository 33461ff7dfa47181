// LoadTokenizerFromFolder: finds the files of a model folder and, for folders without a
// tokenizer.json, builds the document that Transformers would convert them to.
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files.h"
#include "common/strings.h"
#include "executors/text/hf_tokenizer.h"
#include "executors/text/tokenizer.h"

namespace flowmesh::text {
namespace {

constexpr uint64_t kLargestFile = uint64_t{1} << 30;

absl::StatusOr<TokenizerDocument> ReadTokenizerJson(const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kLargestFile));
  return ParseTokenizerDocument(text);
}

std::vector<std::string_view> Lines(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    std::string_view line = text.substr(0, end);
    if (line.ends_with('\r')) line.remove_suffix(1);
    lines.push_back(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

// vocab.json and merges.txt: GPT-2, or the Qwen2 and RoBERTa variants where the class says so.
absl::StatusOr<TokenizerDocument> ConvertGpt2(const std::filesystem::path& folder,
                                              const TokenizerConfig& config) {
  TokenizerDocument document;
  ASSIGN_OR_RETURN(const std::string vocab, ReadFile(folder / "vocab.json", kLargestFile));
  absl::StatusOr<std::vector<std::pair<std::string, int64_t>>> entries = ParseVocabulary(vocab);
  if (!entries.ok()) return Annotate(entries.status(), "vocab.json");
  document.vocab = *std::move(entries);
  ASSIGN_OR_RETURN(const std::string merges, ReadFile(folder / "merges.txt", kLargestFile));
  document.merges.emplace();
  int number = 0;
  for (const std::string_view line : Lines(merges)) {
    ++number;
    if (line.empty() || line.starts_with("#version")) continue;
    auto halves = SplitMerge(line);
    if (!halves.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("merges.txt line ", number, ": expected two tokens and a space between"));
    }
    document.merges->push_back(*std::move(halves));
  }
  Json& root = document.root;
  root = Json::object();
  root["model"] = {{"type", "BPE"}};
  root["decoder"] = {{"type", "ByteLevel"}};
  root["pre_tokenizer"] = {{"type", "ByteLevel"}, {"add_prefix_space", config.add_prefix_space}};
  if (config.tokenizer_class == "Qwen2Tokenizer") {
    constexpr std::string_view kQwen2 =
        R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
    root["normalizer"] = {{"type", "NFC"}};
    Json split = {{"type", "Split"}, {"behavior", "Isolated"}, {"invert", false}};
    split["pattern"] = {{"Regex", std::string(kQwen2)}};
    Json byte_level = {{"type", "ByteLevel"}, {"use_regex", false}};
    byte_level["add_prefix_space"] = config.add_prefix_space;
    root["pre_tokenizer"] = {{"type", "Sequence"}};
    root["pre_tokenizer"]["pretokenizers"] = Json::array({split, byte_level});
  }
  return document;
}

// vocab.txt: BERT.
absl::StatusOr<TokenizerDocument> ConvertBert(const std::filesystem::path& folder,
                                              const TokenizerConfig& config) {
  TokenizerDocument document;
  ASSIGN_OR_RETURN(const std::string text, ReadFile(folder / "vocab.txt", kLargestFile));
  document.vocab.emplace();
  int64_t id = 0;
  for (const std::string_view line : Lines(text)) {
    document.vocab->emplace_back(std::string(line), id++);
  }
  Json& root = document.root;
  root = Json::object();
  root["model"] = {{"type", "WordPiece"}};
  root["normalizer"] = {{"type", "BertNormalizer"}, {"lowercase", config.do_lower_case}};
  root["normalizer"]["handle_chinese_chars"] = config.tokenize_chinese_chars;
  if (config.strip_accents.has_value()) root["normalizer"]["strip_accents"] = *config.strip_accents;
  root["pre_tokenizer"] = {{"type", "BertPreTokenizer"}};
  root["decoder"] = {{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}};
  return document;
}

// The id of the special token `role` in a converted vocabulary.
absl::StatusOr<int64_t> IdOf(std::string_view role, const TokenizerConfig& config,
                             const TokenizerDocument& document) {
  for (const NamedToken& named : config.special_tokens) {
    if (named.name != role) continue;
    for (const auto& [text, id] : *document.vocab) {
      if (text == named.token.content) return id;
    }
    return absl::InvalidArgumentError(absl::StrCat(
        ToAbsl(role), ": \"", named.token.content.substr(0, 100), "\" is not in the vocabulary"));
  }
  return absl::InvalidArgumentError(absl::StrCat(ToAbsl(role), " is not set"));
}

// [CLS] text [SEP] for BERT and RoBERTa, BOS for GPT-2 with add_bos_token.
absl::Status AddTemplate(const TokenizerConfig& config, bool is_bert, TokenizerDocument& document) {
  Json& root = document.root;
  if (is_bert || config.tokenizer_class == "RobertaTokenizer") {
    ASSIGN_OR_RETURN(const int64_t cls, IdOf("cls_token", config, document));
    ASSIGN_OR_RETURN(const int64_t sep, IdOf("sep_token", config, document));
    root["post_processor"] = {{"type", "BertProcessing"}};
    root["post_processor"]["cls"] = Json::array({"", cls});
    root["post_processor"]["sep"] = Json::array({"", sep});
  } else if (config.add_bos && !config.own_template) {
    ASSIGN_OR_RETURN(const int64_t bos, IdOf("bos_token", config, document));
    Json& processor = root["post_processor"] = {{"type", "TemplateProcessing"}};
    processor["single"] = Json::array();
    processor["single"].push_back(Json{{"SpecialToken", Json{{"id", "bos"}}}});
    processor["single"].push_back(Json{{"Sequence", Json{{"id", "A"}}}});
    processor["special_tokens"] = Json{{"bos", Json{{"ids", Json::array({bos})}}}};
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizerFromFolder(
    const std::filesystem::path& folder) {
  const auto exists = [&](std::string_view name) {
    std::error_code ignored;
    return std::filesystem::exists(folder / name, ignored);
  };
  std::string source;
  TokenizerConfig config;
  TokenizerDocument document;
  if (exists("tokenizer.json")) {
    source = "tokenizer.json";
    ASSIGN_OR_RETURN(config, ReadTokenizerConfig(folder, /*default_class=*/""));
    absl::StatusOr<TokenizerDocument> read = ReadTokenizerJson(folder / source);
    if (!read.ok()) return Annotate(read.status(), source);
    document = *std::move(read);
  } else if (exists("vocab.json") && exists("merges.txt")) {
    source = "vocab.json";
    ASSIGN_OR_RETURN(config, ReadTokenizerConfig(folder, "GPT2Tokenizer"));
    ASSIGN_OR_RETURN(document, ConvertGpt2(folder, config));
    RETURN_IF_ERROR(AddTemplate(config, /*is_bert=*/false, document));
  } else if (exists("vocab.txt")) {
    source = "vocab.txt";
    ASSIGN_OR_RETURN(config, ReadTokenizerConfig(folder, "BertTokenizer"));
    ASSIGN_OR_RETURN(document, ConvertBert(folder, config));
    RETURN_IF_ERROR(AddTemplate(config, /*is_bert=*/true, document));
  } else if (exists("tokenizer.model")) {
    return absl::NotFoundError(
        absl::StrCat(folder.string(),
                     ": holds tokenizer.model (SentencePiece) but no tokenizer.json; save the "
                     "tokenizer with Transformers to get one"));
  } else {
    return absl::NotFoundError(absl::StrCat(
        folder.string(), ": no tokenizer.json, no vocab.json with merges.txt, no vocab.txt"));
  }
  absl::StatusOr<std::unique_ptr<Tokenizer>> made = HfTokenizer::Make(std::move(document), config);
  if (!made.ok()) return Annotate(made.status(), source);
  return made;
}

}  // namespace flowmesh::text
