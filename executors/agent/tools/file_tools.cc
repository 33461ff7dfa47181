// Files in the agent's own folder, and documents in a folder that the configuration names.
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "executors/agent/tools/check_keys.h"
#include "executors/agent/tools/folder.h"
#include "executors/agent/tools/tool_makers.h"
#include "executors/retrieval/documents.h"

namespace flowmesh::agent {
namespace {

constexpr uint64_t kMaxFile = 16u << 20;      // bytes
constexpr uint64_t kMaxDocument = 64u << 20;  // a PDF has pictures
constexpr size_t kMaxEntries = 1000;

std::string PathArgument(const Json& arguments) {
  return arguments.contains("path") ? arguments["path"].get<std::string>() : "";
}

absl::StatusOr<std::string> List(const std::filesystem::path& root, const std::string& path) {
  ASSIGN_OR_RETURN(const Folder folder, Folder::Open(root));
  ASSIGN_OR_RETURN(const std::vector<Folder::Entry> entries, folder.List(path, kMaxEntries));
  if (entries.empty()) return "there are no files";
  std::string out;
  for (const Folder::Entry& entry : entries) {
    absl::StrAppend(&out, entry.path,
                    entry.is_folder ? "/" : absl::StrCat(" (", entry.bytes, " bytes)"), "\n");
  }
  if (entries.size() == kMaxEntries) absl::StrAppend(&out, "[there may be more]\n");
  return out;
}

absl::StatusOr<std::string> Write(const std::string& path, const std::string& content,
                                  const ToolContext& context) {
  ASSIGN_OR_RETURN(const Folder folder, Folder::Open(context.workspace));
  RETURN_IF_ERROR(folder.Write(path, content));
  return absl::StrCat("wrote ", content.size(), " bytes to ", path);
}

absl::StatusOr<std::string> Edit(const Json& arguments, const ToolContext& context) {
  const std::string path = PathArgument(arguments);
  const std::string old_text = arguments["old_text"].get<std::string>();
  ASSIGN_OR_RETURN(const Folder folder, Folder::Open(context.workspace));
  ASSIGN_OR_RETURN(std::string content, folder.ReadText(path, kMaxFile));
  const size_t at = old_text.empty() ? std::string::npos : content.find(old_text);
  if (at == std::string::npos) {
    return absl::NotFoundError(
        "old_text: not found in the file; it must be there letter by letter");
  }
  if (content.find(old_text, at + 1) != std::string::npos) {
    return absl::FailedPreconditionError(
        "old_text: stands in the file more than once; give more of what is around it");
  }
  content.replace(at, old_text.size(), arguments["new_text"].get<std::string>());
  RETURN_IF_ERROR(folder.Write(path, content));
  return absl::StrCat("changed ", path);
}

absl::StatusOr<std::string> ReadDocument(const std::filesystem::path& root, const std::string& path,
                                         const ToolContext& context) {
  ASSIGN_OR_RETURN(const Folder folder, Folder::Open(root));
  ASSIGN_OR_RETURN(std::string content, folder.Read(path, kMaxDocument));
  auto text = TextOfDocument(std::move(content), std::filesystem::path(path).extension(), context);
  if (!text.ok()) return Annotate(text.status(), path);
  return text;
}

const Parameter kPath = {"path", "string", "the file's path, relative to the folder"};
const Parameter kBelow = {"path", "string", "a folder in it; the whole when left out", false};
const Parameter kStart = {"start", "integer", "the byte to read from; 0 when left out", false};

}  // namespace

absl::StatusOr<Tools> MakeFiles(const Field& options, const ToolEnvironment&) {
  RETURN_IF_ERROR(CheckKeys(options, {}));
  return Tools{
      MakeTool({.name = "list_files",
                .description = "Lists the files in your folder.",
                .parameters = Parameters({kBelow})},
               [](const Json& arguments, const ToolContext& context) {
                 return List(context.workspace, PathArgument(arguments));
               }),
      MakeTool(
          {.name = "read_file",
           .description = "Reads a text file in your folder.",
           .parameters = Parameters({kPath, kStart})},
          [](const Json& arguments, const ToolContext& context) -> absl::StatusOr<std::string> {
            ASSIGN_OR_RETURN(const Folder folder, Folder::Open(context.workspace));
            ASSIGN_OR_RETURN(const std::string text,
                             folder.ReadText(PathArgument(arguments), kMaxFile));
            return Excerpt(text, IntArgument(arguments, "start", 0));
          }),
      MakeTool({.name = "write_file",
                .description = "Writes a text file in your folder, in place of an older one.",
                .parameters = Parameters({kPath, {"content", "string", "the whole text"}})},
               [](const Json& arguments, const ToolContext& context) {
                 return Write(PathArgument(arguments), arguments["content"].get<std::string>(),
                              context);
               }),
      MakeTool({.name = "edit_file",
                .description = "Replaces one passage of a text file in your folder.",
                .parameters = Parameters(
                    {kPath,
                     {"old_text", "string", "the passage, which stands there exactly once"},
                     {"new_text", "string", "what takes its place"}})},
               Edit)};
}

absl::StatusOr<Tools> MakeDocuments(const Field& options, const ToolEnvironment&) {
  RETURN_IF_ERROR(CheckKeys(options, {"folder"}));
  ASSIGN_OR_RETURN(const std::string folder, options["folder"].NonEmptyString());
  const std::filesystem::path root = std::filesystem::absolute(folder);
  const absl::StatusOr<Folder> opened = Folder::Open(root);
  if (!opened.ok()) return options["folder"].Error(Message(opened.status()));
  return Tools{MakeTool({.name = "list_documents",
                         .description = "Lists the documents that are at hand.",
                         .parameters = Parameters({kBelow})},
                        [root](const Json& arguments, const ToolContext&) {
                          return List(root, PathArgument(arguments));
                        }),
               MakeTool({.name = "read_document",
                         .description = "Reads a document: text, Markdown, HTML or PDF.",
                         .parameters = Parameters({kPath, kStart})},
                        [root](const Json& arguments,
                               const ToolContext& context) -> absl::StatusOr<std::string> {
                          ASSIGN_OR_RETURN(const std::string text,
                                           ReadDocument(root, PathArgument(arguments), context));
                          return Excerpt(text, IntArgument(arguments, "start", 0));
                        })};
}

}  // namespace flowmesh::agent
