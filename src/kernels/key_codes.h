// Keys in one bit per element: enough to tell which keys a query attends, at a thirty-second of what keys and values
// take in f16. An element of a key is stored as the number of one of 2^bits levels around the mean of its neighbours;
// elements that decide scores get up to four bits, most get none (selection/decode/codebook.h shares the bits out).
// The bits of a key fill head_dim / 4 groups of four, nibbles, and a score is a sum of one table entry for each nibble,
// looked up for many keys at once by a byte shuffle (as in Quicker ADC, arXiv 1812.09162; the tables are the query's).
//
// Flow: EncodeKeys once for each group of 64 keys; for a query MakeCodeTables, ScoreCodes, ExpGroups.
// Thread rule: pure functions; nothing here allocates but what returns a vector.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace loopserve {

/// Keys that are coded together.
inline constexpr int kCodeGroupKeys = 64;
/// Bits of one element, at most.
inline constexpr int kMaxCodeBits = 4;
/// Queries that are scored in one pass over the codes, at most.
inline constexpr int kMaxCodeQueries = 8;

/// How the keys of a run of neighbours are coded. Elements without bits count as their mean.
struct KeyCodebook {
  /// An element that has bits: they stand in `nibble`, from bit `shift` on.
  struct Place {
    uint16_t element;
    uint8_t nibble;
    uint8_t shift;
    uint8_t bits;
  };
  int head_dim = 0;              ///< a multiple of 8
  std::vector<float> mean;       ///< [head_dim]
  std::vector<float> deviation;  ///< [head_dim], the standard deviation; above zero
  std::vector<Place> places;     ///< by nibble

  int n_nibbles() const { return head_dim / 4; }
};

/// Bytes of the codes of a group.
constexpr size_t CodeGroupBytes(int head_dim) { return static_cast<size_t>(head_dim) / 8 * kCodeGroupKeys; }
/// Bytes of a query's tables.
constexpr size_t CodeTableBytes(int head_dim) { return static_cast<size_t>(head_dim) / 4 * 16; }

/// Codes of kCodeGroupKeys keys, f32 [kCodeGroupKeys][head_dim], CodeGroupBytes of them.
void EncodeKeys(const KeyCodebook& book, const float* keys, uint8_t* codes);
/// The plain twin's half: what key `key` of a group counts as, f32 [head_dim].
void DecodeKey(const KeyCodebook& book, const uint8_t* codes, int key, float* target);

/// The tables of one query: score = base + step * (sum of an entry of [0, 127] for each nibble).
struct CodeTables {
  const uint8_t* rows = nullptr;  ///< [n_nibbles][16], CodeTableBytes
  float base = 0;
  float step = 0;
};

/// Tables of a query (f32 [head_dim]), whose entries are written to `rows`; scores are factor * q . key, each within
/// n_nibbles * step / 2 of what DecodeKey gives. A query that is not finite gives a base that is NaN.
CodeTables MakeCodeTables(const KeyCodebook& book, const float* q, float factor, uint8_t* rows);

/// Scores of the keys of n_groups groups for up to kMaxCodeQueries queries: scores[i * stride + key].
void ScoreCodes(const uint8_t* codes, int n_groups, int head_dim, const CodeTables* tables, int n_queries,
                float* scores, int64_t stride);

/// Scores, in units of log2, to weights relative to the largest, in place; sums[g] = the weights of group g. Returns
/// the largest score, or NaN where a score is.
float ExpGroups(float* scores, int n_groups, float* sums);

/// The heavy of keys [0, n), n a multiple of 16, by total(t) = sum over i of factor[i] * weights[i * stride + t]: those
/// with a total of at least `least`, ascending, as numbers and totals; returns how many. Room for n in
/// both. A total that is NaN is not heavy.
/// Numbers and totals behind the last, up to a multiple of 16, are 0.
int64_t FindHeavy(const float* weights, int64_t stride, const float* factor, int n_queries, int64_t n, float least,
                  int32_t* numbers, float* totals);

}  // namespace loopserve
