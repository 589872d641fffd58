#include "src/selection/decode/codebook.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

#include "src/base/check.h"

namespace loopserve {
namespace {

/// Mean square error of a normal variable of variance 1 in levels of so many bits (Lloyd, Max).
constexpr std::array<float, kMaxCodeBits + 1> kError = {1.0f, 0.3634f, 0.1175f, 0.03454f, 0.009497f};

/// Elements with 0, 1, ... bits.
using Counts = std::array<int, kMaxCodeBits + 1>;

/// Three bits leave one that only a single bit fills; twos and ones fill the rest without a gap.
int NibblesOf(const Counts& n) {
  const int ones = std::max(0, n[1] - n[3]);
  return n[4] + n[3] + (2 * n[2] + ones + 3) / 4;
}

}  // namespace

std::vector<uint8_t> ShareOutBits(std::span<const float> energy, int n_nibbles) {
  std::vector<uint8_t> bits(energy.size(), 0);
  Counts counts = {};
  counts[0] = static_cast<int>(energy.size());
  const auto fits = [&](int from, int by) {
    Counts after = counts;
    --after[static_cast<size_t>(from)];
    ++after[static_cast<size_t>(from + by)];
    return NibblesOf(after) <= n_nibbles;
  };
  while (true) {
    bool has_room[3][kMaxCodeBits + 1] = {};
    for (int by = 1; by <= 2; ++by) {
      for (int from = 0; from + by <= kMaxCodeBits; ++from) has_room[by][from] = fits(from, by);
    }
    float best = 0;
    size_t chosen = energy.size();
    int chosen_by = 0;
    // A step of two where one does not fit: from two bits to four, which leave no gap.
    for (int by = 1; by <= 2 && chosen == energy.size(); ++by) {
      for (size_t i = 0; i < energy.size(); ++i) {
        if (!has_room[by][bits[i]]) continue;
        const float gain = energy[i] * (kError[bits[i]] - kError[static_cast<size_t>(bits[i] + by)]);
        if (gain <= best) continue;
        best = gain;
        chosen = i;
        chosen_by = by;
      }
    }
    if (chosen == energy.size()) return bits;
    --counts[bits[chosen]];
    bits[chosen] = static_cast<uint8_t>(bits[chosen] + chosen_by);
    ++counts[bits[chosen]];
  }
}

std::vector<KeyCodebook::Place> PlaceBits(std::span<const uint8_t> bits, int n_nibbles) {
  std::vector<int> used(static_cast<size_t>(n_nibbles), 0);
  std::vector<KeyCodebook::Place> places;
  // The widest first, each into the first nibble that has room: single bits end up beside threes.
  for (int width = kMaxCodeBits; width >= 1; --width) {
    size_t nibble = 0;
    for (size_t i = 0; i < bits.size(); ++i) {
      if (bits[i] != width) continue;
      while (nibble < used.size() && used[nibble] + width > 4) ++nibble;
      LS_CHECK(nibble < used.size());
      places.push_back({static_cast<uint16_t>(i), static_cast<uint8_t>(nibble), static_cast<uint8_t>(used[nibble]),
                        static_cast<uint8_t>(width)});
      used[nibble] += width;
    }
  }
  std::ranges::stable_sort(places, {}, &KeyCodebook::Place::nibble);
  return places;
}

bool FitCodebook(std::span<const float> keys, std::span<const float> query_energy, KeyCodebook* book) {
  const size_t head_dim = query_energy.size();
  const size_t n_keys = keys.size() / head_dim;
  LS_CHECK(n_keys >= 1 && head_dim % 8 == 0);
  std::vector<float> mean(head_dim, 0.0f), square(head_dim, 0.0f), energy(head_dim);
  for (size_t key = 0; key < n_keys; ++key) {
    for (size_t i = 0; i < head_dim; ++i) mean[i] += keys[key * head_dim + i];
  }
  const float share = 1.0f / static_cast<float>(n_keys);
  for (float& x : mean) x *= share;
  for (size_t key = 0; key < n_keys; ++key) {
    for (size_t i = 0; i < head_dim; ++i) {
      const float x = keys[key * head_dim + i] - mean[i];
      square[i] += x * x;
    }
  }
  float mean_query_energy = 0;
  for (const float x : query_energy) mean_query_energy += x / static_cast<float>(head_dim);
  for (size_t i = 0; i < head_dim; ++i) {
    // Queries to come are not quite those of now: no element's weight is nothing.
    energy[i] = (query_energy[i] + 0.05f * mean_query_energy) * square[i] * share;
    if (!std::isfinite(energy[i]) || !std::isfinite(mean[i])) return false;
  }
  book->head_dim = static_cast<int>(head_dim);
  const std::vector<uint8_t> bits = ShareOutBits(energy, book->n_nibbles());
  book->places = PlaceBits(bits, book->n_nibbles());
  book->mean = std::move(mean);
  book->deviation.resize(head_dim);
  for (size_t i = 0; i < head_dim; ++i) book->deviation[i] = std::sqrt(std::max(square[i] * share, 1e-30f));
  return true;
}

}  // namespace loopserve
