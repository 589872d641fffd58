// What the machine can do at best, for the benchmark to show beside what a kernel does. One thread each; no state.
#pragma once

#include <cstddef>

namespace loopserve {

/// A few milliseconds of independent f32 multiply-adds at the widest vectors of this CPU; returns the flop done.
double RunF32MultiplyAdds();
/// The same with vdpbf16ps; only where CpuHasNativeBf16().
double RunBf16MultiplyAdds();
/// Reads `bytes` (a multiple of 1024, 64-byte aligned) once, in order; returns bytes.
double ReadMemory(const std::byte* memory, size_t bytes);

}  // namespace loopserve
