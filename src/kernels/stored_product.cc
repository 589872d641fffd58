#include "src/kernels/stored_product.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "src/base/check.h"
#include "src/kernels/simd_targets.h"
#include "src/kernels/stored_row.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "src/kernels/stored_product.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "src/kernels/stored_formats-inl.h"

HWY_BEFORE_NAMESPACE();
namespace loopserve::HWY_NAMESPACE {
namespace {

using Ints32 = hn::Vec<I32>;

void PrepareRowImpl(const float* HWY_RESTRICT x, int64_t k, int16_t* HWY_RESTRICT ints, float* HWY_RESTRICT pairs,
                    float* HWY_RESTRICT scales, float* HWY_RESTRICT sums) {
  const F32 d;
  for (int64_t g = 0; g < k / kGroup; ++g, x += kGroup, ints += kGroup) {
    Floats largest = hn::Zero(d), poison = hn::Zero(d);  // poison: 0, or NaN where x is not finite
    for (int i = 0; i < kGroup; i += kFloatLanes) {
      const Floats value = hn::LoadU(d, x + i);
      largest = hn::Max(largest, hn::Abs(value));
      poison = hn::MulAdd(value, hn::Zero(d), poison);
    }
    const float largest_one = hn::GetLane(hn::MaxOfLanes(d, largest));
    const float not_finite = hn::GetLane(hn::SumOfLanes(d, poison));
    const float inverse = largest_one > 0 ? 32767.0f / largest_one : 0.0f;
    Ints32 total = hn::Zero(I32());
    for (int i = 0; i < kGroup; i += kFloatLanes) {
      const Ints32 rounded = hn::NearestInt(hn::Mul(hn::LoadU(d, x + i), hn::Set(d, inverse)));
      total = hn::Add(total, rounded);
      const hn::Rebind<int16_t, F32> narrow;
      hn::StoreU(hn::DemoteTo(narrow, rounded), narrow, ints + i);
    }
    scales[g] = pairs[2 * g] = largest_one / 32767.0f + not_finite;
    sums[g] = pairs[2 * g + 1] = scales[g] * static_cast<float>(hn::GetLane(hn::SumOfLanes(I32(), total)));
  }
}

#if HWY_TARGET != HWY_SCALAR

/// Dot product of a group's (or half a group's) integers, in the lanes of a vector: at most 4 products of 127 * 32767
/// in each, below 2^24, so that the conversion to f32 is exact.
template <int kFirst, int kCount>
HWY_INLINE Floats DotInts(const Ints* w, const int16_t* HWY_RESTRICT y) {
  Ints32 low = hn::Zero(I32()), high = hn::Zero(I32());
  LOOPSERVE_UNROLL
  for (int i = kFirst; i < kFirst + kCount; ++i) {
    low = hn::ReorderWidenMulAccumulate(I32(), w[i], hn::Load(I16(), y + i * kIntLanes), low, high);
  }
  return hn::ConvertTo(F32(), hn::Add(low, high));
}

/// Of integers that are in registers, whole groups.
template <int kCount>
HWY_INLINE Floats DotInts(const Ints* w, const Ints* y) {
  Ints32 low = hn::Zero(I32()), high = hn::Zero(I32());
  LOOPSERVE_UNROLL
  for (int i = 0; i < kCount; ++i) low = hn::ReorderWidenMulAccumulate(I32(), w[i], y[i], low, high);
  return hn::ConvertTo(F32(), hn::Add(low, high));
}

/// A group's scale in all even lanes, its sum in all odd ones.
HWY_INLINE Floats LoadGroup(const PreparedRow& row, int64_t g) {
  uint64_t pair;
  std::memcpy(&pair, row.pairs + 2 * g, sizeof(pair));
  return hn::BitCast(F32(), hn::Set(hn::Repartition<uint64_t, F32>(), pair));
}

/// Asks for `bytes` of weights that come kAheadBytes later: hardware looks no further than the page that it is in, and
/// loses track of several columns that are read side by side.
HWY_INLINE void FetchAhead(const uint8_t* position, int bytes) {
  constexpr int kAheadBytes = 4096;
  LOOPSERVE_UNROLL
  for (int i = 0; i < bytes; i += 64) hwy::Prefetch(position + kAheadBytes + i);
}

/// One group of a matrix row of a type with one block for each group, against a group of one prepared row: sum += the
/// products; the offsets' part is added to each odd lane of offset.
template <StoredType kType>
HWY_INLINE void AddGroup(const PreparedRow& row, int64_t g, const Ints* w, Floats scale_and_offset, Floats* sum,
                         Floats* offset) {
  const Floats dot = DotInts<0, kParts>(w, row.ints + g * kGroup);
  Floats factor;
  if constexpr (Format<kType>::kOffsetFactor != 0) {
    const Floats of_row = LoadGroup(row, g);
    *offset = hn::MulAdd(scale_and_offset, of_row, *offset);
    factor = hn::DupEven(hn::Mul(scale_and_offset, of_row));
  } else {
    factor = hn::Mul(scale_and_offset, hn::Set(F32(), row.scales[g]));
  }
  *sum = hn::MulAdd(dot, factor, *sum);
}

/// kColumns matrix rows, row_bytes apart, of a type with one block for each group. sum and offset: [kColumns], offset
/// as in AddGroup. Several columns at once: their chains of additions are independent, and they share the loads of the
/// prepared row.
template <StoredType kType, int kColumns>
HWY_INLINE void SmallBlocks(const uint8_t* HWY_RESTRICT weights, int64_t row_bytes, int64_t groups,
                            const PreparedRow& row, Floats* sum, Floats* offset) {
  using Type = Format<kType>;
  for (int64_t g = 0; g < groups; ++g) {
    FetchAhead(weights + g * kColumns * Type::kGroupBytes, kColumns * Type::kGroupBytes);
    LOOPSERVE_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const uint8_t* group = weights + c * row_bytes + g * Type::kGroupBytes;
      Ints w[kParts];
      Type::Unpack(group, w);
      AddGroup<kType>(row, g, w, Type::ScaleAndOffset(group), &sum[c], &offset[c]);
    }
  }
}

/// One block of q4_K or q5_K; the offsets' part is the sum of offset's lanes.
template <StoredType kType, int kRows>
HWY_INLINE void BlockK(const uint8_t* HWY_RESTRICT block, const PreparedRow* rows, int64_t first_group, Floats* sum,
                       Floats* offset) {
  HWY_ALIGN float scales[kBlockGroups];
  HWY_ALIGN float offsets[kBlockGroups];
  HWY_ALIGN float factors[kRows][kBlockGroups];
  LoadScalesK(block, scales, offsets);
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kBlockGroups; i += kFloatLanes) {
      const Floats of_row = hn::Load(F32(), rows[r].scales + first_group + i);
      hn::Store(hn::Mul(hn::Load(F32(), scales + i), of_row), F32(), factors[r] + i);
      offset[r] = hn::MulAdd(hn::Load(F32(), offsets + i), hn::Load(F32(), rows[r].sums + first_group + i), offset[r]);
    }
  }
  LOOPSERVE_UNROLL
  for (int g = 0; g < kBlockGroups; ++g) {
    Ints w[kParts];
    Format<kType>::Unpack(block, g, w);
    for (int r = 0; r < kRows; ++r) {
      const Floats dot = DotInts<0, kParts>(w, rows[r].ints + (first_group + g) * kGroup);
      sum[2 * r + g % 2] = hn::MulAdd(dot, hn::Set(F32(), factors[r][g]), sum[2 * r + g % 2]);
    }
  }
}

template <int kRows>
HWY_INLINE void BlockQ6(const uint8_t* HWY_RESTRICT block, const PreparedRow* rows, int64_t first_group, Floats* sum) {
  using Type = Format<StoredType::kQ6_K>;
  HWY_ALIGN float scale[2 * kBlockGroups];
  Type::Scales16(block, scale);
  LOOPSERVE_UNROLL
  for (int g = 0; g < kBlockGroups; ++g) {
    Ints w[kParts];
    Type::Unpack(block, g, w);
    for (int r = 0; r < kRows; ++r) {
      const int16_t* y = rows[r].ints + (first_group + g) * kGroup;
      const Floats first = hn::Mul(DotInts<0, kParts / 2>(w, y), hn::Set(F32(), scale[2 * g]));
      const Floats both = hn::MulAdd(DotInts<kParts / 2, kParts / 2>(w, y), hn::Set(F32(), scale[2 * g + 1]), first);
      const Floats row_scale = hn::Set(F32(), rows[r].scales[first_group + g]);
      sum[2 * r + g % 2] = hn::MulAdd(both, row_scale, sum[2 * r + g % 2]);
    }
  }
}

/// Keeps a compiler from taking what was just stored from its register, by shuffles: broadcasts of memory cost less.
template <int kColumns>
HWY_INLINE void KeepInMemory(float (&values)[kColumns][kPaddedRows]) {
#if HWY_COMPILER_GCC_ACTUAL || HWY_COMPILER_CLANG
  asm("" : "+m"(values));
#else
  (void)values;
#endif
}

/// Matrix rows, row_bytes apart, of a type with one block for each group, against several rows: sums as SmallColumns
/// makes them of each, but what only multiplies scales is done for all rows at once, and the rows' integers are loaded
/// once for all columns. groups_of_rows: see GroupsOfRows.
template <StoredType kType, int kRows, int kColumns>
HWY_INLINE void SmallColumnsOfRows(const uint8_t* HWY_RESTRICT weights, int64_t k, const PreparedRow* rows,
                                   const float* HWY_RESTRICT groups_of_rows, float* HWY_RESTRICT out,
                                   int64_t out_stride) {
  using Type = Format<kType>;
  constexpr int kVectors = (kRows + kFloatLanes - 1) / kFloatLanes;
  const int64_t groups = k / kGroup;
  const int64_t row_bytes = groups * Type::kGroupBytes;
  HWY_ALIGN float factors[kColumns][kPaddedRows];
  HWY_ALIGN float offsets[kPaddedRows];
  Floats sum[kColumns * kRows], offset[kColumns * kVectors];
  LOOPSERVE_UNROLL
  for (int i = 0; i < kColumns * kRows; ++i) sum[i] = hn::Zero(F32());
  LOOPSERVE_UNROLL
  for (int i = 0; i < kColumns * kVectors; ++i) offset[i] = hn::Zero(F32());
  for (int64_t g = 0; g < groups; ++g) {
    FetchAhead(weights + g * kColumns * Type::kGroupBytes, kColumns * Type::kGroupBytes);
    Ints w[kColumns * kParts];
    LOOPSERVE_UNROLL
    for (int c = 0; c < kColumns; ++c) {
      const uint8_t* group = weights + c * row_bytes + g * Type::kGroupBytes;
      Type::Unpack(group, w + c * kParts);
      const Floats scale_and_offset = Type::ScaleAndOffset(group);
      LOOPSERVE_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        const float* of_rows = groups_of_rows + 2 * kPaddedRows * g + v * kFloatLanes;
        hn::Store(hn::Mul(hn::DupEven(scale_and_offset), hn::Load(F32(), of_rows)), F32(),
                  factors[c] + v * kFloatLanes);
        if constexpr (Type::kOffsetFactor != 0) {
          Floats& all = offset[c * kVectors + v];
          all = hn::MulAdd(hn::DupOdd(scale_and_offset), hn::Load(F32(), of_rows + kPaddedRows), all);
        }
      }
    }
    KeepInMemory(factors);
    LOOPSERVE_UNROLL
    for (int r = 0; r < kRows; ++r) {
      Ints y[kParts];
      LOOPSERVE_UNROLL
      for (int i = 0; i < kParts; ++i) y[i] = hn::Load(I16(), rows[r].ints + g * kGroup + i * kIntLanes);
      LOOPSERVE_UNROLL
      for (int c = 0; c < kColumns; ++c) {
        Floats& one = sum[c * kRows + r];
        one = hn::MulAdd(DotInts<kParts>(w + c * kParts, y), hn::Set(F32(), factors[c][r]), one);
      }
    }
  }
  for (int c = 0; c < kColumns; ++c) {
    for (int v = 0; v < kVectors; ++v) hn::Store(offset[c * kVectors + v], F32(), offsets + v * kFloatLanes);
    for (int r = 0; r < kRows; ++r) {
      out[r * out_stride + c] =
          hn::GetLane(hn::SumOfLanes(F32(), sum[c * kRows + r])) + Type::kOffsetFactor * offsets[r];
    }
  }
}

/// Matrix rows of types with one block for each group, against one row.
template <StoredType kType, int kColumns>
HWY_INLINE void SmallColumns(const uint8_t* HWY_RESTRICT weights, int64_t k, const PreparedRow& row,
                             float* HWY_RESTRICT out) {
  const int64_t groups = k / kGroup;
  Floats sum[kColumns], offset[kColumns];
  LOOPSERVE_UNROLL
  for (int c = 0; c < kColumns; ++c) sum[c] = offset[c] = hn::Zero(F32());
  SmallBlocks<kType, kColumns>(weights, groups * Format<kType>::kGroupBytes, groups, row, sum, offset);
  for (int c = 0; c < kColumns; ++c) {
    // All odd lanes of an offset are the same.
    const float offsets = Format<kType>::kOffsetFactor * hn::GetLane(hn::DupOdd(offset[c]));
    out[c] = hn::GetLane(hn::SumOfLanes(F32(), sum[c])) + offsets;
  }
}

/// A matrix row of a type of 8 groups in a block.
template <StoredType kType, int kRows>
HWY_INLINE void ColumnK(const uint8_t* HWY_RESTRICT weights, int64_t k, const PreparedRow* rows,
                        float* HWY_RESTRICT out, int64_t out_stride) {
  Floats sum[2 * kRows], offset[kRows];
  LOOPSERVE_UNROLL
  for (int r = 0; r < kRows; ++r) sum[2 * r] = sum[2 * r + 1] = offset[r] = hn::Zero(F32());
  for (int64_t g = 0; g < k / kGroup; g += kBlockGroups, weights += Format<kType>::kBlockBytes) {
    FetchAhead(weights, Format<kType>::kBlockBytes);
    if constexpr (kType == StoredType::kQ6_K) {
      BlockQ6<kRows>(weights, rows, g, sum);
    } else {
      BlockK<kType, kRows>(weights, rows, g, sum, offset);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    const float offsets = hn::GetLane(hn::SumOfLanes(F32(), offset[r]));
    out[r * out_stride] = hn::GetLane(hn::SumOfLanes(F32(), hn::Add(sum[2 * r], sum[2 * r + 1]))) + offsets;
  }
}

template <StoredType kType>
constexpr bool kIsSmall = kType != StoredType::kQ4_K&& kType != StoredType::kQ5_K&& kType != StoredType::kQ6_K;
/// Whether there are 32 registers, of 256 bits.
constexpr bool kManyRegisters = HWY_TARGET <= HWY_AVX3 && kFloatLanes == 8;

template <StoredType kType, int kRows>
HWY_NOINLINE void Columns(const uint8_t* HWY_RESTRICT weights, int64_t k, const PreparedRow* rows,
                          const float* HWY_RESTRICT groups_of_rows, int64_t n_columns, float* HWY_RESTRICT out,
                          int64_t out_stride) {
  int64_t c = 0;
  if constexpr (!kIsSmall<kType>) {
    const int64_t row_bytes = k / (kGroup * kBlockGroups) * Format<kType>::kBlockBytes;
    for (; c < n_columns; ++c) ColumnK<kType, kRows>(weights + c * row_bytes, k, rows, out + c, out_stride);
  } else if constexpr (kRows == 1) {
    constexpr int kColumns = 4;  // as many as leave registers for the rest
    const int64_t row_bytes = k / kGroup * Format<kType>::kGroupBytes;
    for (; c + kColumns <= n_columns; c += kColumns) {
      SmallColumns<kType, kColumns>(weights + c * row_bytes, k, *rows, out + c);
    }
    for (; c < n_columns; ++c) SmallColumns<kType, 1>(weights + c * row_bytes, k, *rows, out + c);
  } else {
    const int64_t row_bytes = k / kGroup * Format<kType>::kGroupBytes;
    constexpr int kColumns = kManyRegisters ? 4 : 2;
    for (; c + kColumns <= n_columns; c += kColumns) {
      SmallColumnsOfRows<kType, kRows, kColumns>(weights + c * row_bytes, k, rows, groups_of_rows, out + c, out_stride);
    }
    for (; c < n_columns; ++c) {
      SmallColumnsOfRows<kType, kRows, 1>(weights + c * row_bytes, k, rows, groups_of_rows, out + c, out_stride);
    }
  }
}

template <StoredType kType>
void ColumnsOfType(const uint8_t* weights, int64_t k, const PreparedRow* rows, const float* groups_of_rows, int n_rows,
                   int64_t n_columns, float* out, int64_t out_stride) {
  switch (n_rows) {
    case 1:
      return Columns<kType, 1>(weights, k, rows, groups_of_rows, n_columns, out, out_stride);
    case 2:
      return Columns<kType, 2>(weights, k, rows, groups_of_rows, n_columns, out, out_stride);
    case 3:
      return Columns<kType, 3>(weights, k, rows, groups_of_rows, n_columns, out, out_stride);
    default:
      return Columns<kType, 4>(weights, k, rows, groups_of_rows, n_columns, out, out_stride);
  }
}

void ColumnsImpl(StoredType type, const uint8_t* weights, int64_t k, const PreparedRow* rows,
                 const float* groups_of_rows, int n_rows, int64_t n_columns, float* out, int64_t out_stride) {
  switch (type) {
#define LOOPSERVE_TYPE(NAME) \
  case StoredType::NAME:     \
    return ColumnsOfType<StoredType::NAME>(weights, k, rows, groups_of_rows, n_rows, n_columns, out, out_stride);
    LOOPSERVE_TYPE(kQ4_0)
    LOOPSERVE_TYPE(kQ4_1)
    LOOPSERVE_TYPE(kQ5_0)
    LOOPSERVE_TYPE(kQ5_1)
    LOOPSERVE_TYPE(kQ8_0)
    LOOPSERVE_TYPE(kQ4_K)
    LOOPSERVE_TYPE(kQ5_K)
    LOOPSERVE_TYPE(kQ6_K)
#undef LOOPSERVE_TYPE
  }
}

#else  // vectors of one lane

void ColumnsImpl(StoredType type, const uint8_t* weights, int64_t k, const PreparedRow* rows, const float*, int n_rows,
                 int64_t n_columns, float* out, int64_t out_stride) {
  StoredColumnsPlain(type, weights, k, rows, n_rows, n_columns, out, out_stride);
}

#endif

}  // namespace
}  // namespace loopserve::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace loopserve {

/// More rows than are multiplied at a time go over so many bytes of weights before they go on: weights come from memory
/// once.
constexpr int64_t kBlockBytes = 65536;

HWY_EXPORT(PrepareRowImpl);
HWY_EXPORT(ColumnsImpl);

StoredBlock BlockOf(StoredType type) {
  switch (type) {
    case StoredType::kQ4_0:
      return {32, 18};
    case StoredType::kQ4_1:
      return {32, 20};
    case StoredType::kQ5_0:
      return {32, 22};
    case StoredType::kQ5_1:
      return {32, 24};
    case StoredType::kQ8_0:
      return {32, 34};
    case StoredType::kQ4_K:
      return {256, 144};
    case StoredType::kQ5_K:
      return {256, 176};
    case StoredType::kQ6_K:
      return {256, 210};
  }
  return {};
}

size_t PreparedRowBytes(int64_t k) { return PreparedIntBytes(k) + 4 * PreparedGroups(k) * sizeof(float); }

void PrepareRow(const float* x, int64_t k, std::byte* prepared) {
  const PreparedRow row = PreparedRowAt(prepared, k);
  HWY_DYNAMIC_DISPATCH(PrepareRowImpl)
  (x, k, const_cast<int16_t*>(row.ints), const_cast<float*>(row.pairs), const_cast<float*>(row.scales),
   const_cast<float*>(row.sums));
}

size_t PreparedBytes(int64_t k, int64_t n_rows) {
  const size_t of_parts = n_rows == 1 ? 0 : static_cast<size_t>(RowParts(n_rows)) * PartGroupsBytes(k);
  return static_cast<size_t>(n_rows) * PreparedRowBytes(k) + of_parts;
}

void PrepareTogether(std::byte* prepared, int64_t k, int64_t n_rows) {
  if (n_rows == 1) return;
  for (int64_t part = 0; part < RowParts(n_rows); ++part) {
    float* target = const_cast<float*>(GroupsOfRows(prepared, k, n_rows, part));
    std::memset(target, 0, PartGroupsBytes(k));
    const int64_t first = FirstRowOfPart(n_rows, part), end = FirstRowOfPart(n_rows, part + 1);
    for (int64_t r = first; r < end; ++r) {
      const PreparedRow row = PreparedRowAt(prepared + static_cast<size_t>(r) * PreparedRowBytes(k), k);
      for (int64_t g = 0; g < k / 32; ++g) {
        target[2 * kPaddedRows * g + r - first] = row.scales[g];
        target[2 * kPaddedRows * g + kPaddedRows + r - first] = row.sums[g];
      }
    }
  }
}

void StoredProduct(const StoredMatrix& matrix, const std::byte* prepared, int64_t n_rows, int64_t first_column,
                   int64_t n_columns, float* out, int64_t out_stride) {
  const StoredBlock block = BlockOf(matrix.type);
  LS_CHECK(matrix.k % block.weights == 0 && first_column + n_columns <= matrix.n);
  const int64_t row_bytes = matrix.k / block.weights * block.bytes;
  const auto* weights = reinterpret_cast<const uint8_t*>(matrix.data) + first_column * row_bytes;
  const int64_t n_parts = RowParts(n_rows);
  const int64_t block_columns = n_parts == 1 ? n_columns : std::max<int64_t>(4, kBlockBytes / row_bytes / 4 * 4);
  for (int64_t column = 0; column < n_columns; column += block_columns) {
    const int64_t columns = std::min(block_columns, n_columns - column);
    for (int64_t part = 0; part < n_parts; ++part) {
      const int64_t first = FirstRowOfPart(n_rows, part);
      const auto count = static_cast<int>(FirstRowOfPart(n_rows, part + 1) - first);
      PreparedRow rows[kMaxProductRows];
      for (int r = 0; r < count; ++r) {
        rows[r] = PreparedRowAt(prepared + static_cast<size_t>(first + r) * PreparedRowBytes(matrix.k), matrix.k);
      }
      HWY_DYNAMIC_DISPATCH(ColumnsImpl)
      (matrix.type, weights + column * row_bytes, matrix.k, rows, GroupsOfRows(prepared, matrix.k, n_rows, part), count,
       columns, out + first * out_stride + column, out_stride);
    }
  }
}

}  // namespace loopserve
#endif  // HWY_ONCE
