// The plain twin of StoredProduct, and what runs where there is no SIMD: each weight from its own bits.
#include <cmath>
#include <cstring>

#include "src/kernels/stored_product.h"
#include "src/kernels/stored_row.h"

namespace loopserve {
namespace {

float HalfAt(const uint8_t* bytes) {
  uint16_t bits;
  std::memcpy(&bits, bytes, sizeof(bits));
  const int exponent = (bits >> 10) & 31;
  const int mantissa = bits & 1023;
  float value =
      std::ldexp(static_cast<float>(exponent == 0 ? mantissa : mantissa + 1024), exponent == 0 ? -24 : exponent - 25);
  if (exponent == 31) value = mantissa == 0 ? HUGE_VALF : std::nanf("");
  return bits >> 15 != 0 ? -value : value;
}

struct Weight {
  float scale;
  float offset;
  int value;  ///< the weight is scale * value + offset
};

int Nibble(const uint8_t* quants, int i) { return i < 16 ? quants[i] & 15 : quants[i - 16] >> 4; }
int Bit(const uint8_t* bits, int i) { return (bits[i / 8] >> (i % 8)) & 1; }

/// Scale and minimum j of 8 in the 12 bytes of q4_K and q5_K.
void ScaleAndMinimum(const uint8_t* q, int j, int* scale, int* minimum) {
  if (j < 4) {
    *scale = q[j] & 63;
    *minimum = q[j + 4] & 63;
  } else {
    *scale = (q[j + 4] & 15) | ((q[j - 4] >> 6) << 4);
    *minimum = (q[j + 4] >> 4) | ((q[j] >> 6) << 4);
  }
}

Weight WeightK(const uint8_t* block, const uint8_t* quants, const uint8_t* fifth_bits, int i) {
  const int group = i / 32, within = i % 32;
  int scale = 0, minimum = 0;
  ScaleAndMinimum(block + 4, group, &scale, &minimum);
  const uint8_t pair = quants[group / 2 * 32 + within];
  int value = group % 2 == 0 ? pair & 15 : pair >> 4;
  if (fifth_bits != nullptr) value += ((fifth_bits[within] >> group) & 1) * 16;
  return {HalfAt(block) * static_cast<float>(scale), -HalfAt(block + 2) * static_cast<float>(minimum), value};
}

Weight WeightQ6(const uint8_t* block, int i) {
  const int half = i / 128, group = i / 32 % 4, within = i % 32;
  const uint8_t pair = block[64 * half + 32 * (group % 2) + within];
  const int low = group < 2 ? pair & 15 : pair >> 4;
  const int high = (block[128 + 32 * half + within] >> (2 * group)) & 3;
  const auto scale = static_cast<int8_t>(block[192 + i / 16]);
  return {HalfAt(block + 208) * static_cast<float>(scale), 0, (low | high << 4) - 32};
}

/// Weight i of a block.
Weight WeightOf(StoredType type, const uint8_t* block, int i) {
  const float d = HalfAt(block);
  switch (type) {
    case StoredType::kQ4_0:
      return {d, 0, Nibble(block + 2, i) - 8};
    case StoredType::kQ4_1:
      return {d, HalfAt(block + 2), Nibble(block + 4, i)};
    case StoredType::kQ5_0:
      return {d, 0, Nibble(block + 6, i) + 16 * Bit(block + 2, i) - 16};
    case StoredType::kQ5_1:
      return {d, HalfAt(block + 2), Nibble(block + 8, i) + 16 * Bit(block + 4, i)};
    case StoredType::kQ8_0:
      return {d, 0, static_cast<int8_t>(block[2 + i])};
    case StoredType::kQ4_K:
      return WeightK(block, block + 16, nullptr, i);
    case StoredType::kQ5_K:
      return WeightK(block, block + 48, block + 16, i);
    case StoredType::kQ6_K:
      return WeightQ6(block, i);
  }
  return {};
}

}  // namespace

void StoredColumnsPlain(StoredType type, const uint8_t* weights, int64_t k, const PreparedRow* rows, int n_rows,
                        int64_t n_columns, float* out, int64_t out_stride) {
  const StoredBlock block = BlockOf(type);
  const int64_t row_bytes = k / block.weights * block.bytes;
  for (int r = 0; r < n_rows; ++r) {
    for (int64_t c = 0; c < n_columns; ++c) {
      double sum = 0;
      for (int64_t i = 0; i < k; ++i) {
        const uint8_t* at = weights + c * row_bytes + i / block.weights * block.bytes;
        const Weight w = WeightOf(type, at, static_cast<int>(i % block.weights));
        sum += (double{w.scale} * w.value + w.offset) * rows[r].ints[i] * rows[r].scales[i / 32];
      }
      out[r * out_stride + c] = static_cast<float>(sum);
    }
  }
}

}  // namespace loopserve
