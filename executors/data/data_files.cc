#include "executors/data/data_files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/field.h"
#include "common/strings.h"
#include "common/yaml.h"
#include "executors/data/read_table.h"

namespace flowmesh::data {
namespace {

using Names = std::vector<std::string>;

struct SplitWords {
  const char* split;
  std::vector<std::string_view> words;
};

const std::array<SplitWords, 3>& KnownSplits() {
  static const std::array<SplitWords, 3> splits = {
      {{"train", {"train", "training"}},
       {"validation", {"validation", "valid", "val", "dev"}},
       {"test", {"test", "testing", "eval", "evaluation"}}}};
  return splits;
}

bool IsHidden(std::string_view name) {
  return absl::StartsWith(ToAbsl(name), ".") || absl::StrContains(ToAbsl(name), "/.");
}

// Files with rows, in name order.
Names DataFiles(const Names& names) {
  Names files;
  for (const std::string& name : names) {
    if (!IsHidden(name) && FormatOfName(name)) files.push_back(name);
  }
  std::sort(files.begin(), files.end());
  return files;
}

// Only the files of the format that most have; of equals the one that comes first in name order.
void KeepMostFrequentFormat(std::vector<SplitFiles>& splits) {
  std::map<Format, size_t> counts;
  std::vector<Format> seen;
  for (const SplitFiles& split : splits) {
    for (const std::string& file : split.files) {
      const Format format = *FormatOfName(file);
      if (counts[format]++ == 0) seen.push_back(format);
    }
  }
  if (seen.size() < 2) return;
  const Format kept = *std::max_element(seen.begin(), seen.end(),
                                        [&](Format a, Format b) { return counts[a] < counts[b]; });
  for (SplitFiles& split : splits) {
    std::erase_if(split.files, [&](const std::string& file) { return FormatOfName(file) != kept; });
  }
  std::erase_if(splits, [](const SplitFiles& split) { return split.files.empty(); });
}

SplitFiles& SplitNamed(std::vector<SplitFiles>& splits, const std::string& name) {
  for (SplitFiles& split : splits) {
    if (split.name == name) return split;
  }
  return splits.emplace_back(SplitFiles{.name = name});
}

// train, validation and test first, then others by name.
void SortSplits(std::vector<SplitFiles>& splits) {
  const auto rank = [](const SplitFiles& split) {
    size_t place = 0;
    for (const SplitWords& known : KnownSplits()) {
      if (split.name == known.split) return place;
      ++place;
    }
    return place;
  };
  std::sort(splits.begin(), splits.end(), [&](const SplitFiles& a, const SplitFiles& b) {
    return std::pair(rank(a), a.name) < std::pair(rank(b), b.name);
  });
}

size_t CountDigits(std::string_view text) {
  size_t count = 0;
  while (count < text.size() && std::isdigit(static_cast<unsigned char>(text[count]))) ++count;
  return count;
}

// The split of `data/<split>-NNNNN-of-NNNNN*`.
std::optional<std::string> ShardedSplit(std::string_view name) {
  constexpr std::string_view kFolder = "data/", kOf = "-of-";
  if (name.substr(0, kFolder.size()) != kFolder) return std::nullopt;
  name.remove_prefix(kFolder.size());
  if (name.find('/') != std::string_view::npos) return std::nullopt;
  for (size_t of = name.find(kOf); of != std::string_view::npos; of = name.find(kOf, of + 1)) {
    if (of < 7 || name[of - 6] != '-') continue;
    if (CountDigits(name.substr(of - 5)) == 5 && CountDigits(name.substr(of + kOf.size())) >= 5) {
      return std::string(name.substr(0, of - 6));
    }
  }
  return std::nullopt;
}

bool IsSeparator(char c) {
  return std::string_view("/-_. 0123456789").find(c) != std::string_view::npos;
}

bool HasWord(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != std::string_view::npos; at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || IsSeparator(text[at - 1])) && (end == text.size() || IsSeparator(text[end]))) {
      return true;
    }
  }
  return false;
}

// Files by the split words in a part of their names, which `part` cuts out.
std::vector<SplitFiles> ByWords(const Names& files, std::string_view (*part)(std::string_view)) {
  std::vector<SplitFiles> splits;
  for (const SplitWords& known : KnownSplits()) {
    SplitFiles split{.name = known.split};
    for (const std::string& file : files) {
      const bool matches = std::any_of(known.words.begin(), known.words.end(),
                                       [&](auto word) { return HasWord(part(file), word); });
      if (matches) split.files.push_back(file);
    }
    if (!split.files.empty()) splits.push_back(std::move(split));
  }
  return splits;
}

std::string_view FolderPart(std::string_view name) {
  const size_t slash = name.rfind('/');
  return name.substr(0, slash == std::string_view::npos ? 0 : slash);
}

std::string_view FilePart(std::string_view name) {
  const size_t slash = name.rfind('/');
  return slash == std::string_view::npos ? name : name.substr(slash + 1);
}

// The first scheme that matches anything, used alone.
std::vector<SplitFiles> BySchemes(const Names& files) {
  std::vector<SplitFiles> splits;
  for (const std::string& file : files) {
    if (const auto split = ShardedSplit(file)) SplitNamed(splits, *split).files.push_back(file);
  }
  if (splits.empty()) splits = ByWords(files, FolderPart);
  if (splits.empty()) splits = ByWords(files, FilePart);
  SortSplits(splits);
  KeepMostFrequentFormat(splits);
  return splits;
}

// The YAML between the first two lines of `---`; empty without.
std::string_view FrontMatter(std::string_view readme) {
  if (readme.substr(0, 3) == "\xef\xbb\xbf") readme.remove_prefix(3);
  if (readme.substr(0, 3) != "---") return "";
  const size_t begin = readme.find('\n');
  if (begin == std::string_view::npos) return "";
  const size_t end = readme.find("\n---", begin);
  return end == std::string_view::npos ? "" : readme.substr(begin + 1, end - begin);
}

// Patterns of one split: a string or a list of them.
absl::StatusOr<Names> ReadPatterns(const Field& field) {
  if (field.json().is_array()) return field.StringList();
  ASSIGN_OR_RETURN(std::string pattern, field.NonEmptyString());
  return Names{std::move(pattern)};
}

Names Matching(const Names& files, const Names& patterns) {
  Names matching;
  for (const std::string& file : files) {
    const bool matches = std::any_of(patterns.begin(), patterns.end(), [&](const auto& pattern) {
      return MatchesPattern(pattern, file);
    });
    if (matches) matching.push_back(file);
  }
  return matching;
}

// An entry of `configs:`.
absl::StatusOr<Configuration> ReadConfiguration(const Field& block, const Names& files) {
  Configuration result;
  ASSIGN_OR_RETURN(result.name, block["config_name"].StringOr("default"));
  ASSIGN_OR_RETURN(result.is_default, block["default"].BoolOr(false));
  const Field data_files = block["data_files"];
  if (!data_files.present()) {
    ASSIGN_OR_RETURN(const std::string folder, block["data_dir"].StringOr(""));
    result.splits = BySchemes(folder.empty() ? files : Matching(files, {folder + "/**"}));
    return result;
  }
  if (data_files.size() > 0 && data_files[0].json().is_object()) {
    for (size_t i = 0; i < data_files.size(); ++i) {
      ASSIGN_OR_RETURN(const std::string split, data_files[i]["split"].NonEmptyString());
      ASSIGN_OR_RETURN(const Names patterns, ReadPatterns(data_files[i]["path"]));
      SplitNamed(result.splits, split).files = Matching(files, patterns);
    }
  } else {
    ASSIGN_OR_RETURN(const Names patterns, ReadPatterns(data_files));
    result.splits = {{.name = "train", .files = Matching(files, patterns)}};
  }
  std::erase_if(result.splits, [](const SplitFiles& split) { return split.files.empty(); });
  KeepMostFrequentFormat(result.splits);
  return result;
}

// The configurations of a front matter, which may have none.
absl::StatusOr<std::vector<Configuration>> ListedConfigurations(std::string_view front_matter,
                                                                const Names& files) {
  ASSIGN_OR_RETURN(const Json yaml, ParseYaml(front_matter, DoubledKeys::kLastWins));
  const Field configs = Field(&yaml, "")["configs"];
  RETURN_IF_ERROR(configs.CheckList());
  std::vector<Configuration> result;
  for (size_t i = 0; i < configs.size(); ++i) {
    ASSIGN_OR_RETURN(Configuration configuration, ReadConfiguration(configs[i], files));
    result.push_back(std::move(configuration));
  }
  return result;
}

}  // namespace

// Step by step over all prefixes of the name at once, so that no pattern of a stranger takes long.
bool MatchesPattern(std::string_view pattern, std::string_view name) {
  if (pattern.substr(0, 2) == "./") pattern.remove_prefix(2);
  std::vector<bool> reached(name.size() + 1);  // whether what came of the pattern fits name[0, i)
  reached[0] = true;
  while (!pattern.empty()) {
    std::vector<bool> next(name.size() + 1);
    size_t step = 1;
    if (pattern.substr(0, 3) == "**/") {  // folders, or none
      step = 3;
      bool any = false;
      for (size_t i = 0; i <= name.size(); ++i) {
        next[i] = reached[i] || (any && name[i - 1] == '/');
        any = any || reached[i];
      }
    } else if (pattern[0] == '*') {
      const bool crosses = pattern.substr(0, 2) == "**";
      step = crosses ? 2 : 1;
      for (size_t i = 0; i <= name.size(); ++i) {
        next[i] = reached[i] || (i > 0 && next[i - 1] && (crosses || name[i - 1] != '/'));
      }
    } else {
      for (size_t i = 0; i < name.size(); ++i) {
        const bool fits = pattern[0] == '?' ? name[i] != '/' : pattern[0] == name[i];
        next[i + 1] = reached[i] && fits;
      }
    }
    reached = std::move(next);
    pattern.remove_prefix(step);
  }
  return reached[name.size()];
}

absl::StatusOr<std::vector<Configuration>> FindConfigurations(const Names& names,
                                                              std::string_view readme) {
  const Names files = DataFiles(names);
  const std::string_view text = FrontMatter(readme);
  if (!Trim(text).empty()) {
    auto listed = ListedConfigurations(text, files);
    if (!listed.ok()) return Annotate(listed.status(), "README.md: its front matter");
    if (!listed->empty()) return listed;
  }
  std::vector<Configuration> result;
  Configuration configuration{.name = "default", .is_default = true, .splits = BySchemes(files)};
  if (!configuration.splits.empty()) result.push_back(std::move(configuration));
  return result;
}

std::vector<Configuration> ConvertedConfigurations(const Names& names) {
  std::vector<Configuration> result;
  for (const std::string& name : DataFiles(names)) {
    const std::vector<std::string> parts = absl::StrSplit(name, '/');
    if (parts.size() != 3 || !absl::EndsWith(name, ".parquet")) continue;
    if (result.empty() || result.back().name != parts[0]) result.push_back({.name = parts[0]});
    SplitNamed(result.back().splits, parts[1]).files.push_back(name);
  }
  for (Configuration& configuration : result) SortSplits(configuration.splits);
  return result;
}

std::vector<Configuration> AllFilesAsTrain(const Names& names) {
  std::vector<SplitFiles> splits = {{.name = "train", .files = DataFiles(names)}};
  if (splits[0].files.empty()) return {};
  KeepMostFrequentFormat(splits);
  return {{.name = "default", .is_default = true, .splits = std::move(splits)}};
}

}  // namespace flowmesh::data
