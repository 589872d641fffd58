#include "bench/process_memory.h"

#include <sys/resource.h>

#include <fstream>
#include <string>

namespace loopserve::bench {

void ResetPeakRss() {
#ifdef __linux__
  std::ofstream("/proc/self/clear_refs") << "5";
#endif
}

std::optional<double> PeakRssBytes() {
#ifdef __linux__
  // Not getrusage: its maximum survives an exec, so that a helper process would inherit the peak of its parent.
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) * 1024;
  }
  return std::nullopt;
#else
  struct rusage usage;
  if (getrusage(RUSAGE_SELF, &usage) != 0) return std::nullopt;
  return static_cast<double>(usage.ru_maxrss);
#endif
}

}  // namespace loopserve::bench
