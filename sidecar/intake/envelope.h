// Messages of the task channel (PROTOCOL.md section 4): which are ours, and what they ask for.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/json.h"
#include "common/status.h"

namespace flowmesh::sidecar {

// A task that was handed to one of our workers. Immutable once it is read.
struct Envelope {
  std::string task_id;                       // not empty
  std::string worker_id;                     // one of ours
  std::optional<std::string> dispatched_at;  // verbatim
  // `spec.taskType` as it stands in the document, when it is a string.
  std::optional<std::string> task_type;
  // The task document (TASKS.md 1.1) with `task_id` and `merge_children` filled in; never null, but
  // unusable when `problem` says so.
  std::shared_ptr<const Json> document;
  // Not OK: the task cannot run; it fails with this text.
  absl::Status problem;
};

// Not ours to run, and no reason to complain.
struct ForeignMessage {};
// Nobody's: counted, logged and dropped.
struct BadMessage {
  // A metric's label: `not_json`, `not_utf8`, `not_a_map`, `no_task_id`, `too_large`.
  std::string reason;
  std::string detail;
};
using Intake = std::variant<Envelope, ForeignMessage, BadMessage>;

// Reads envelopes for a fixed set of worker ids. Thread-compatible.
class EnvelopeReader {
 public:
  EnvelopeReader(std::vector<std::string> worker_ids, size_t max_message_bytes);

  Intake Read(std::string_view message) const;

 private:
  bool MayBeOurs(std::string_view message) const;
  bool IsOurs(std::string_view worker_id) const;
  Intake ReadOversized(std::string_view message) const;

  const std::vector<std::string> worker_ids_;
  const size_t max_message_bytes_;
};

// An envelope from a task document that came without one (the local API).
Envelope MakeLocalEnvelope(Json document, std::string task_id, std::string worker_id,
                           std::string dispatched_at);

}  // namespace flowmesh::sidecar
