// Search in arXiv through its Atom interface (https://info.arxiv.org/help/api).
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "common/http.h"
#include "common/strings.h"
#include "executors/agent/tools/check_keys.h"
#include "executors/agent/tools/tool_makers.h"

namespace flowmesh::agent {
namespace {

// The contents of all elements `name` of an XML text, none of which holds another of that name:
// what an Atom feed needs, not more.
std::vector<std::string> Elements(std::string_view xml, const std::string& name) {
  std::vector<std::string> contents;
  const std::string open = absl::StrCat("<", name), close = absl::StrCat("</", name, ">");
  for (size_t at = 0; (at = xml.find(open, at)) != std::string_view::npos;) {
    at += open.size();
    const size_t begin = xml.find('>', at);
    if (begin == std::string_view::npos) break;
    if (xml[at] != '>' && xml[at] != ' ') continue;  // a longer name
    if (xml[begin - 1] == '/') continue;             // empty
    const size_t end = xml.find(close, begin);
    if (end == std::string_view::npos) break;
    contents.emplace_back(xml.substr(begin + 1, end - begin - 1));
    at = end;
  }
  return contents;
}

// On one line, with XML's own entities resolved.
std::string Plain(const std::string& xml) {
  const std::string text = absl::StrReplaceAll(xml, {{"&lt;", "<"},
                                                     {"&gt;", ">"},
                                                     {"&quot;", "\""},
                                                     {"&apos;", "'"},
                                                     {"&#39;", "'"},
                                                     {"&amp;", "&"}});
  return absl::StrJoin(absl::StrSplit(text, absl::ByAnyChar(" \t\r\n"), absl::SkipEmpty()), " ");
}

std::string First(const std::string& xml, const std::string& name) {
  const std::vector<std::string> all = Elements(xml, name);
  return all.empty() ? "" : Plain(all.front());
}

std::string Written(const std::string& feed) {
  std::string out;
  for (const std::string& entry : Elements(feed, "entry")) {
    std::vector<std::string> authors;
    for (const std::string& author : Elements(entry, "author")) {
      authors.push_back(First(author, "name"));
    }
    absl::StrAppend(&out, First(entry, "title"), "\n", First(entry, "id"), "\n",
                    absl::StrJoin(authors, ", "), "; ", First(entry, "published").substr(0, 10),
                    "\n", First(entry, "summary"), "\n\n");
  }
  return out.empty() ? "nothing was found" : std::string(Trim(out));
}

}  // namespace

absl::StatusOr<Tools> MakeArxiv(const Field& options, const ToolEnvironment&) {
  RETURN_IF_ERROR(CheckKeys(options, {"results", "base_url"}));
  ASSIGN_OR_RETURN(const int64_t count, options["results"].IntOr(5, 1, 50));
  ASSIGN_OR_RETURN(const std::string base_url,
                   options["base_url"].StringOr("https://export.arxiv.org"));
  return Tools{MakeTool(
      {.name = "arxiv_search",
       .description = "Searches papers on arXiv. Gives titles, addresses, authors and abstracts.",
       .parameters = Parameters(
           {{"query", "string", "words, or arXiv's query syntax such as au:name AND ti:word"}})},
      [=](const Json& arguments, const ToolContext& context) -> absl::StatusOr<std::string> {
        const std::string query = arguments["query"].get<std::string>();
        const bool has_fields = query.find(':') != std::string::npos;
        ASSIGN_OR_RETURN(
            const HttpResponse response,
            FetchForTool({.url = absl::StrCat(
                              base_url, "/api/query?search_query=",
                              PercentEncoded(has_fields ? query : absl::StrCat("all:", query)),
                              "&max_results=", count)},
                         context));
        return Written(response.body);
      })};
}

}  // namespace flowmesh::agent
