// Configuration from the environment: each variable is declared once, with its default and meaning,
// so that reading it, checking it and `--help` come from one place. An empty value counts as unset.
//
//   EnvReader env(SystemEnv());
//   config.interval = env.Int("HEARTBEAT_INTERVAL_SEC", 30, 1, "seconds between heartbeats");
//   RETURN_IF_ERROR(env.status());
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/status.h"

namespace flowmesh {

// A variable's value; nothing when it is unset. A test passes a map's look-up instead of the
// system's.
using EnvLookup = std::function<std::optional<std::string>(std::string_view name)>;

EnvLookup SystemEnv();

// Not thread-safe; used while a program starts. Readers never fail by themselves: the first error
// is kept (`status`), and the default returned, so that a configuration is read in one straight
// list.
class EnvReader {
 public:
  explicit EnvReader(EnvLookup lookup) : lookup_(std::move(lookup)) {}

  std::string String(std::string_view name, std::string_view fallback, std::string_view help);
  // Without white space around it, as a file's line end is; inside of it there may be none, and no
  // control characters. Its value never shows in an error text.
  std::string Secret(std::string_view name, std::string_view help);
  // An http or https URL without trailing slashes, or `fallback`. Errors show no password.
  std::string HttpUrl(std::string_view name, std::string_view fallback, std::string_view help);
  int64_t Int(std::string_view name, int64_t fallback, int64_t min, std::string_view help,
              int64_t max = std::numeric_limits<int64_t>::max());
  // Anything but an integer of at least `min` is a warning, and the default is used.
  int64_t LenientInt(std::string_view name, int64_t fallback, int64_t min, std::string_view help);
  double Number(std::string_view name, double fallback, double min, std::string_view help);
  std::optional<double> PositiveNumber(std::string_view name, std::string_view help);
  // On unless `0`, `false`, `no`, `off` in any case; of other words than their opposites a warning
  // says so.
  bool Switch(std::string_view name, bool fallback, std::string_view help);

  // Whether the variable has a non-empty value.
  bool IsSet(std::string_view name) const;
  // The raw value, even an empty one.
  std::optional<std::string> Raw(std::string_view name) const { return lookup_(name); }

  // Records `<name>: expected <what>, got "<found>"`, unless an error is known already.
  void Reject(std::string_view name, std::string_view what, std::string_view found);
  // The same with `<name>: <text>`, for values whose parser words its own complaint.
  void RejectWith(std::string_view name, std::string_view text);
  // A lenient variable: the problem becomes a warning for the program to log.
  void Warn(std::string text) { warnings_.push_back(std::move(text)); }

  const absl::Status& status() const { return status_; }
  const std::vector<std::string>& warnings() const { return warnings_; }

  // The `--help` table of all variables read so far: name, default, meaning.
  std::string Help() const;

 private:
  struct Variable {
    std::string name, fallback, help;
  };
  std::optional<std::string> Read(std::string_view name, std::string_view fallback,
                                  std::string_view help);

  EnvLookup lookup_;
  absl::Status status_;
  std::vector<std::string> warnings_;
  std::vector<Variable> variables_;
};

}  // namespace flowmesh
