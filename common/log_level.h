// The levels of the log, apart from it: libtorch's headers, which bring an fmt of their own, and
// spdlog's do not go together.
#pragma once

namespace flowmesh {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kCritical };

}  // namespace flowmesh
