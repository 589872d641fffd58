#include "src/base/log.h"

#include <atomic>
#include <memory>
#include <mutex>
#include <utility>

namespace loopserve {
namespace {

constexpr int kSilent = 100;

struct LogState {
  std::mutex mutex;
  std::shared_ptr<const LogSink> sink;  // guarded by mutex
  std::atomic<int> minimum{kSilent};
};

LogState& State() {
  static LogState* state = new LogState;  // never destroyed: threads may log while the program ends
  return *state;
}

}  // namespace

void SetLogSink(LogSink sink, LogLevel minimum) {
  LogState& state = State();
  std::lock_guard lock(state.mutex);
  const bool silent = !sink;
  state.sink = silent ? nullptr : std::make_shared<const LogSink>(std::move(sink));
  state.minimum.store(silent ? kSilent : static_cast<int>(minimum), std::memory_order_relaxed);
}

bool LogEnabled(LogLevel level) { return static_cast<int>(level) >= State().minimum.load(std::memory_order_relaxed); }

void Log(LogLevel level, std::string_view message) {
  if (!LogEnabled(level)) return;
  std::shared_ptr<const LogSink> sink;
  {
    std::lock_guard lock(State().mutex);
    sink = State().sink;
  }
  if (sink) (*sink)(level, message);
}

}  // namespace loopserve
