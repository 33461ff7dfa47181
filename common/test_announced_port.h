// For tests: the port of a server in a subprocess, which says it in what it writes.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace flowmesh {

// Reads from `fd` until the server writes `http://127.0.0.1:PORT` and gives the port; empty, with a
// failure of the test, where the server ends before.
inline std::string ReadAnnouncedPort(int fd) {
  const std::string kSign = "http://127.0.0.1:";
  std::string said;
  char c;
  while (::read(fd, &c, 1) == 1) {
    said += c;
    const size_t at = said.find(kSign);
    if (at != std::string::npos && (c < '0' || c > '9') && said.size() > at + kSign.size()) {
      return said.substr(at + kSign.size(), said.size() - at - kSign.size() - 1);
    }
  }
  ADD_FAILURE() << "the server has ended: " << said;
  return "";
}

}  // namespace flowmesh
