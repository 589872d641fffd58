// What this machine can do at best, measured, to stand beside what the engines achieve. Thread rule: pure function.
#pragma once

#include <optional>

namespace loopserve::bench {

struct MachineBound {
  double f32_gflops = 0;              ///< f32 multiply-adds in registers, all threads
  std::optional<double> bf16_gflops;  ///< bf16 products with f32 sums; empty where the CPU has none
  double read_gbytes_per_s = 0;       ///< reading memory that no cache holds, all threads
};

/// Measures with `threads` threads, the best of several tries. Takes about a second and 256 MiB.
MachineBound MeasureMachineBound(int threads);

}  // namespace loopserve::bench
