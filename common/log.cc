#include "common/log.h"

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/rotating_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <iterator>
#include <memory>
#include <vector>

#include "common/strings.h"

namespace flowmesh {
namespace {

// Level names of the published worker (`WARNING`, not spdlog's `warning`).
class UpperLevel : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    static constexpr std::string_view kNames[] = {"TRACE", "DEBUG",    "INFO", "WARNING",
                                                  "ERROR", "CRITICAL", "OFF"};
    const std::string_view name = kNames[message.level];
    out.append(name.data(), name.data() + name.size());
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<UpperLevel>();
  }
};

// An entry is one line: a text from outside must not be able to look like an entry of its own.
class OneLine : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& message, const std::tm&,
              spdlog::memory_buf_t& out) override {
    for (const char c : message.payload) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte == '\n') {
        fmt::format_to(std::back_inserter(out), "\\n");
      } else if (byte < 0x20 || byte == 0x7f) {
        fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
      } else {
        out.push_back(c);
      }
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override {
    return std::make_unique<OneLine>();
  }
};

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarning:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
    case LogLevel::kCritical:
      return spdlog::level::critical;
  }
  return spdlog::level::info;
}

}  // namespace

std::optional<LogLevel> ParseLogLevel(std::string_view name) {
  const std::string word = ToLower(Trim(name));
  if (word == "debug") return LogLevel::kDebug;
  if (word == "info") return LogLevel::kInfo;
  if (word == "warning" || word == "warn") return LogLevel::kWarning;
  if (word == "error") return LogLevel::kError;
  if (word == "critical" || word == "fatal") return LogLevel::kCritical;
  return std::nullopt;
}

void StartLog(LogLevel level, const std::optional<std::filesystem::path>& file) {
  std::vector<spdlog::sink_ptr> sinks = {std::make_shared<spdlog::sinks::stderr_sink_mt>()};
  std::string file_problem;
  if (file) {
    try {
      constexpr size_t kRotateBytes = 5u << 20;
      constexpr size_t kKept = 5;
      // Rotating at once starts the file anew and keeps the previous run's.
      sinks.push_back(std::make_shared<spdlog::sinks::rotating_file_sink_mt>(
          file->string(), kRotateBytes, kKept, /*rotate_on_open=*/true));
    } catch (const spdlog::spdlog_ex& e) {
      file_problem = e.what();
    }
  }
  auto logger = std::make_shared<spdlog::logger>("flowmesh", sinks.begin(), sinks.end());
  auto formatter = std::make_unique<spdlog::pattern_formatter>();
  formatter->add_flag<UpperLevel>('*').add_flag<OneLine>('_').set_pattern(
      "%Y-%m-%d %H:%M:%S.%e | %* | %_");
  logger->set_formatter(std::move(formatter));
  logger->set_level(ToSpdlog(level));
  logger->flush_on(spdlog::level::warn);
  spdlog::flush_every(std::chrono::seconds(1));
  spdlog::set_default_logger(std::move(logger));
  if (!file_problem.empty()) LogWarning("log file not used: {}", file_problem);
}

}  // namespace flowmesh
