// For tests of TLS: a certificate that openssl makes.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "common/files.h"
#include "common/subprocess.h"

namespace flowmesh {

// A key and a certificate of its own for the names in `alternatives`.
class Certificate {
 public:
  explicit Certificate(const std::string& alternatives) {
    SubprocessOptions options;
    options.argv = {"openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:prime256v1",
                    "-noenc",
                    "-days",
                    "2",
                    "-subj",
                    "/CN=test",
                    "-addext",
                    "subjectAltName=" + alternatives,
                    "-keyout",
                    key(),
                    "-out",
                    file()};
    const UniqueFd log(::open((dir_ / "log").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    options.stdout_fd = log.get();
    options.stderr_fd = log.get();
    const std::optional<ExitStatus> made =
        Subprocess::Start(options).value().Wait(absl::Seconds(30));
    EXPECT_TRUE(made && made->ok()) << ReadFile(dir_ / "log").value_or("");
  }

  std::string key() const { return dir_ / "key.pem"; }
  std::string file() const { return dir_ / "certificate.pem"; }

 private:
  TempDir dir_;
};

}  // namespace flowmesh
