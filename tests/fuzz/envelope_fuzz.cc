// Any message on the task channel, read with a small and a large bound: an envelope is addressed to
// one of the workers, has a task id and a document, and an unusable one says why.
#include <cstdlib>
#include <string_view>

#include "sidecar/intake/envelope.h"

namespace {

void Check(const flowmesh::sidecar::Intake& intake) {
  const auto* envelope = std::get_if<flowmesh::sidecar::Envelope>(&intake);
  if (envelope == nullptr) return;
  const bool is_ours = envelope->worker_id == "w" || envelope->worker_id == "w.b";
  if (!is_ours || envelope->task_id.empty() || envelope->document == nullptr) std::abort();
  if (envelope->problem.ok() && !envelope->document->is_object()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view message(reinterpret_cast<const char*>(data), size);
  static const flowmesh::sidecar::EnvelopeReader large({"w", "w.b"}, 1 << 20);
  static const flowmesh::sidecar::EnvelopeReader small({"w", "w.b"}, 64);
  Check(large.Read(message));
  Check(small.Read(message));
  return 0;
}
