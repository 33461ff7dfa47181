#include "clients/orchestrator/submission.h"

#include <algorithm>
#include <map>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/field.h"
#include "common/strings.h"

namespace flowmesh::orchestrator {
namespace {

// A stage or node as written, before its dependencies are resolved.
struct Part {
  std::string path;  // `spec.stages[1]`, for messages
  std::string name;
  Json document;
  std::vector<std::string> depends_on;
};

absl::StatusOr<std::vector<std::string>> ReadDependencies(const Field& field) {
  if (!field.present()) return std::vector<std::string>{};
  RETURN_IF_ERROR(field.CheckList());
  std::vector<std::string> names;
  for (size_t i = 0; i < field.size(); ++i) {
    if (field[i].json().is_structured()) return field[i].Expected("a name or a task id");
    const std::string name(Trim(JsonToText(field[i].json())));
    if (name.empty()) return field[i].Expected("a name or a task id");
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  return names;
}

absl::StatusOr<std::string> ReadName(const Field& entry, std::string fallback) {
  const Field field = entry.FirstOf({"name", "id"});
  if (!field.present()) return fallback;
  if (field.json().is_structured()) return field.Expected("a name");
  const std::string name(Trim(JsonToText(field.json())));
  return name.empty() ? fallback : name;
}

// The submission without its stages and graph: what all parts share.
Json CommonPart(const Json& document) {
  Json common = document;
  common["spec"].erase("stages");
  common["spec"].erase("graph");
  return common;
}

absl::StatusOr<std::vector<Part>> ReadParts(const Json& document, const Field& entries,
                                            std::string_view default_name) {
  const Json common = CommonPart(document);
  const Field given_name = Field(&document, "")["metadata"]["name"];
  const std::string title = given_name.present() ? JsonToText(given_name.json()) : "task";
  std::vector<Part> parts;
  std::map<std::string, std::string> seen;  // name -> path
  for (size_t i = 0; i < entries.size(); ++i) {
    const Field entry = entries[i];
    if (!entry.present()) return entry.Expected("a map");
    RETURN_IF_ERROR(entry.CheckMap());
    RETURN_IF_ERROR(entry["spec"].CheckMap());
    Part part;
    part.path = entry.path();
    ASSIGN_OR_RETURN(part.name, ReadName(entry, absl::StrCat(ToAbsl(default_name), "-", i + 1)));
    const auto [first, is_new] = seen.emplace(part.name, part.path);
    if (!is_new) {
      return entry["name"].Error(
          absl::StrCat("the name \"", part.name, "\" is already taken by ", first->second));
    }
    ASSIGN_OR_RETURN(part.depends_on, ReadDependencies(entry["dependsOn"]));
    part.document = common;
    if (entry["spec"].present()) DeepMerge(part.document["spec"], entry["spec"].json());
    if (!part.document["metadata"].is_object()) part.document["metadata"] = Json::object();
    part.document["metadata"]["name"] = absl::StrCat(title, ":", part.name);
    parts.push_back(std::move(part));
  }
  return parts;
}

absl::StatusOr<std::vector<PlannedTask>> PlanStages(std::vector<Part> parts) {
  std::map<std::string, size_t> places;
  for (size_t i = 0; i < parts.size(); ++i) places[parts[i].name] = i;
  std::vector<PlannedTask> plan;
  for (size_t i = 0; i < parts.size(); ++i) {
    PlannedTask task;
    task.name = parts[i].name;
    task.document = std::move(parts[i].document);
    for (const std::string& name : parts[i].depends_on) {
      const auto place = places.find(name);
      if (place == places.end()) {
        task.after_ids.push_back(name);
      } else if (place->second < i) {
        task.after.push_back(place->second);
      } else {
        return absl::InvalidArgumentError(
            absl::StrCat(parts[i].path, ".dependsOn: expected earlier stages or task ids, got \"",
                         name, "\", which is ", place->second == i ? "itself" : "a later stage"));
      }
    }
    if (parts[i].depends_on.empty() && i > 0) task.after.push_back(i - 1);
    plan.push_back(std::move(task));
  }
  return plan;
}

// Kahn's algorithm; among the nodes that are free the one written first comes first.
absl::StatusOr<std::vector<PlannedTask>> PlanGraph(std::vector<Part> parts) {
  std::map<std::string, size_t> written;
  for (size_t i = 0; i < parts.size(); ++i) written[parts[i].name] = i;
  std::vector<std::set<size_t>> waits_for(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const std::string& name : parts[i].depends_on) {
      const auto other = written.find(name);
      if (other == written.end()) continue;
      if (other->second == i) {
        return absl::InvalidArgumentError(absl::StrCat(parts[i].path,
                                                       ".dependsOn: expected other nodes, got \"",
                                                       name, "\", which is itself"));
      }
      waits_for[i].insert(other->second);
    }
  }
  std::vector<PlannedTask> plan;
  std::map<size_t, size_t> placed;  // place as written -> place in the plan
  while (plan.size() < parts.size()) {
    size_t next = 0;
    const auto is_free = [&](size_t i) {
      return !placed.contains(i) && std::all_of(waits_for[i].begin(), waits_for[i].end(),
                                                [&](size_t j) { return placed.contains(j); });
    };
    while (next < parts.size() && !is_free(next)) ++next;
    if (next == parts.size()) {
      std::vector<std::string> stuck;
      for (size_t i = 0; i < parts.size(); ++i) {
        if (!placed.contains(i)) stuck.push_back(parts[i].name);
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "spec.graph.nodes: expected no cycle, got one among: ", absl::StrJoin(stuck, ", ")));
    }
    PlannedTask task;
    task.name = parts[next].name;
    task.document = std::move(parts[next].document);
    for (const std::string& name : parts[next].depends_on) {
      const auto other = written.find(name);
      if (other == written.end()) {
        task.after_ids.push_back(name);
      } else {
        task.after.push_back(placed.at(other->second));
      }
    }
    placed[next] = plan.size();
    plan.push_back(std::move(task));
  }
  return plan;
}

void AddUnread(const Field& map, const std::set<std::string>& read,
               std::vector<std::string>& unread) {
  if (!map.json().is_object()) return;
  for (const auto& [key, value] : map.json().items()) {
    if (!read.contains(key)) unread.push_back(map[key].path());
  }
}

}  // namespace

std::vector<std::string> UnreadKeys(const Json& document) {
  std::vector<std::string> unread;
  const Field root(&document, "");
  AddUnread(root, {"apiVersion", "kind", "metadata", "spec", "task_id", "merge_children"}, unread);
  for (const Field& parts : {root["spec"]["stages"], root["spec"]["graph"]["nodes"]}) {
    for (size_t i = 0; i < parts.size(); ++i) {
      AddUnread(parts[i], {"name", "id", "dependsOn", "spec"}, unread);
    }
  }
  return unread;
}

void DeepMerge(Json& base, const Json& over) {
  if (!base.is_object() || !over.is_object()) {
    base = over;
    return;
  }
  for (const auto& [key, value] : over.items()) {
    if (base.contains(key)) {
      DeepMerge(base[key], value);
    } else {
      base[key] = value;
    }
  }
}

absl::StatusOr<std::vector<PlannedTask>> PlanSubmission(const Json& document) {
  if (!document.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("document: expected a map, got ", DescribeJson(document)));
  }
  const Field spec = Field(&document, "")["spec"];
  if (!spec.present()) return absl::InvalidArgumentError("spec: expected a map, got nothing");
  RETURN_IF_ERROR(spec.CheckMap());
  RETURN_IF_ERROR(Field(&document, "")["metadata"].CheckMap());
  const Field stages = spec["stages"];
  RETURN_IF_ERROR(stages.CheckList());
  RETURN_IF_ERROR(spec["graph"].CheckMap());
  const Field nodes = spec["graph"]["nodes"];
  RETURN_IF_ERROR(nodes.CheckList());
  if (stages.size() > 0 && nodes.size() > 0) {
    return absl::InvalidArgumentError("spec.stages: expected none beside spec.graph, got both");
  }
  if (stages.size() > 0) {
    ASSIGN_OR_RETURN(std::vector<Part> parts, ReadParts(document, stages, "stage"));
    return PlanStages(std::move(parts));
  }
  if (nodes.size() > 0) {
    ASSIGN_OR_RETURN(std::vector<Part> parts, ReadParts(document, nodes, "node"));
    return PlanGraph(std::move(parts));
  }
  PlannedTask task;
  task.document = document;
  ASSIGN_OR_RETURN(task.after_ids, ReadDependencies(spec["dependsOn"]));
  return std::vector<PlannedTask>{std::move(task)};
}

}  // namespace flowmesh::orchestrator
