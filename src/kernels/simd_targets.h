// Which SIMD targets the kernels are compiled for. Include before anything of Highway.
// SSSE3 is left out (nothing of that age serves models), SVE and RVV because the kernels keep vectors in arrays,
// which sizeless types forbid: such machines take NEON, or plain 128-bit code.
#pragma once

#include "hwy/detect_targets.h"

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128 | HWY_RVV)

#if defined(__clang__)
#define LOOPSERVE_UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define LOOPSERVE_UNROLL _Pragma("GCC unroll 16")
#else
#define LOOPSERVE_UNROLL
#endif
