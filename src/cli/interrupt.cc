#include "src/cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

namespace loopserve {
namespace {

std::atomic<bool> g_interrupted{false};
std::atomic<bool> g_terminated{false};
std::atomic<int> g_unheeded{0};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

void OnSignal(int signal_number) {
  g_interrupted.store(true);
  if (signal_number == SIGTERM) g_terminated.store(true);
  if (g_unheeded.fetch_add(1) >= 2) _exit(130);
}

}  // namespace

void InstallSignalHandlers() {
  struct sigaction action {};
  action.sa_handler = OnSignal;  // no SA_RESTART: a read at the prompt returns
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);
}

const std::atomic<bool>& InterruptFlag() { return g_interrupted; }

bool TerminationRequested() { return g_terminated.load(); }

void ClearInterrupt() {
  g_interrupted.store(g_terminated.load());
  g_unheeded.store(0);
}

}  // namespace loopserve
