// Status macros: errors are values; these pass them on.
//
//   RETURN_IF_ERROR(WriteFile(path, text));
//   ASSIGN_OR_RETURN(Json document, ParseJson(text));
//
// Codes used through the project: InvalidArgument (the user's mistake; the text names the field),
// NotFound, FailedPrecondition, ResourceExhausted (a bound was reached), Unavailable (a peer is
// away: retrying may help), Cancelled, DeadlineExceeded, Internal (a broken invariant).
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

#define FLOWMESH_CONCAT_INNER(a, b) a##b
#define FLOWMESH_CONCAT(a, b) FLOWMESH_CONCAT_INNER(a, b)

#define RETURN_IF_ERROR(expr)                           \
  do {                                                  \
    if (absl::Status status_ = (expr); !status_.ok()) { \
      return status_;                                   \
    }                                                   \
  } while (false)

#define ASSIGN_OR_RETURN(lhs, expr) \
  ASSIGN_OR_RETURN_IMPL(FLOWMESH_CONCAT(status_or_, __LINE__), lhs, expr)

#define ASSIGN_OR_RETURN_IMPL(statusor, lhs, expr) \
  auto statusor = (expr);                          \
  if (!statusor.ok()) return statusor.status();    \
  lhs = std::move(statusor).value()

namespace flowmesh {

// The same code with `<context>: ` in front of the message. OK stays OK.
inline absl::Status Annotate(const absl::Status& status, std::string_view context) {
  if (status.ok()) return status;
  std::string text(context);
  text += ": ";
  text.append(status.message().data(), status.message().size());
  return absl::Status(status.code(), text);
}

// The message of a status as a standard string.
inline std::string Message(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

}  // namespace flowmesh
