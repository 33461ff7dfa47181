#include "executors/html/html_text.h"

#include <array>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/http.h"
#include "common/strings.h"
#include "executors/html/parse.h"
#include "executors/html/text_writer.h"

namespace flowmesh::html {
namespace {

// Newlines that stand before and after an element; 0: it stands in a line.
int BreaksAround(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_LI:
    case GUMBO_TAG_TR:
    case GUMBO_TAG_DT:
    case GUMBO_TAG_DD:
    case GUMBO_TAG_OPTION:
    case GUMBO_TAG_BR:
      return 1;
    case GUMBO_TAG_ADDRESS:
    case GUMBO_TAG_ARTICLE:
    case GUMBO_TAG_ASIDE:
    case GUMBO_TAG_BLOCKQUOTE:
    case GUMBO_TAG_DIV:
    case GUMBO_TAG_DL:
    case GUMBO_TAG_FIELDSET:
    case GUMBO_TAG_FIGURE:
    case GUMBO_TAG_FIGCAPTION:
    case GUMBO_TAG_FOOTER:
    case GUMBO_TAG_FORM:
    case GUMBO_TAG_H1:
    case GUMBO_TAG_H2:
    case GUMBO_TAG_H3:
    case GUMBO_TAG_H4:
    case GUMBO_TAG_H5:
    case GUMBO_TAG_H6:
    case GUMBO_TAG_HEADER:
    case GUMBO_TAG_HR:
    case GUMBO_TAG_MAIN:
    case GUMBO_TAG_OL:
    case GUMBO_TAG_P:
    case GUMBO_TAG_PRE:
    case GUMBO_TAG_SECTION:
    case GUMBO_TAG_TABLE:
    case GUMBO_TAG_UL:
      return 2;
    default:
      return 0;
  }
}

bool IsLeftOut(GumboTag tag) {
  switch (tag) {
    case GUMBO_TAG_HEAD:
    case GUMBO_TAG_IFRAME:
    case GUMBO_TAG_NAV:
    case GUMBO_TAG_NOSCRIPT:
    case GUMBO_TAG_OBJECT:
    case GUMBO_TAG_SCRIPT:
    case GUMBO_TAG_SELECT:
    case GUMBO_TAG_STYLE:
    case GUMBO_TAG_SVG:
    case GUMBO_TAG_TEMPLATE:
    case GUMBO_TAG_TEXTAREA:
    case GUMBO_TAG_TITLE:
      return true;
    default:
      return false;
  }
}

bool IsHeading(GumboTag tag) { return tag >= GUMBO_TAG_H1 && tag <= GUMBO_TAG_H6; }

const GumboVector* Children(const GumboNode& node) {
  if (node.type == GUMBO_NODE_ELEMENT) return &node.v.element.children;
  if (node.type == GUMBO_NODE_DOCUMENT) return &node.v.document.children;
  return nullptr;
}

// Walks a tree from its root without recursion, which a page's nesting would bound.
template <typename Enter, typename Leave>
void Walk(const GumboNode& root, const Enter& enter, const Leave& leave) {
  struct Place {
    const GumboNode* node;
    unsigned next;
  };
  if (!enter(root)) return;
  std::vector<Place> path = {{&root, 0}};
  while (!path.empty()) {
    Place& place = path.back();
    const GumboVector* children = Children(*place.node);
    if (children == nullptr || place.next == children->length) {
      leave(*place.node);
      path.pop_back();
      continue;
    }
    const auto& child = *static_cast<const GumboNode*>(children->data[place.next++]);
    if (enter(child)) path.push_back({&child, 0});
  }
}

// The title of the page's head.
std::string TitleOf(const GumboNode& root) {
  std::string title;
  bool is_found = false;
  Walk(
      root,
      [&](const GumboNode& node) {
        if (node.type == GUMBO_NODE_TEXT && !is_found) title += node.v.text.text;
        if (node.type != GUMBO_NODE_ELEMENT || is_found) return false;
        const GumboTag tag = node.v.element.tag;
        return tag == GUMBO_TAG_HTML || tag == GUMBO_TAG_HEAD || tag == GUMBO_TAG_TITLE;
      },
      [&](const GumboNode& node) {
        is_found =
            is_found || (node.type == GUMBO_NODE_ELEMENT && node.v.element.tag == GUMBO_TAG_TITLE);
      });
  return std::string(Trim(title));
}

class PageWriter {
 public:
  explicit PageWriter(const HtmlOptions& options) : options_(options) {}

  void Write(const GumboNode& root, Page* page) {
    Walk(
        root, [this](const GumboNode& node) { return Enter(node); },
        [this](const GumboNode& node) { Leave(node); });
    page->text = out_.Take();
    page->headings = std::move(headings_);
  }

 private:
  struct Link {
    std::string url;
    bool is_open;
  };

  bool Enter(const GumboNode& node) {
    if (node.type == GUMBO_NODE_TEXT || node.type == GUMBO_NODE_WHITESPACE ||
        node.type == GUMBO_NODE_CDATA) {
      OnText(node.v.text.text);
      return false;
    }
    if (node.type != GUMBO_NODE_ELEMENT || IsLeftOut(node.v.element.tag)) return false;
    const GumboTag tag = node.v.element.tag;
    if (const int breaks = BreaksAround(tag)) out_.Break(breaks);
    if (tag == GUMBO_TAG_PRE) ++pre_;
    if (tag == GUMBO_TAG_LI) mark_ = "- ";
    if (IsHeading(tag)) {
      mark_ = std::string(static_cast<size_t>(tag - GUMBO_TAG_H1) + 1, '#') + " ";
    }
    if (tag == GUMBO_TAG_A) links_.push_back({LinkOf(node.v.element), false});
    if ((tag == GUMBO_TAG_TD || tag == GUMBO_TAG_TH) && node.index_within_parent > 0) cell_ = true;
    return true;
  }

  void Leave(const GumboNode& node) {
    const GumboTag tag = node.v.element.tag;
    if (tag == GUMBO_TAG_A) {
      if (links_.back().is_open) out_.Mark(absl::StrCat("](", links_.back().url, ")"));
      links_.pop_back();
    }
    if (tag == GUMBO_TAG_PRE) --pre_;
    if (tag == GUMBO_TAG_TR) cell_ = false;
    if (IsHeading(tag) && title_begin_ > 0) {
      headings_.back().title = Trim(out_.text().substr(title_begin_));
      title_begin_ = 0;
    }
    if (BreaksAround(tag) > 0) mark_.clear();
    if (const int breaks = BreaksAround(tag)) out_.Break(breaks);
  }

  void OnText(std::string_view text) {
    if (pre_ == 0 && Trim(text).empty()) return out_.Text(text, false);
    if (cell_) out_.Mark(" | ", /*glue=*/true);
    cell_ = false;
    if (!mark_.empty()) out_.Mark(mark_, /*glue=*/true);
    if (mark_.starts_with('#')) {
      title_begin_ = out_.text().size();
      headings_.push_back({title_begin_ - mark_.size(), ""});
    }
    mark_.clear();
    if (!links_.empty() && !links_.back().is_open && !links_.back().url.empty()) {
      if (!text.empty() && Trim(text.substr(0, 1)).empty()) out_.Text(" ", false);
      out_.Mark("[", /*glue=*/true);
      links_.back().is_open = true;
    }
    out_.Text(text, pre_ > 0);
  }

  // Where a link leads; empty for those that nobody can follow.
  std::string LinkOf(const GumboElement& element) const {
    const GumboAttribute* href = gumbo_get_attribute(&element.attributes, "href");
    if (href == nullptr || options_.url.empty() || href->value[0] == '#') return "";
    std::string url = ResolveUrl(options_.url, href->value);
    return UrlOrigin(url).empty() ? "" : url;
  }

  const HtmlOptions& options_;
  TextWriter out_;
  std::string mark_;   // due before the next text: a bullet, a heading's signs
  bool cell_ = false;  // the same of a table's cells
  int pre_ = 0;
  std::vector<Link> links_;
  std::vector<Heading> headings_;
  size_t title_begin_ = 0;  // of the last heading, while it is open; 0: none is
};

}  // namespace

absl::StatusOr<Page> ReadHtml(std::string_view html, const HtmlOptions& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<Tree> tree,
                   Tree::Parse(html, options.max_tree, options.max_time));
  Page page{.title = TitleOf(tree->root())};
  PageWriter(options).Write(tree->root(), &page);
  return page;
}

}  // namespace flowmesh::html
