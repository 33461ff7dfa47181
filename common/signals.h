// SIGTERM, SIGINT and SIGHUP as ordinary calls on a thread of their own.
#pragma once

#include <functional>
#include <thread>

namespace flowmesh {

// Blocks them in the calling thread and in all threads started after, and has SIGPIPE
// and SIGXFSZ ignored, so that a closed pipe and a file that may not grow are errors of the write;
// call it first in main(). Children reset the mask themselves (see Subprocess).
void BlockTerminationSignals();

// Calls `on_signal` with 1 for the first signal, 2 for the second, and so on, until destroyed.
class SignalWatcher {
 public:
  explicit SignalWatcher(std::function<void(int count)> on_signal);
  ~SignalWatcher();

 private:
  std::thread thread_;
};

}  // namespace flowmesh
