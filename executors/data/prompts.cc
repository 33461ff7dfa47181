#include "executors/data/prompts.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/data/graph_template.h"

namespace flowmesh::data {
namespace {

Prompt MakePrompt(std::string path, std::string raw, const std::string& system_prompt,
                  const Json& given_metadata) {
  Prompt prompt{.raw = raw, .path = std::move(path)};
  prompt.rendered = system_prompt.empty() ? raw : absl::StrCat(system_prompt, "\n", raw);
  prompt.metadata = {{"prompt", prompt.raw}, {"rendered_prompt", prompt.rendered}};
  if (given_metadata.is_object()) prompt.metadata.update(given_metadata);
  return prompt;
}

// The metadata list of `data`: absent, or a map or null for each item.
absl::StatusOr<Field> ReadMetadata(const Field& data, size_t items) {
  Field list = data["metadata"];
  RETURN_IF_ERROR(list.CheckList());
  if (list.size() == 0) list = data["items_metadata"];
  RETURN_IF_ERROR(list.CheckList());
  if (list.size() != 0 && list.size() != items) {
    return list.Error(absl::StrCat("expected one entry for each item, got ", list.size(),
                                   " entries for ", items, " items"));
  }
  for (size_t i = 0; i < list.size(); ++i) RETURN_IF_ERROR(list[i].CheckMap());
  return list;
}

absl::StatusOr<std::vector<Prompt>> ReadList(const Field& data, const std::string& system_prompt) {
  const Field items = data["items"];
  RETURN_IF_ERROR(items.CheckList());
  if (items.size() == 0) return items.Expected("a non-empty list of strings");
  ASSIGN_OR_RETURN(const Field metadata, ReadMetadata(data, items.size()));
  std::vector<Prompt> prompts;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSIGN_OR_RETURN(std::string text, items[i].String());
    prompts.push_back(
        MakePrompt(items[i].path(), std::move(text), system_prompt, metadata[i].json()));
  }
  return prompts;
}

absl::StatusOr<std::vector<Prompt>> ReadTemplate(const Field& spec,
                                                 const std::string& system_prompt) {
  const Field data = spec["data"];
  ASSIGN_OR_RETURN(std::string text, RenderGraphTemplate(data, spec["_upstreamResults"]));
  ASSIGN_OR_RETURN(const bool append, data["template"]["append_system_prompt"].BoolOr(false));
  return std::vector<Prompt>{
      MakePrompt(data.path(), std::move(text), append ? system_prompt : "", Json())};
}

}  // namespace

absl::StatusOr<std::vector<Prompt>> ReadPrompts(const Field& spec,
                                                const std::string& system_prompt) {
  const Field data = spec["data"];
  RETURN_IF_ERROR(data.CheckMap());
  if (!data.present() || data.json().empty()) return data.Error("required");
  constexpr char kTypes[] = "list or graph_template";
  ASSIGN_OR_RETURN(const std::string given, data["type"].NonEmptyString());
  const std::string type = ToLower(given);
  if (type == "list") return ReadList(data, system_prompt);
  if (type == "graph_template") return ReadTemplate(spec, system_prompt);
  if (type == "dataset") {
    return data["type"].Error(
        absl::StrCat("data sets are not read by this version of the worker; expected ", kTypes));
  }
  return data["type"].Expected(kTypes);
}

}  // namespace flowmesh::data
