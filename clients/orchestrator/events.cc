#include "clients/orchestrator/events.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace flowmesh::orchestrator {
namespace {

// A text field; absent and null read as empty, anything else is a breach.
bool ReadText(const Json& message, const char* key, std::string& out) {
  const auto field = message.find(key);
  if (field == message.end() || field->is_null()) return true;
  if (!field->is_string()) return false;
  out = field->get<std::string>();
  return true;
}

bool IsMapIfPresent(const Json& message, const char* key) {
  const auto field = message.find(key);
  return field == message.end() || field->is_object();
}

bool TagsAreTexts(const Json& message) {
  const auto tags = message.find("tags");
  if (tags == message.end() || tags->is_null()) return true;
  return tags->is_array() &&
         std::all_of(tags->begin(), tags->end(), [](const Json& tag) { return tag.is_string(); });
}

}  // namespace

std::optional<Event> ParseEvent(std::string_view message) {
  const absl::StatusOr<Json> parsed = ParseJson(message);
  if (!parsed.ok() || !parsed->is_object()) return std::nullopt;
  Event event;
  std::string time;
  const bool valid =
      ReadText(*parsed, "type", event.type) && ReadText(*parsed, "ts", time) &&
      ReadText(*parsed, "worker_id", event.worker_id) &&
      ReadText(*parsed, "task_id", event.task_id) && ReadText(*parsed, "status", event.status) &&
      ReadText(*parsed, "error", event.error) && IsMapIfPresent(*parsed, "payload") &&
      IsMapIfPresent(*parsed, "metrics") && TagsAreTexts(*parsed);
  if (!valid || event.type.empty() || event.worker_id.empty()) return std::nullopt;
  absl::AsciiStrToUpper(&event.type);
  event.is_task = absl::StartsWith(event.type, "TASK");
  if (event.is_task && event.task_id.empty()) return std::nullopt;
  if (const auto payload = parsed->find("payload"); payload != parsed->end()) {
    event.is_short = false;
    event.payload = *payload;
    // A task type that is no text would crash the reference's listener.
    const auto type = event.payload.find("taskType");
    if (event.is_task && type != event.payload.end() && !type->is_string() && !type->is_null()) {
      return std::nullopt;
    }
  }
  return event;
}

}  // namespace flowmesh::orchestrator
