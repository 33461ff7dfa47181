#include "clients/cli/text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/field.h"

namespace flowmesh::cli {
namespace {

std::string Cell(const Json& value) { return value.is_null() ? "-" : JsonToText(value); }

std::string Cell(const Json& map, const char* key) {
  const auto value = map.find(key);
  return value == map.end() ? "-" : Cell(*value);
}

// Errors are one line each in a table.
std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

bool HasOutputs(const Json& items) {
  return items.is_array() && !items.empty() &&
         std::all_of(items.begin(), items.end(), [](const Json& item) {
           return item.is_object() && item.contains("output") && item["output"].is_string();
         });
}

std::string Gib(const Json& bytes) {
  if (!bytes.is_number()) return "?";
  return absl::StrFormat("%.1f GiB", bytes.get<double>() / (uint64_t{1} << 30));
}

std::string HardwareText(const Json& hardware) {
  const Field field(&hardware, "");
  std::string text = absl::StrCat(Cell(field["cpu"]["logical_cores"].json()), " cores, ",
                                  Gib(field["memory"]["total_bytes"].json()));
  const Field gpus = field["gpu"]["gpus"];
  for (size_t i = 0; i < gpus.size(); ++i) {
    absl::StrAppend(&text, ", ", Cell(gpus[i]["name"].json()));
  }
  return text;
}

}  // namespace

std::string ResultText(const Json& result) {
  const Json& items = Field(&result, "")["items"].json();
  if (!HasOutputs(items)) return absl::StrCat(DumpJson(result, 2), "\n");
  if (items.size() == 1) return absl::StrCat(items[0]["output"].get<std::string>(), "\n");
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    absl::StrAppend(&text, "[", i, "] ", items[i]["output"].get<std::string>(), "\n");
  }
  return text;
}

std::string Table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      const bool last = i + 1 == row.size();
      absl::StrAppend(&text, row[i], last ? "\n" : std::string(widths[i] - row[i].size() + 2, ' '));
    }
  }
  return text;
}

std::string TaskTableText(const Json& records) {
  std::vector<std::vector<std::string>> rows = {
      {"TASK", "STATE", "TYPE", "WORKER", "NAME", "NOTE"}};
  for (const Json& record : records) {
    const bool is_local = record.contains("state");
    std::string note = record.value("error", Json()).is_null() ? "" : Cell(record, "error");
    if (!record.value("last_error", Json()).is_null()) {
      absl::StrAppend(&note, note.empty() ? "" : ": ", Cell(record, "last_error"));
    }
    if (note.empty() && !record.value("waiting_for", Json()).is_null()) {
      note = absl::StrCat("waits for ", Cell(record, "waiting_for"));
    }
    rows.push_back({Cell(record, "task_id"), Cell(record, is_local ? "state" : "status"),
                    Cell(record, "task_type"),
                    Cell(record, is_local ? "worker_id" : "assigned_worker"),
                    Cell(record, "graph_node_name"), OneLine(std::move(note))});
  }
  return Table(rows);
}

std::string SidecarText(const Json& worker) {
  std::string text =
      absl::StrFormat("flowmesh-sidecar %s, up %.0f s, Redis %s\n", Cell(worker, "version"),
                      worker.value("uptime_seconds", 0.0), Cell(worker, "redis"));
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "STATUS", "TASK", "QUEUE", "EXECUTOR", "HARDWARE", "RUNS"}};
  for (const Json& entry : worker.value("workers", Json::array())) {
    std::string types;
    for (const Json& type :
         entry.value("executor", Json::object()).value("runnable_task_types", Json::array())) {
      absl::StrAppend(&types, types.empty() ? "" : ",", Cell(type));
    }
    rows.push_back({Cell(entry, "worker_id"), Cell(entry, "status"), Cell(entry, "running_task_id"),
                    Cell(entry.value("queue_depth", Json(0))),
                    absl::StrCat(Cell(entry, "executor_target"),
                                 entry.value("executor_connected", false) ? "" : " (away)"),
                    HardwareText(entry.value("hardware", Json::object())),
                    types.empty() ? "-" : types});
  }
  return absl::StrCat(text, Table(rows));
}

std::string WorkersText(const Json& workers) {
  std::vector<std::vector<std::string>> rows = {
      {"WORKER", "STATUS", "HARDWARE", "LAST SEEN", "NOTE"}};
  for (const Json& worker : workers) {
    const char* note = worker.value("stale", false)              ? "no heartbeat"
                       : worker.value("elastic_disabled", false) ? "switched off"
                                                                 : "";
    rows.push_back({Cell(worker, "worker_id"), Cell(worker, "status"),
                    HardwareText(worker.value("hardware", Json::object())),
                    Cell(worker, "last_seen"), note});
  }
  return Table(rows);
}

}  // namespace flowmesh::cli
