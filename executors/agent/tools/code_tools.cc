// Bash and Python, in the sandbox.
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/strings.h"
#include "executors/agent/tools/check_keys.h"
#include "executors/agent/tools/sandbox.h"
#include "executors/agent/tools/tool_makers.h"

namespace flowmesh::agent {
namespace {

constexpr size_t kLongestCode = 100000;  // bytes: it is handed over as one argument

struct Language {
  std::string tool, interpreter, description, argument;
};

// What came out, and what became of the program.
std::string Told(const ProgramEnd& end, const SandboxLimits& limits) {
  std::string out = ToValidUtf8(end.output);  // which may be cut inside a character
  if (!out.empty() && !out.ends_with('\n')) out += '\n';
  if (end.output_bytes > end.output.size()) {
    absl::StrAppend(&out, "[output cut: ", end.output_bytes - end.output.size(), " of ",
                    end.output_bytes, " bytes are left out]\n");
  }
  if (!end.too_much.empty()) {
    absl::StrAppend(&out, "[ended: too much: ", end.too_much, "; at most ",
                    end.too_much == "memory"  ? absl::StrCat(limits.memory_bytes >> 20, " MiB")
                    : end.too_much == "files" ? absl::StrCat(limits.folder_bytes >> 20, " MiB")
                                              : absl::StrCat(limits.processes, " at a time"),
                    "]\n");
  } else if (end.is_flood) {
    absl::StrAppend(&out, "[ended: it wrote more than ", limits.most_output, " bytes]\n");
  } else if (end.is_late) {
    absl::StrAppend(&out, "[ended: not over within ", absl::FormatDuration(limits.time), "]\n");
  } else if (!end.status->ok()) {
    absl::StrAppend(&out, "[", end.status->ToString(), "]\n");
  } else if (out.empty()) {
    out = "[no output]\n";
  }
  return out;
}

absl::StatusOr<Tools> MakeLanguage(const Language& language, const Field& options,
                                   const ToolEnvironment& environment) {
  RETURN_IF_ERROR(CheckKeys(options, {"timeout_sec", "memory_mb", "allow_rlimits_only"}));
  SandboxLimits limits;
  ASSIGN_OR_RETURN(const double seconds, options["timeout_sec"].NumberOr(60));
  if (seconds <= 0 || seconds > 86400) {
    return options["timeout_sec"].Expected("a number above 0 and at most 86400");
  }
  limits.time = absl::Seconds(seconds);
  ASSIGN_OR_RETURN(const int64_t megabytes, options["memory_mb"].IntOr(1024, 16, 1 << 20));
  limits.memory_bytes = megabytes << 20;
  ASSIGN_OR_RETURN(const bool may_do_without, options["allow_rlimits_only"].BoolOr(false));

  std::error_code ignored;
  if (!std::filesystem::exists(language.interpreter, ignored)) {
    environment.warn(
        absl::StrCat("the tool ", language.tool, " is off: there is no ", language.interpreter));
    return Tools{};
  }
  const absl::Status bubblewrap = CheckBubblewrap();
  if (!bubblewrap.ok()) {
    environment.warn(absl::StrCat(
        "the tool ", language.tool,
        may_do_without ? " is held by limits alone: " : " is off: ", bubblewrap.message()));
    if (!may_do_without) return Tools{};
  }
  const bool with_bubblewrap = bubblewrap.ok();
  return Tools{MakeTool(
      {.name = language.tool,
       .description = language.description,
       .parameters = Parameters({{language.argument, "string", "what is run"}})},
      [=](const Json& arguments, const ToolContext& context) -> absl::StatusOr<std::string> {
        const std::string code = arguments[language.argument].get<std::string>();
        if (code.size() > kLongestCode || code.find('\0') != std::string::npos) {
          return absl::InvalidArgumentError(absl::StrCat(language.argument, ": expected at most ",
                                                         kLongestCode, " bytes without zeros"));
        }
        ASSIGN_OR_RETURN(const ProgramEnd end, RunProgram({language.interpreter, "-c", code},
                                                          context, limits, with_bubblewrap));
        return Told(end, limits);
      })};
}

}  // namespace

absl::StatusOr<Tools> MakeBash(const Field& options, const ToolEnvironment& environment) {
  return MakeLanguage(
      {"bash", "/bin/bash",
       "Runs a Bash script in your folder, without network. Gives what it prints.", "script"},
      options, environment);
}

absl::StatusOr<Tools> MakePython(const Field& options, const ToolEnvironment& environment) {
  return MakeLanguage({"python", "/usr/bin/python3",
                       "Runs a Python program in your folder, without network. Gives what it "
                       "prints: use print().",
                       "code"},
                      options, environment);
}

}  // namespace flowmesh::agent
