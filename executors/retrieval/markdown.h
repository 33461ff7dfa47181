// Markdown, which cmark parses, as the text that a person reads.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "executors/retrieval/chunker.h"

namespace flowmesh::retrieval {

struct MarkdownText {
  std::string title;  // of its front matter; empty: none
  // Blocks apart by empty lines; `# ` headings, `- ` and `1. ` list items. Links and emphasis are
  // their text, code and HTML as they stand, front matter is left out.
  std::string text;
  std::vector<Heading> headings;  // of the document itself: none in lists and quotes
};

// `markdown`: UTF-8. There is no Markdown that is wrong.
MarkdownText ReadMarkdown(std::string_view markdown);

}  // namespace flowmesh::retrieval
