// W3C trace context (`traceparent`, version 00): one trace id over all programs that a task passes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "common/json.h"

namespace flowmesh {

inline constexpr char kTraceparent[] = "traceparent";  // header of HTTP, metadata of gRPC

struct Trace {
  std::string trace_id;  // 32 lower-case hex digits, not all zero
  std::string span_id;   // 16, not all zero
  std::string flags;     // 2

  std::string ToString() const;  // `00-<trace id>-<span id>-<flags>`
};

// Nothing for what is no traceparent. Of a newer version what this one knows is read.
std::optional<Trace> ParseTraceparent(std::string_view text);

// The span of one run of a task: in the trace that the document names (`metadata.traceparent`, else
// `metadata.annotations.traceparent`), else in one of its own. `run` tells runs apart; the same run
// always gets the same ids, also in another life of the process.
Trace TraceOfRun(const Json& document, std::string_view run);

}  // namespace flowmesh
