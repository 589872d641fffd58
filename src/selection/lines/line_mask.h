// Chosen lines as a test of single pairs: for measuring, where nothing is computed along them.
// Thread rule: read-only after construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace loopserve {

class LineMask {
 public:
  /// n_keys: one more than the largest index and position asked for. Indices outside are passed over.
  explicit LineMask(int64_t n_keys) : column_(static_cast<size_t>(n_keys)), slash_(static_cast<size_t>(n_keys)) {}

  void AddColumn(int64_t key) { Add(key, &column_); }
  void AddSlash(int64_t distance) { Add(distance, &slash_); }

  /// Pairs of the row at `position` with keys [first_key, end_key) on the lines; end_key <= position + 1.
  int64_t Count(int64_t position, int64_t first_key, int64_t end_key) const {
    int64_t count = 0;
    for (int64_t key = first_key; key < end_key; ++key) count += Holds(position, key);
    return count;
  }
  /// The sum of a row's weights, f32 [position + 1], on the lines; a pair on two of them counts once.
  double Share(const float* weights, int64_t position) const {
    double share = 0;
    for (int64_t key = 0; key <= position; ++key) share += Holds(position, key) != 0 ? weights[key] : 0.0f;
    return share;
  }

 private:
  uint8_t Holds(int64_t position, int64_t key) const {
    return column_[static_cast<size_t>(key)] | slash_[static_cast<size_t>(position - key)];
  }
  static void Add(int64_t index, std::vector<uint8_t>* of_kind) {
    if (index >= 0 && index < static_cast<int64_t>(of_kind->size())) (*of_kind)[static_cast<size_t>(index)] = 1;
  }

  std::vector<uint8_t> column_;
  std::vector<uint8_t> slash_;
};

}  // namespace loopserve
