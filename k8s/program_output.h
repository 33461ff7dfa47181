// For tests: what a program writes.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "common/files.h"
#include "common/subprocess.h"

namespace flowmesh {

// The standard output of a program that is to end within half a minute. `exit_code`: what it is to
// end with.
inline std::string ProgramOutput(std::vector<std::string> argv, int exit_code = 0) {
  const TempDir temp;
  const UniqueFd out(::open((temp / "out").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
  absl::StatusOr<Subprocess> process =
      Subprocess::Start({.argv = argv, .env = {{"LC_ALL", "C"}}, .stdout_fd = out.get()});
  EXPECT_TRUE(process.ok()) << process.status();
  if (!process.ok()) return "";
  const std::optional<ExitStatus> status = process->Wait(absl::Seconds(30));
  EXPECT_TRUE(status && status->signal == 0 && status->exit_code == exit_code)
      << argv[0] << ": " << (status ? status->ToString() : "does not end");
  return ReadFile(temp / "out").value_or("");
}

}  // namespace flowmesh
