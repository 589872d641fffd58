#include "src/kernels/key_codes.h"

#include <algorithm>
#include <array>
#include <cfloat>
#include <cmath>
#include <cstring>

#include "src/kernels/simd_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/key_codes.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/base/check.h"
#include "src/kernels/fetch_ahead.h"

#ifndef LOOPSERVE_KERNELS_KEY_CODES_ONCE_
#define LOOPSERVE_KERNELS_KEY_CODES_ONCE_
namespace loopserve::code_internal {

/// Levels of `bits` bits for a normal distribution of deviation 1 with the least mean square error (Lloyd, Max): the
/// upper half; the lower is its mirror image.
inline constexpr float kUpperLevels[kMaxCodeBits + 1][8] = {
    {},
    {0.7979f},
    {0.4528f, 1.5104f},
    {0.2451f, 0.7560f, 1.3439f, 2.1519f},
    {0.1284f, 0.3881f, 0.6568f, 0.9424f, 1.2562f, 1.6180f, 2.0690f, 2.7326f},
};

constexpr float Level(int bits, int code) {
  const int half = 1 << bits >> 1;
  return code >= half ? kUpperLevels[bits][code - half] : -kUpperLevels[bits][half - 1 - code];
}

/// The level that each nibble stands for, of an element with `bits` bits from bit `shift` on.
struct Patterns {
  float level[kMaxCodeBits + 1][kMaxCodeBits][16];
};
constexpr Patterns MakePatterns() {
  Patterns patterns = {};
  for (int bits = 1; bits <= kMaxCodeBits; ++bits) {
    for (int shift = 0; shift + bits <= 4; ++shift) {
      for (int nibble = 0; nibble < 16; ++nibble) {
        patterns.level[bits][shift][nibble] = Level(bits, nibble >> shift & ((1 << bits) - 1));
      }
    }
  }
  return patterns;
}
inline constexpr Patterns kPatterns = MakePatterns();

/// Entries of a table: two of them fit a byte.
inline constexpr int kMostEntry = 127;

/// Groups that are fetched ahead: a run of codes is too short for the hardware to notice in time.
constexpr size_t kGroupsAhead = 4;

/// Codes lie so that sums of bytes at even places and of those at odd places both come out in the order of the keys:
/// the former are the first half of a group, the latter the second.
constexpr int kHalfGroup = kCodeGroupKeys / 2;
constexpr int ByteOfKey(int key) { return key % kHalfGroup * 2 + key / kHalfGroup; }

}  // namespace loopserve::code_internal
#endif  // LOOPSERVE_KERNELS_KEY_CODES_ONCE_

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Lanes16 = hn::CappedTag<float, 16>;

/// sums[r * stride + key] of a group = sum of the table entries of its nibbles, for each query r.
#if HWY_TARGET == HWY_SCALAR
template <int kQueries>
void SumGroup(const uint8_t* codes, int n_pairs, const CodeTables* tables, uint16_t* sums, int64_t stride) {
  for (int r = 0; r < kQueries; ++r) {
    for (int key = 0; key < kCodeGroupKeys; ++key) {
      int sum = 0;
      for (int p = 0; p < n_pairs; ++p) {
        const uint8_t code = codes[p * kCodeGroupKeys + code_internal::ByteOfKey(key)];
        sum += tables[r].rows[p * 32 + code % 16] + tables[r].rows[p * 32 + 16 + code / 16];
      }
      sums[r * stride + key] = static_cast<uint16_t>(sum);
    }
  }
}
#else
template <int kQueries>
HWY_INLINE void SumGroup(const uint8_t* HWY_RESTRICT codes, int n_pairs, const CodeTables* tables,
                         uint16_t* HWY_RESTRICT sums, int64_t stride) {
  const hn::CappedTag<uint8_t, kCodeGroupKeys> d8;
  const hn::Repartition<uint16_t, decltype(d8)> d16;
  using V16 = hn::Vec<decltype(d16)>;
  constexpr size_t kBytes = hn::MaxLanes(decltype(d8)());
  const auto low_bits = hn::Set(d8, 15);
  for (size_t v = 0; v < kCodeGroupKeys; v += kBytes) {
    V16 both[kQueries];  // even bytes + 256 * odd bytes, less whole turns of 2^16
    V16 odd[kQueries];
    LOOPSERVE_UNROLL
    for (int r = 0; r < kQueries; ++r) both[r] = odd[r] = hn::Zero(d16);
    for (int p = 0; p < n_pairs; ++p) {
      const auto code = hn::LoadU(d8, codes + p * kCodeGroupKeys + v);
      const auto low = hn::And(code, low_bits);
      const auto high = hn::And(hn::BitCast(d8, hn::ShiftRight<4>(hn::BitCast(d16, code))), low_bits);
      LOOPSERVE_UNROLL
      for (int r = 0; r < kQueries; ++r) {
        const uint8_t* rows = tables[r].rows + p * 32;
        const auto a = hn::TableLookupBytes(hn::LoadDup128(d8, rows), low);
        const auto b = hn::TableLookupBytes(hn::LoadDup128(d8, rows + 16), high);
        const auto pair = hn::BitCast(d16, hn::Add(a, b));  // two entries fit a byte
        both[r] = hn::Add(both[r], pair);
        odd[r] = hn::Add(odd[r], hn::ShiftRight<8>(pair));
      }
    }
    LOOPSERVE_UNROLL
    for (int r = 0; r < kQueries; ++r) {
      uint16_t* target = sums + r * stride + v / 2;
      hn::StoreU(hn::Sub(both[r], hn::ShiftLeft<8>(odd[r])), d16, target);
      hn::StoreU(odd[r], d16, target + code_internal::kHalfGroup);
    }
  }
}
#endif

template <int kQueries>
HWY_NOINLINE void SumGroups(const uint8_t* codes, int n_groups, int n_pairs, const CodeTables* tables, uint16_t* sums,
                            int64_t stride) {
  const size_t group_bytes = static_cast<size_t>(n_pairs) * kCodeGroupKeys;
  for (int g = 0; g < n_groups; ++g, codes += group_bytes) {
    if (g + static_cast<int>(code_internal::kGroupsAhead) < n_groups) {
      FetchAhead(codes + code_internal::kGroupsAhead * group_bytes, group_bytes);
    }
    SumGroup<kQueries>(codes, n_pairs, tables, sums + int64_t{g} * kCodeGroupKeys, stride);
  }
}

/// Queries whose sums, two vectors each, stay in registers: 32 of them with AVX-512, 16 else.
inline constexpr int kMostQueries = HWY_TARGET <= HWY_AVX3 ? 8 : 4;

/// For n_queries, at most kQueries.
template <int kQueries>
void SumQueries(const uint8_t* codes, int n_groups, int n_pairs, const CodeTables* tables, int n_queries,
                uint16_t* sums, int64_t stride) {
  if (n_queries == kQueries) return SumGroups<kQueries>(codes, n_groups, n_pairs, tables, sums, stride);
  if constexpr (kQueries > 1) SumQueries<kQueries - 1>(codes, n_groups, n_pairs, tables, n_queries, sums, stride);
}

void SumAllCodes(const uint8_t* codes, int n_groups, int n_pairs, const CodeTables* tables, int n_queries,
                 uint16_t* sums, int64_t stride) {
  for (int r = 0; r < n_queries; r += kMostQueries) {
    const int n = std::min(kMostQueries, n_queries - r);
    SumQueries<kMostQueries>(codes, n_groups, n_pairs, tables + r, n, sums + r * stride, stride);
  }
}

/// Entries of all nibbles in f32, each row less its least, which its elements take at their lowest levels together;
/// returns the score of a key at all of these, and the widest row in `range`.
float MakeRows(const KeyCodebook& book, const float* q, float factor, float* HWY_RESTRICT rows, float* range) {
  const Lanes16 d;
  const size_t step = hn::Lanes(d);
  const hn::CappedTag<float, 8> d8;
  auto score_of_mean = hn::Zero(d8);
  for (size_t i = 0; i < static_cast<size_t>(book.head_dim); i += hn::Lanes(d8)) {
    score_of_mean = hn::MulAdd(hn::LoadU(d8, q + i), hn::LoadU(d8, book.mean.data() + i), score_of_mean);
  }
  float base = factor * hn::GetLane(hn::SumOfLanes(d8, score_of_mean));
  *range = 0;
  auto place = book.places.begin();
  for (int nibble = 0; nibble < book.n_nibbles(); ++nibble, rows += 16) {
    float weights[4];
    const float* patterns[4];
    int n = 0;
    float half = 0;
    for (; place != book.places.end() && place->nibble == nibble; ++place, ++n) {
      weights[n] = factor * q[place->element] * book.deviation[place->element];
      patterns[n] = code_internal::kPatterns.level[place->bits][place->shift];
      half += std::abs(weights[n]) * code_internal::Level(place->bits, (1 << place->bits) - 1);
    }
    base -= half;
    *range = std::max(*range, 2 * half);
    for (size_t i = 0; i < 16; i += step) {
      auto entry = hn::Set(d, half);
      for (int j = 0; j < n; ++j) entry = hn::MulAdd(hn::Set(d, weights[j]), hn::LoadU(d, patterns[j] + i), entry);
      hn::StoreU(entry, d, rows + i);
    }
  }
  return base;
}

void RoundRows(const float* HWY_RESTRICT rows, size_t n, float inverse_step, uint8_t* HWY_RESTRICT target) {
  const Lanes16 d;
  const hn::RebindToSigned<Lanes16> di;
  const hn::Rebind<uint8_t, Lanes16> d8;
  const auto inverse = hn::Set(d, inverse_step);
  for (size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto entry = hn::NearestInt(hn::Mul(hn::LoadU(d, rows + i), inverse));
    hn::StoreU(hn::DemoteTo(d8, hn::Min(entry, hn::Set(di, code_internal::kMostEntry))), d8, target + i);
  }
}

}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {
HWY_EXPORT(SumAllCodes);
HWY_EXPORT(MakeRows);
HWY_EXPORT(RoundRows);

using code_internal::ByteOfKey;
using code_internal::Level;

void EncodeKeys(const KeyCodebook& book, const float* keys, uint8_t* codes) {
  std::memset(codes, 0, CodeGroupBytes(book.head_dim));
  const auto head_dim = static_cast<size_t>(book.head_dim);
  float column[kCodeGroupKeys];
  int32_t numbers[kCodeGroupKeys];
  for (const KeyCodebook::Place& place : book.places) {
    for (size_t key = 0; key < kCodeGroupKeys; ++key) column[key] = keys[key * head_dim + place.element];
    std::fill_n(numbers, kCodeGroupKeys, 0);
    const float mean = book.mean[place.element];
    const float deviation = book.deviation[place.element];
    for (int i = 0; i + 1 < 1 << place.bits; ++i) {
      const float threshold = mean + deviation * 0.5f * (Level(place.bits, i) + Level(place.bits, i + 1));
      for (size_t key = 0; key < kCodeGroupKeys; ++key) numbers[key] += column[key] > threshold ? 1 : 0;
    }
    uint8_t* bytes = codes + place.nibble / 2 * kCodeGroupKeys;
    const int shift = place.shift + place.nibble % 2 * 4;
    for (int key = 0; key < kCodeGroupKeys; ++key) {
      bytes[ByteOfKey(key)] = static_cast<uint8_t>(bytes[ByteOfKey(key)] | numbers[key] << shift);
    }
  }
}

void DecodeKey(const KeyCodebook& book, const uint8_t* codes, int key, float* target) {
  std::copy(book.mean.begin(), book.mean.end(), target);
  for (const KeyCodebook::Place& place : book.places) {
    const uint8_t byte = codes[place.nibble / 2 * kCodeGroupKeys + ByteOfKey(key)];
    const int code = byte >> (place.shift + place.nibble % 2 * 4) & ((1 << place.bits) - 1);
    target[place.element] += book.deviation[place.element] * Level(place.bits, code);
  }
}

CodeTables MakeCodeTables(const KeyCodebook& book, const float* q, float factor, uint8_t* rows) {
  constexpr int kMostElements = 512;
  LS_CHECK(book.head_dim <= kMostElements && book.head_dim % 8 == 0);
  alignas(64) float exact[kMostElements * 4];
  CodeTables tables;
  float range = 0;
  tables.rows = rows;
  tables.base = HWY_DYNAMIC_DISPATCH(MakeRows)(book, q, factor, exact, &range);
  const size_t n = CodeTableBytes(book.head_dim);
  if (!(range <= FLT_MAX) || !std::isfinite(tables.base)) {
    std::memset(rows, 0, n);
    tables.base = NAN;
    return tables;
  }
  tables.step = std::max(range, FLT_MIN) / code_internal::kMostEntry;
  HWY_DYNAMIC_DISPATCH(RoundRows)(exact, n, 1.0f / tables.step, rows);
  return tables;
}

void SumCodes(const uint8_t* codes, int n_groups, int head_dim, const CodeTables* tables, int n_queries, uint16_t* sums,
              int64_t stride) {
  LS_CHECK(n_queries >= 1 && n_queries <= kMaxCodeQueries);
  HWY_DYNAMIC_DISPATCH(SumAllCodes)(codes, n_groups, head_dim / 8, tables, n_queries, sums, stride);
}

}  // namespace loopserve
#endif  // HWY_ONCE
