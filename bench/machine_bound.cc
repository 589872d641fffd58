#include "bench/machine_bound.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "src/kernels/attention.h"
#include "src/kernels/machine_peak.h"

namespace loopserve::bench {
namespace {

constexpr int kTries = 3;
constexpr size_t kReadBytes = size_t{256} << 20;

/// The best rate, in units of 1e9 a second, of `work` on all threads at once; work(thread) returns what it did.
double BestRate(int threads, const std::function<double(int)>& work) {
  double best = 0;
  for (int attempt = 0; attempt < kTries; ++attempt) {
    std::vector<double> done(static_cast<size_t>(threads));
    std::vector<std::thread> workers;
    const auto start = std::chrono::steady_clock::now();
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] { done[static_cast<size_t>(t)] = work(t); });
    }
    for (std::thread& worker : workers) worker.join();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    double total = 0;
    for (const double d : done) total += d;
    best = std::max(best, total / seconds.count() / 1e9);
  }
  return best;
}

}  // namespace

MachineBound MeasureMachineBound(int threads) {
  MachineBound bound;
  bound.f32_gflops = BestRate(threads, [](int) { return RunF32MultiplyAdds(); });
  if (CpuHasNativeBf16()) bound.bf16_gflops = BestRate(threads, [](int) { return RunBf16MultiplyAdds(); });

  constexpr size_t kAlignment = 1024;
  const size_t share = kReadBytes / static_cast<size_t>(threads) / kAlignment * kAlignment;
  const std::unique_ptr<std::byte, void (*)(void*)> memory(
      static_cast<std::byte*>(std::aligned_alloc(kAlignment, share * static_cast<size_t>(threads))), std::free);
  if (!memory) return bound;
  std::fill_n(memory.get(), share * static_cast<size_t>(threads), std::byte{1});
  bound.read_gbytes_per_s =
      BestRate(threads, [&](int t) { return ReadMemory(memory.get() + static_cast<size_t>(t) * share, share); });
  return bound;
}

}  // namespace loopserve::bench
