#include "executors/retrieval/markdown.h"

#include <cmark.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "common/yaml.h"

namespace flowmesh::retrieval {
namespace {

// Of the indentation of nested lists: a line of marks must not make every line long.
constexpr size_t kDeepest = 40;

// Takes the YAML away that site generators read, between lines of `---` at the very beginning, and
// returns its title.
std::string TakeFrontMatter(std::string_view& markdown) {
  if (!markdown.starts_with("---\n") && !markdown.starts_with("---\r\n")) return "";
  const size_t end = markdown.find("\n---", 3);
  if (end == std::string_view::npos || end < 4) return "";
  const size_t rest = markdown.find('\n', end + 1);
  if (!Trim(markdown.substr(end + 4, rest == std::string_view::npos ? rest : rest - end - 4))
           .empty()) {
    return "";
  }
  const absl::StatusOr<Json> yaml = ParseYaml(markdown.substr(4, end - 4), DoubledKeys::kLastWins);
  if (!yaml.ok() || !yaml->is_object()) return "";
  markdown.remove_prefix(rest == std::string_view::npos ? markdown.size() : rest + 1);
  return yaml->contains("title") ? JsonToText((*yaml)["title"]) : "";
}

class Writer {
 public:
  MarkdownText Write(cmark_node* document) {
    const std::unique_ptr<cmark_iter, void (*)(cmark_iter*)> walk(cmark_iter_new(document),
                                                                  cmark_iter_free);
    cmark_event_type event;
    while ((event = cmark_iter_next(walk.get())) != CMARK_EVENT_DONE) {
      cmark_node* const node = cmark_iter_get_node(walk.get());
      if (event == CMARK_EVENT_ENTER) {
        Enter(node);
      } else {
        Leave(node);
      }
    }
    return std::move(out_);
  }

 private:
  static bool IsBlock(cmark_node* node) {
    const cmark_node_type type = cmark_node_get_type(node);
    return type >= CMARK_NODE_FIRST_BLOCK && type <= CMARK_NODE_LAST_BLOCK;
  }

  // Newlines between a block and those around it.
  static int BreaksAround(cmark_node* node) {
    cmark_node* list = cmark_node_parent(node);
    if (list != nullptr && cmark_node_get_type(list) == CMARK_NODE_ITEM) {
      list = cmark_node_parent(list);
    }
    return list != nullptr && cmark_node_get_list_tight(list) ? 1 : 2;
  }

  static std::string_view LiteralOf(cmark_node* node) {
    const char* literal = cmark_node_get_literal(node);
    return literal == nullptr ? "" : literal;
  }

  void Enter(cmark_node* node) {
    if (IsBlock(node)) breaks_ = std::max(breaks_, BreaksAround(node));
    switch (cmark_node_get_type(node)) {
      case CMARK_NODE_LIST:
        numbers_.push_back(cmark_node_get_list_start(node));
        break;
      case CMARK_NODE_ITEM:
        EnterItem(node);
        break;
      case CMARK_NODE_HEADING:
        EnterHeading(node);
        break;
      case CMARK_NODE_CODE_BLOCK:
      case CMARK_NODE_HTML_BLOCK:
        Lines(LiteralOf(node));
        breaks_ = BreaksAround(node);
        break;
      case CMARK_NODE_TEXT:
      case CMARK_NODE_CODE:
      case CMARK_NODE_HTML_INLINE:
        Text(LiteralOf(node));
        break;
      case CMARK_NODE_SOFTBREAK:
      case CMARK_NODE_LINEBREAK:
        if (is_in_heading_) {
          Text(" ");
        } else {
          breaks_ = 1;
        }
        break;
      default:
        break;
    }
  }

  void Leave(cmark_node* node) {
    switch (cmark_node_get_type(node)) {
      case CMARK_NODE_LIST:
        numbers_.pop_back();
        break;
      case CMARK_NODE_ITEM:
        indents_.pop_back();
        mark_.clear();
        break;
      case CMARK_NODE_HEADING:
        is_in_heading_ = false;
        if (title_begin_) {
          out_.headings.back().title = Trim(std::string_view(out_.text).substr(*title_begin_));
        }
        title_begin_.reset();
        break;
      default:
        break;
    }
    if (IsBlock(node)) breaks_ = std::max(breaks_, BreaksAround(node));
  }

  void EnterItem(cmark_node* node) {
    const bool is_ordered = cmark_node_get_list_type(cmark_node_parent(node)) == CMARK_ORDERED_LIST;
    const std::string mark = is_ordered ? absl::StrCat(numbers_.back()++, ". ") : "- ";
    const size_t indent = indents_.empty() ? 0 : indents_.back();
    if (mark_.empty()) mark_ = std::string(indent, ' ');
    if (mark_.size() < kDeepest) mark_ += mark;
    indents_.push_back(std::min(indent + mark.size(), kDeepest));
  }

  void EnterHeading(cmark_node* node) {
    StartLine();
    const cmark_node_type above = cmark_node_get_type(cmark_node_parent(node));
    if (above == CMARK_NODE_DOCUMENT) out_.headings.push_back({out_.text.size(), ""});
    out_.text.append(static_cast<size_t>(cmark_node_get_heading_level(node)), '#');
    out_.text += ' ';
    if (above == CMARK_NODE_DOCUMENT) title_begin_ = out_.text.size();
    is_in_heading_ = true;
  }

  // Writes the newlines that are due, and what stands before the line's text.
  void StartLine() {
    if (breaks_ == 0) return;
    if (!out_.text.empty()) out_.text.append(static_cast<size_t>(breaks_), '\n');
    out_.text += mark_.empty() ? std::string(indents_.empty() ? 0 : indents_.back(), ' ') : mark_;
    mark_.clear();
    breaks_ = 0;
  }

  void Text(std::string_view text) {
    StartLine();
    out_.text += text;
  }

  void Lines(std::string_view lines) {
    while (!lines.empty()) {
      const size_t end = std::min(lines.find('\n'), lines.size());
      if (end == 0) {
        ++breaks_;
      } else {
        Text(lines.substr(0, end));
        breaks_ = 1;
      }
      lines.remove_prefix(std::min(end + 1, lines.size()));
    }
  }

  MarkdownText out_;
  int breaks_ = 1;               // newlines before the next text
  std::vector<int> numbers_;     // of the next items of the lists around
  std::vector<size_t> indents_;  // of the text of the items around
  std::string mark_;             // of an item, due before its text; empty: none
  bool is_in_heading_ = false;
  std::optional<size_t> title_begin_;  // of the heading, where it is one of `headings`
};

}  // namespace

MarkdownText ReadMarkdown(std::string_view markdown) {
  std::string title = TakeFrontMatter(markdown);
  const std::unique_ptr<cmark_node, void (*)(cmark_node*)> document(
      cmark_parse_document(markdown.data(), markdown.size(), CMARK_OPT_DEFAULT), cmark_node_free);
  MarkdownText out = Writer().Write(document.get());
  out.title = std::move(title);
  return out;
}

}  // namespace flowmesh::retrieval
