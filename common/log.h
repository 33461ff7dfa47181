// Logging: `time | LEVEL | message` to stderr and, where asked, to a rotated file; each entry is
// one line, with line ends and control characters of the message escaped. fmt-style:
//   LogInfo("worker {} registered", id);
// Secrets never go in. Thread-safe.
#pragma once

#include <spdlog/spdlog.h>

#include <filesystem>
#include <optional>
#include <string_view>

#include "common/log_level.h"

namespace flowmesh {

// `DEBUG`, `INFO`, `WARNING`, `WARN`, `ERROR`, `CRITICAL`, `FATAL` in any case; nothing for others.
std::optional<LogLevel> ParseLogLevel(std::string_view name);

// Sets up the process's log. `file`, when given, is started anew and rotated at 5 MiB with 5 kept;
// when it cannot be written, a warning says so and stderr alone is used.
void StartLog(LogLevel level, const std::optional<std::filesystem::path>& file = std::nullopt);

template <typename... Args>
void LogDebug(fmt::format_string<Args...> format, Args&&... args) {
  spdlog::debug(format, std::forward<Args>(args)...);
}
template <typename... Args>
void LogInfo(fmt::format_string<Args...> format, Args&&... args) {
  spdlog::info(format, std::forward<Args>(args)...);
}
template <typename... Args>
void LogWarning(fmt::format_string<Args...> format, Args&&... args) {
  spdlog::warn(format, std::forward<Args>(args)...);
}
template <typename... Args>
void LogError(fmt::format_string<Args...> format, Args&&... args) {
  spdlog::error(format, std::forward<Args>(args)...);
}

}  // namespace flowmesh
