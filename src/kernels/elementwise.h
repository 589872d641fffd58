// Steps between the matrix products, vectorised for every SIMD target.
// Thread rule: pure functions.
#pragma once

#include <cstdint>

namespace loopserve {

/// target[i] = source[i] rounded to bfloat16, to nearest even; NaN stays NaN.
void RoundToBf16(const float* source, int64_t n, uint16_t* target);

/// gate[i] = silu(gate[i]) * up[i], with silu(x) = x / (1 + exp(-x)).
void SiluMultiply(float* gate, const float* up, int64_t n);

/// gate[i] = gelu(gate[i]) * up[i], with gelu's tanh form: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
void GeluMultiply(float* gate, const float* up, int64_t n);

/// target[i] += source[i].
void AddTo(const float* source, int64_t n, float* target);

/// target[i] = source[i] * weight[i] / sqrt(mean(source^2) + eps). target may be source.
void RmsNormalize(const float* source, const float* weight, int64_t n, float eps, float* target);

}  // namespace loopserve
