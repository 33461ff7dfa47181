#include "common/signals.h"

#include <pthread.h>
#include <signal.h>

namespace flowmesh {
namespace {

sigset_t WatchedSignals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);   // the terminal is gone
  sigaddset(&set, SIGUSR2);  // ends the watcher
  return set;
}

}  // namespace

void BlockTerminationSignals() {
  const sigset_t set = WatchedSignals();
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

SignalWatcher::SignalWatcher(std::function<void(int count)> on_signal)
    : thread_([on_signal = std::move(on_signal)] {
        const sigset_t set = WatchedSignals();
        int count = 0;
        int signal_number = 0;
        while (sigwait(&set, &signal_number) == 0 && signal_number != SIGUSR2) on_signal(++count);
      }) {}

SignalWatcher::~SignalWatcher() {
  pthread_kill(thread_.native_handle(), SIGUSR2);
  thread_.join();
}

}  // namespace flowmesh
