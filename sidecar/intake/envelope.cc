#include "sidecar/intake/envelope.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/field.h"
#include "common/strings.h"

namespace flowmesh::sidecar {
namespace {

std::optional<std::string> TextOf(const Json& object, const char* key) {
  const auto member = object.find(key);
  if (member == object.end() || !member->is_string()) return std::nullopt;
  return member->get<std::string>();
}

// An integer id is taken as its decimal text.
std::string TaskIdOf(const Json& object) {
  const auto member = object.find("task_id");
  if (member == object.end()) return "";
  if (member->is_number_integer()) return DumpJson(*member);
  return member->is_string() ? member->get<std::string>() : "";
}

absl::Status CheckTaskId(const std::string& task_id) {
  if (IsPlainFileName(task_id)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("task_id: expected a plain file name (letters, digits, '.', '_', '-', at most "
                   "200), got ",
                   DescribeJson(task_id)));
}

absl::Status CheckDocument(const Json& document) {
  if (!document.is_object()) return Field(&document, "task").Expected("a map");
  const Field spec(document.contains("spec") ? &document["spec"] : nullptr, "spec");
  if (!spec.present()) return absl::InvalidArgumentError("spec: required, got nothing");
  return spec.CheckMap();
}

// Fills the parts that follow from the document.
void Finish(Json document, Envelope& envelope) {
  envelope.problem = CheckTaskId(envelope.task_id);
  if (envelope.problem.ok()) envelope.problem = CheckDocument(document);
  if (document.is_object()) {
    const auto spec = document.find("spec");
    if (spec != document.end() && spec->is_object()) {
      envelope.task_type = TextOf(*spec, "taskType");
    }
    if (!document.contains("task_id")) document["task_id"] = envelope.task_id;
  }
  envelope.document = std::make_shared<const Json>(std::move(document));
}

// Takes two members of the outermost object out of a document that is too large to be kept.
class AddressReader : public nlohmann::json_sax<Json> {
 public:
  std::string task_id, worker_id;

  bool null() override { return Scalar(); }
  bool boolean(bool) override { return Scalar(); }
  bool number_integer(number_integer_t value) override { return Number(absl::StrCat(value)); }
  bool number_unsigned(number_unsigned_t value) override { return Number(absl::StrCat(value)); }
  bool number_float(number_float_t, const string_t&) override { return Scalar(); }
  bool binary(binary_t&) override { return false; }
  bool string(string_t& value) override {
    if (depth_ == 1 && key_ == "task_id") task_id = value;
    if (depth_ == 1 && key_ == "assigned_worker") worker_id = value;
    return Scalar();
  }
  bool start_object(size_t) override { return ++depth_ < kMaxJsonDepth; }
  bool start_array(size_t) override { return ++depth_ < kMaxJsonDepth; }
  bool end_object() override { return Close(); }
  bool end_array() override { return Close(); }
  bool key(string_t& name) override {
    if (depth_ == 1) key_ = name;
    return true;
  }
  bool parse_error(size_t, const std::string&, const nlohmann::detail::exception&) override {
    return false;
  }

 private:
  // Stops early once both are known.
  bool Scalar() const { return task_id.empty() || worker_id.empty(); }
  bool Number(std::string text) {
    if (depth_ == 1 && key_ == "task_id") task_id = std::move(text);
    return Scalar();
  }
  bool Close() {
    --depth_;
    return true;
  }

  int depth_ = 0;
  std::string key_;
};

}  // namespace

EnvelopeReader::EnvelopeReader(std::vector<std::string> worker_ids, size_t max_message_bytes)
    : worker_ids_(std::move(worker_ids)), max_message_bytes_(max_message_bytes) {}

bool EnvelopeReader::IsOurs(std::string_view worker_id) const {
  return std::find(worker_ids_.begin(), worker_ids_.end(), worker_id) != worker_ids_.end();
}

// Most messages of a large fleet are other workers'. An id that a writer may have escaped cannot be
// looked for in the raw text; those messages are parsed.
bool EnvelopeReader::MayBeOurs(std::string_view message) const {
  if (message.find("\\u") != std::string_view::npos) return true;
  return std::any_of(worker_ids_.begin(), worker_ids_.end(), [&](const std::string& id) {
    return id.find_first_of("\"\\") != std::string::npos ||
           message.find(absl::StrCat("\"", id, "\"")) != std::string_view::npos;
  });
}

Intake EnvelopeReader::Read(std::string_view message) const {
  if (message.size() > max_message_bytes_) return ReadOversized(message);
  if (!MayBeOurs(message)) return ForeignMessage{};
  absl::StatusOr<Json> root = ParseJson(message);
  if (!root.ok()) {
    return BadMessage{IsValidUtf8(message) ? "not_json" : "not_utf8", Message(root.status())};
  }
  if (!root->is_object()) return BadMessage{"not_a_map", DescribeJson(*root)};
  Envelope envelope;
  const std::optional<std::string> worker = TextOf(*root, "assigned_worker");
  if (!worker || !IsOurs(*worker)) return ForeignMessage{};
  envelope.worker_id = *worker;
  envelope.task_id = TaskIdOf(*root);
  if (envelope.task_id.empty()) return BadMessage{"no_task_id", "task_id: required, got nothing"};
  envelope.dispatched_at = TextOf(*root, "dispatched_at");

  Json document = root->contains("task") ? std::move((*root)["task"]) : Json();
  const auto children = root->find("merged_children");
  if (document.is_object() && children != root->end() && children->is_array() &&
      !children->empty()) {
    document["merge_children"] = std::move(*children);
  }
  Finish(std::move(document), envelope);
  return envelope;
}

Intake EnvelopeReader::ReadOversized(std::string_view message) const {
  AddressReader address;
  Json::sax_parse(message.begin(), message.end(), &address);
  const std::string size = absl::StrCat("a message of ", message.size(),
                                        " bytes; MAX_MESSAGE_BYTES is ", max_message_bytes_);
  if (address.worker_id.empty() || address.task_id.empty()) return BadMessage{"too_large", size};
  if (!IsOurs(address.worker_id)) return ForeignMessage{};
  Envelope envelope;
  envelope.task_id = address.task_id;
  envelope.worker_id = address.worker_id;
  Finish(Json::object(), envelope);
  envelope.problem = absl::ResourceExhaustedError(size);
  return envelope;
}

Envelope MakeLocalEnvelope(Json document, std::string task_id, std::string worker_id,
                           std::string dispatched_at) {
  Envelope envelope;
  envelope.task_id = std::move(task_id);
  envelope.worker_id = std::move(worker_id);
  envelope.dispatched_at = std::move(dispatched_at);
  Finish(std::move(document), envelope);
  return envelope;
}

}  // namespace flowmesh::sidecar
