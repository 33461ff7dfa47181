#include "tests/integration/sentinel.h"

#include <fcntl.h>
#include <gtest/gtest.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/endpoint.h"
#include "tests/integration/eventually.h"
#include "tests/integration/redis_peer.h"

namespace flowmesh::testing {

Sentinel::Sentinel(int master_port, const std::vector<std::string>& settings)
    : port_(FreeLoopbackPort().value()) {
  const std::string file = dir_ / "sentinel.conf";
  const std::string lines =
      absl::StrCat("port ", port_, "\nbind 127.0.0.1\ndir ", dir_.path().string(),
                   "\nsentinel monitor mymaster 127.0.0.1 ", master_port,
                   " 1\nsentinel down-after-milliseconds mymaster 500\n"
                   "sentinel failover-timeout mymaster 5000\n",
                   absl::StrJoin(settings, "\n"), "\n");
  EXPECT_TRUE(WriteFileAtomically(file, lines).ok());
  SubprocessOptions options;
  options.argv = {"setpriv", "--pdeathsig", "KILL", "redis-server", file, "--sentinel"};
  const UniqueFd log(
      ::open((dir_ / "sentinel.log").c_str(), O_CREAT | O_WRONLY | O_APPEND | O_CLOEXEC, 0600));
  options.stdout_fd = log.get();
  options.stderr_fd = log.get();
  process_ = Subprocess::Start(options).value();
  RedisPeer up(port_);  // waits for it
}

int Sentinel::MasterPort() {
  const Json answer = RedisPeer(port_).Command({"SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster"});
  return answer.is_array() ? std::stoi(answer.at(1).get<std::string>()) : 0;
}

bool Sentinel::WaitForReplicas(int count) {
  RedisPeer peer(port_);
  return Eventually([&] {
    int usable = 0;
    for (const Json& replica : peer.Command({"SENTINEL", "REPLICAS", "mymaster"})) {
      for (size_t i = 0; i + 1 < replica.size(); i += 2) {
        usable += replica[i] == "master-link-status" && replica[i + 1] == "ok" ? 1 : 0;
      }
    }
    return usable >= count;
  });
}

void Sentinel::FailOver() {
  RedisPeer peer(port_);
  EXPECT_TRUE(Eventually([&] {
    return peer.Command({"SENTINEL", "FAILOVER", "mymaster"}) == "OK";
  }));
}

bool Sentinel::WaitForAnotherMasterThan(int port) {
  return Eventually([&] { return MasterPort() != port; });
}

}  // namespace flowmesh::testing
