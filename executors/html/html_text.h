// What a person reads of an HTML page, as text in the manner of Markdown: headings, lists, links.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "common/status.h"

namespace flowmesh::html {

struct Heading {
  size_t begin = 0;  // of its line in the text, in bytes
  std::string title;
};

struct Page {
  std::string title;
  std::string text;  // blocks apart by empty lines; `# ` headings, `- ` list items, `[text](URL)`
  std::vector<Heading> headings;
};

struct HtmlOptions {
  std::string url;  // what relative links are resolved against; empty: links are left out
  size_t max_tree = 128u << 20;  // bytes that the parsed page may take
  absl::Duration max_time = absl::Seconds(10);
};

// The page of `html`, UTF-8; broken HTML is read as browsers do. Scripts, styles and navigation are
// left out. ResourceExhausted: a page made to take more than its bounds.
absl::StatusOr<Page> ReadHtml(std::string_view html, const HtmlOptions& options = {});

}  // namespace flowmesh::html
