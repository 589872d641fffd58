#include "src/kernels/int8_product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "src/base/check.h"

namespace loopserve {
namespace {

constexpr int64_t kStepInputs = 4;  // that a lane of the instruction multiplies
constexpr int64_t kSteps = kInt8Group / kStepInputs;
constexpr size_t kGroupInts = static_cast<size_t>(kInt8Group * kInt8PanelColumns);
constexpr size_t kGroupBytes = kGroupInts + kInt8PanelColumns * sizeof(float);
constexpr int32_t kWeightOffset = 128;  // weights are stored unsigned
constexpr float kLargest = 127.0f;

int64_t Groups(int64_t k) { return (k + kInt8Group - 1) / kInt8Group; }

int64_t Panels(int64_t n) { return (n + kInt8PanelColumns - 1) / kInt8PanelColumns; }

/// A prepared row, cut up.
struct RowView {
  const int8_t* ints;
  const float* scales;
  const int32_t* corrections;
};

RowView ViewOf(const std::byte* row, int64_t k) {
  const int64_t groups = Groups(k);
  const auto* scales = reinterpret_cast<const float*>(row + groups * kInt8Group);
  return {reinterpret_cast<const int8_t*>(row), scales, reinterpret_cast<const int32_t*>(scales + groups)};
}

float LargestOf(const float* x, int64_t n) {
  float largest = 0;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::abs(x[i]));
  return largest;
}

/// What a group is multiplied by before it is rounded; nothing where its quotient would overflow.
float InverseScale(float largest) { return largest > 1e-36f ? kLargest / largest : 0.0f; }

void PrepareOnAnyCpu(const float* x, int64_t k, std::byte* prepared) {
  CpuHasInt8Products() ? PrepareInt8Row(x, k, prepared) : PrepareInt8RowPlain(x, k, prepared);
}

}  // namespace

size_t Int8WeightBytes(int64_t k, int64_t n) { return static_cast<size_t>(Panels(n) * Groups(k)) * kGroupBytes; }

void PackInt8Weights(const float* rows, int64_t k, int64_t n, std::byte* packed) {
  // A row of weights is rounded as one of activations is; then its integers go to their panel, four at a time.
  const int64_t groups = Groups(k);
  const std::vector<float> zeros(static_cast<size_t>(k));
  std::vector<std::byte> prepared(Int8RowBytes(k));
  const RowView row = ViewOf(prepared.data(), k);
  for (int64_t c = 0; c < Panels(n) * kInt8PanelColumns; ++c) {
    PrepareOnAnyCpu(c < n ? rows + c * k : zeros.data(), k, prepared.data());
    const int64_t column = c % kInt8PanelColumns;
    std::byte* group = packed + static_cast<size_t>(c / kInt8PanelColumns * groups) * kGroupBytes;
    for (int64_t g = 0; g < groups; ++g, group += kGroupBytes) {
      for (int64_t step = 0; step < kSteps; ++step) {
        uint32_t four;
        std::memcpy(&four, row.ints + g * kInt8Group + step * kStepInputs, sizeof(four));
        four ^= 0x80808080u;  // + 128 in each byte
        std::memcpy(group + (step * kInt8PanelColumns + column) * kStepInputs, &four, sizeof(four));
      }
      std::memcpy(group + kGroupInts + static_cast<size_t>(column) * sizeof(float), row.scales + g, sizeof(float));
    }
  }
}

size_t Int8RowBytes(int64_t k) {
  const auto groups = static_cast<size_t>(Groups(k));
  return (groups * (static_cast<size_t>(kInt8Group) + sizeof(float) + sizeof(int32_t)) + 63) / 64 * 64;
}

void PrepareInt8RowPlain(const float* x, int64_t k, std::byte* prepared) {
  const RowView row = ViewOf(prepared, k);
  auto* ints = const_cast<int8_t*>(row.ints);
  for (int64_t g = 0; g < Groups(k); ++g, x += kInt8Group, ints += kInt8Group) {
    const int64_t n = std::min(kInt8Group, k - g * kInt8Group);
    const bool is_finite = std::all_of(x, x + n, [](float value) { return std::isfinite(value); });
    const float largest = is_finite ? LargestOf(x, n) : 0.0f;
    const float inverse = InverseScale(largest);
    int32_t sum = 0;
    for (int64_t i = 0; i < kInt8Group; ++i) {
      const float rounded = is_finite && i < n ? std::nearbyint(x[i] * inverse) : 0.0f;
      ints[i] = static_cast<int8_t>(std::clamp(rounded, -kLargest, kLargest));
      sum += ints[i];
    }
    const_cast<float*>(row.scales)[g] = is_finite ? largest / kLargest : std::numeric_limits<float>::quiet_NaN();
    const_cast<int32_t*>(row.corrections)[g] = -kWeightOffset * sum;
  }
}

void Int8ProductPlain(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows, float* y) {
  for (int64_t r = 0; r < n_rows; ++r, rows += Int8RowBytes(k)) {
    const RowView row = ViewOf(rows, k);
    for (int64_t c = 0; c < n; ++c) {
      const int64_t column = c % kInt8PanelColumns;
      const std::byte* group = packed + static_cast<size_t>(c / kInt8PanelColumns * Groups(k)) * kGroupBytes;
      double total = 0;
      for (int64_t g = 0; g < Groups(k); ++g, group += kGroupBytes) {
        const auto* weights = reinterpret_cast<const uint8_t*>(group);
        int32_t sum = row.corrections[g];
        for (int64_t i = 0; i < kInt8Group; ++i) {
          sum += row.ints[g * kInt8Group + i] *
                 weights[(i / kStepInputs * kInt8PanelColumns + column) * kStepInputs + i % kStepInputs];
        }
        const double scale = reinterpret_cast<const float*>(group + kGroupInts)[column];
        total += sum * scale * static_cast<double>(row.scales[g]);
      }
      y[r * n + c] = static_cast<float>(total);
    }
  }
}

}  // namespace loopserve

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC bug 105593, in its own intrinsics
#endif
#include <immintrin.h>

#include "src/kernels/simd_targets.h"

// Highway 1.0 has no operation for this instruction: as in attention_prefill_bf16.cc, functions carry the target
// themselves, and all of them are local to this file.
#define LOOPSERVE_VNNI __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))
#define LOOPSERVE_VNNI_INLINE LOOPSERVE_VNNI __attribute__((always_inline)) inline

namespace loopserve {
namespace {

/// Rows whose sums, in integers and in f32, of two vectors of columns stay in 24 of 32 registers.
constexpr int kTileRows = 6;
constexpr int kLanes = 16;
constexpr int kVectors = static_cast<int>(kInt8Group) / kLanes;  // of a group of activations

/// The first `left` of 16 lanes.
LOOPSERVE_VNNI_INLINE __mmask16 FirstLanes(int64_t left) {
  return static_cast<__mmask16>((1u << std::clamp<int64_t>(left, 0, kLanes)) - 1);
}

/// kRows rows, row_bytes apart, times one panel, of which n_columns are stored; y: rows y_stride floats apart.
template <int kRows>
LOOPSERVE_VNNI __attribute__((noinline)) void ProductTile(const std::byte* __restrict panel, int64_t k,
                                                          const std::byte* __restrict rows, size_t row_bytes,
                                                          int64_t n_columns, float* __restrict y, int64_t y_stride) {
  const int64_t groups = Groups(k);
  const auto* ints = reinterpret_cast<const char*>(rows);
  const std::byte* scales = rows + groups * kInt8Group;
  const std::byte* corrections = scales + static_cast<size_t>(groups) * sizeof(float);
  __m512 total[kRows][2];
  LOOPSERVE_UNROLL
  for (int r = 0; r < kRows; ++r) total[r][0] = total[r][1] = _mm512_setzero_ps();
  for (int64_t g = 0; g < groups; ++g, panel += kGroupBytes, ints += kInt8Group, scales += 4, corrections += 4) {
    __m512i sum[kRows][2];
    LOOPSERVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      int32_t correction;
      std::memcpy(&correction, corrections + r * row_bytes, sizeof(correction));
      sum[r][0] = sum[r][1] = _mm512_set1_epi32(correction);
    }
    LOOPSERVE_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      const auto* weights = panel + step * kInt8PanelColumns * kStepInputs;
      const __m512i low = _mm512_loadu_si512(weights);
      const __m512i high = _mm512_loadu_si512(weights + 64);
      LOOPSERVE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        int32_t four;
        std::memcpy(&four, ints + r * row_bytes + step * kStepInputs, sizeof(four));
        const __m512i inputs = _mm512_set1_epi32(four);
        sum[r][0] = _mm512_dpbusd_epi32(sum[r][0], low, inputs);
        sum[r][1] = _mm512_dpbusd_epi32(sum[r][1], high, inputs);
      }
    }
    const auto* weight_scales = reinterpret_cast<const float*>(panel + kGroupInts);
    const __m512 low_scale = _mm512_loadu_ps(weight_scales);
    const __m512 high_scale = _mm512_loadu_ps(weight_scales + kLanes);
    LOOPSERVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      float row_scale;
      std::memcpy(&row_scale, scales + r * row_bytes, sizeof(row_scale));
      const __m512 scale = _mm512_set1_ps(row_scale);
      total[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][0]), _mm512_mul_ps(low_scale, scale), total[r][0]);
      total[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum[r][1]), _mm512_mul_ps(high_scale, scale), total[r][1]);
    }
  }
  LOOPSERVE_UNROLL
  for (int r = 0; r < kRows; ++r) {
    _mm512_mask_storeu_ps(y + r * y_stride, FirstLanes(n_columns), total[r][0]);
    _mm512_mask_storeu_ps(y + r * y_stride + kLanes, FirstLanes(n_columns - kLanes), total[r][1]);
  }
}

template <int kRows>
void ProductRows(const std::byte* panel, int64_t k, const std::byte* rows, int n_rows, int64_t n_columns, float* y,
                 int64_t y_stride) {
  if (n_rows == kRows) return ProductTile<kRows>(panel, k, rows, Int8RowBytes(k), n_columns, y, y_stride);
  if constexpr (kRows > 1) ProductRows<kRows - 1>(panel, k, rows, n_rows, n_columns, y, y_stride);
}

LOOPSERVE_VNNI_INLINE __m512 LoadFirst(const float* x, int64_t left) {
  return _mm512_maskz_loadu_ps(FirstLanes(left), x);
}

LOOPSERVE_VNNI void PrepareRow(const float* x, int64_t k, std::byte* prepared) {
  const RowView row = ViewOf(prepared, k);
  auto* ints = const_cast<int8_t*>(row.ints);
  auto* scales = const_cast<float*>(row.scales);
  auto* corrections = const_cast<int32_t*>(row.corrections);
  for (int64_t first = 0; first < k; first += kInt8Group, ints += kInt8Group) {
    __m512 values[kVectors];
    __m512 largest = _mm512_setzero_ps(), poison = _mm512_setzero_ps();  // poison: 0, or NaN where x is not finite
    LOOPSERVE_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      values[i] = LoadFirst(x + first + i * kLanes, k - first - i * kLanes);
      largest = _mm512_max_ps(largest, _mm512_abs_ps(values[i]));
      poison = _mm512_fmadd_ps(values[i], _mm512_setzero_ps(), poison);
    }
    const bool is_finite = _mm512_cmp_ps_mask(poison, poison, _CMP_UNORD_Q) == 0;
    const float largest_one = is_finite ? _mm512_reduce_max_ps(largest) : 0.0f;
    const __m512 inverse = _mm512_set1_ps(InverseScale(largest_one));
    __m512i sum = _mm512_setzero_si512();
    LOOPSERVE_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      // NaN times zero is NaN, which would become the least integer.
      const __m512 scaled = is_finite ? _mm512_mul_ps(values[i], inverse) : _mm512_setzero_ps();
      const __m512i rounded = _mm512_min_epi32(_mm512_max_epi32(_mm512_cvtps_epi32(scaled), _mm512_set1_epi32(-127)),
                                               _mm512_set1_epi32(127));
      sum = _mm512_add_epi32(sum, rounded);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(ints + i * kLanes), _mm512_cvtepi32_epi8(rounded));
    }
    *scales++ = is_finite ? largest_one / kLargest : std::numeric_limits<float>::quiet_NaN();
    *corrections++ = -kWeightOffset * _mm512_reduce_add_epi32(sum);
  }
}

}  // namespace

bool CpuHasInt8Products() {
  static const bool has = __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512dq") &&
                          __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
  return has;
}

void PrepareInt8Row(const float* x, int64_t k, std::byte* prepared) { PrepareRow(x, k, prepared); }

void Int8Product(const std::byte* packed, int64_t k, int64_t n, const std::byte* rows, int64_t n_rows, float* y) {
  const size_t panel_bytes = static_cast<size_t>(Groups(k)) * kGroupBytes;
  for (int64_t c = 0; c < n; c += kInt8PanelColumns, packed += panel_bytes) {
    for (int64_t r = 0; r < n_rows; r += kTileRows) {
      const auto count = static_cast<int>(std::min<int64_t>(kTileRows, n_rows - r));
      ProductRows<kTileRows>(packed, k, rows + static_cast<size_t>(r) * Int8RowBytes(k), count, n - c, y + r * n + c,
                             n);
    }
  }
}

}  // namespace loopserve

#else  // no AVX512_VNNI to compile for

namespace loopserve {

bool CpuHasInt8Products() { return false; }
void PrepareInt8Row(const float*, int64_t, std::byte*) { LS_CHECK(false); }
void Int8Product(const std::byte*, int64_t, int64_t, const std::byte*, int64_t, float*) { LS_CHECK(false); }

}  // namespace loopserve
#endif
