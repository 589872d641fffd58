// The newest queries of a dialogue, by which decode steps choose. Thread rule: one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

/// The queries (after RoPE) of the newest positions, of every layer: a ring over positions.
class RecentQueries {
 public:
  /// n_positions 0: keeps nothing. width: floats of one position's queries, all heads.
  RecentQueries(int n_layers, int n_positions, int64_t width);

  int n_positions() const { return n_positions_; }
  /// Keeps the last of rows [first_position, first_position + n_rows) of a layer; q: f32 [n_rows, width].
  void Store(int layer, int64_t first_position, int64_t n_rows, const float* q);
  /// Forgets positions from n_tokens on.
  void Truncate(int64_t n_tokens);
  /// The same with fewer positions: the newest of every layer. n_positions: at most as many as here.
  RecentQueries Newest(int n_positions) const;
  /// The queries of `position`, or null if they are not held.
  const float* Find(int layer, int64_t position) const;

  /// For snapshots: the position of every slot, i64 [n_layers][n_positions], -1 where it is empty; then the queries of
  /// the others, f32 [width] each, in this order.
  std::vector<std::byte> Encode() const;
  /// Takes the queries of an Encode by an object of the same shape whose dialogue had n_tokens tokens. False, and
  /// nothing changed, if the bytes are not such.
  bool Decode(std::span<const std::byte> bytes, int64_t n_tokens);

 private:
  int n_positions_;
  int64_t width_;
  std::vector<int64_t> position_of_;  ///< [n_layers][n_positions], -1 = empty
  std::vector<float> queries_;        ///< [n_layers][n_positions][width]
};

}  // namespace loopserve
