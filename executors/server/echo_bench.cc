// Execute(echo) calls per second over a unix socket, one client, one call after the other.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "common/clock.h"
#include "executors/server/executor_process.h"

int main() {
  using flowmesh::executor::EchoRequest;
  constexpr int kCalls = 5000, kRounds = 5, kWarmUp = 500;
  const flowmesh::TempDir dir;
  std::filesystem::create_directory(dir / "logs");
  flowmesh::executor::ExecutorProcess executor(dir.path(),
                                               absl::StrCat("unix:", (dir / "e.sock").string()));
  if (!executor.Up()) {
    std::fprintf(stderr, "the executor does not start: %s\n", executor.Log().c_str());
    return 1;
  }
  int next = 0;
  const auto call = [&] {
    grpc::ClientContext context;
    const auto reader =
        executor.stub().Execute(&context, EchoRequest(absl::StrCat("T", next++), dir.path()));
    flowmesh::v1::TaskEvent event;
    while (reader->Read(&event)) {
    }
    return reader->Finish().ok() && event.has_finished();
  };
  for (int i = 0; i < kWarmUp; ++i) call();
  std::vector<double> rates;
  for (int round = 0; round < kRounds; ++round) {
    const absl::Duration start = flowmesh::Clock::Real().Monotonic();
    for (int i = 0; i < kCalls; ++i) {
      if (!call()) return 1;
    }
    rates.push_back(kCalls / absl::ToDoubleSeconds(flowmesh::Clock::Real().Monotonic() - start));
  }
  std::sort(rates.begin(), rates.end());
  std::printf("echo: %.0f calls/s (median of %d rounds of %d; %.0f to %.0f)\n", rates[kRounds / 2],
              kRounds, kCalls, rates.front(), rates.back());
  return 0;
}
