#include "executors/text/regex.h"

#include <oniguruma.h>

#include <list>
#include <mutex>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/text/unicode.h"

namespace flowmesh::text {
namespace {

// Names of our own properties, which stand for \p{L} and \p{N}.
constexpr std::string_view kLetterProperty = "FlowmeshLetter";
constexpr std::string_view kNumberProperty = "FlowmeshNumber";

// Oniguruma keeps the pointer: tables live for ever.
void DefineProperty(std::string_view name, std::span<const CodePointRange> ranges) {
  static auto& tables = *new std::list<std::vector<OnigCodePoint>>;
  std::vector<OnigCodePoint>& table = tables.emplace_back();
  table.push_back(static_cast<OnigCodePoint>(ranges.size()));
  for (const CodePointRange& range : ranges) {
    table.push_back(range.first);
    table.push_back(range.last);
  }
  onig_unicode_define_user_property(std::string(name).c_str(), table.data());
}

void InitializeOnce() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    DefineProperty(kLetterProperty, RegexLetters());
    DefineProperty(kNumberProperty, RegexNumbers());
  });
}

// `pattern` with \p{L} and \p{N} (and \P) naming our own properties.
std::string UseOwnProperties(std::string_view pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size();) {
    if (pattern[i] != '\\' || i + 1 >= pattern.size()) {
      out += pattern[i++];
      continue;
    }
    const std::string_view rest = pattern.substr(i + 1, 4);
    if (rest == "p{L}" || rest == "P{L}" || rest == "p{N}" || rest == "P{N}") {
      absl::StrAppend(&out, "\\", ToAbsl(rest.substr(0, 2)),
                      ToAbsl(rest[2] == 'L' ? kLetterProperty : kNumberProperty), "}");
      i += 5;
    } else {
      out += pattern.substr(i, 2);
      i += 2;
    }
  }
  return out;
}

struct RegionDeleter {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};

}  // namespace

void Regex::Free::operator()(re_pattern_buffer* regex) const { onig_free(regex); }

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  InitializeOnce();
  const std::string own = UseOwnProperties(pattern);
  const auto* begin = reinterpret_cast<const OnigUChar*>(own.data());
  regex_t* regex = nullptr;
  OnigErrorInfo info{};
  const int code = onig_new(&regex, begin, begin + own.size(), ONIG_OPTION_NONE, ONIG_ENCODING_UTF8,
                            ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) {
    OnigUChar message[ONIG_MAX_ERROR_MESSAGE_LEN] = {};
    onig_error_code_to_str(message, code, &info);
    return absl::InvalidArgumentError(absl::StrCat("expected a regular expression, got \"",
                                                   ToAbsl(pattern.substr(0, 200)),
                                                   "\": ", reinterpret_cast<const char*>(message)));
  }
  return Regex(regex);
}

std::vector<Span> Regex::FindSpans(std::string_view text) const {
  if (text.empty()) return {{0, 0, false}};
  std::unique_ptr<OnigRegion, RegionDeleter> region(onig_region_new());
  const auto* begin = reinterpret_cast<const OnigUChar*>(text.data());
  const auto* end = begin + text.size();
  std::vector<Span> spans;
  size_t covered = 0;  // spans cover text[0, covered)
  size_t search_from = 0;
  std::optional<size_t> last_end;
  while (search_from <= text.size()) {
    const int found = onig_search(regex_.get(), begin, end, begin + search_from, end, region.get(),
                                  ONIG_OPTION_NONE);
    if (found < 0) break;  // no further match, or the engine's backtracking limit
    const size_t match_begin = static_cast<size_t>(region->beg[0]);
    const size_t match_end = static_cast<size_t>(region->end[0]);
    if (match_begin == match_end && last_end == match_end) {
      // An empty match right after the last one is none.
      search_from +=
          search_from < text.size() ? Utf8Length(static_cast<unsigned char>(text[search_from])) : 1;
      continue;
    }
    if (covered < match_begin) spans.push_back({covered, match_begin, false});
    spans.push_back({match_begin, match_end, true});
    covered = search_from = match_end;
    last_end = match_end;
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), false});
  return spans;
}

std::string EscapeRegex(std::string_view literal) {
  std::string out;
  for (const char c : literal) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~/ ").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace flowmesh::text
