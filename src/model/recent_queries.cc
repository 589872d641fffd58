#include "src/model/recent_queries.h"

#include <algorithm>
#include <cstring>

#include "src/base/check.h"

namespace loopserve {

RecentQueries::RecentQueries(int n_layers, int n_positions, int64_t width)
    : n_positions_(n_positions),
      width_(width),
      position_of_(static_cast<size_t>(n_layers) * static_cast<size_t>(n_positions), -1),
      queries_(position_of_.size() * static_cast<size_t>(width)) {}

void RecentQueries::Store(int layer, int64_t first_position, int64_t n_rows, const float* q) {
  if (n_positions_ == 0) return;
  for (int64_t row = std::max<int64_t>(0, n_rows - n_positions_); row < n_rows; ++row) {
    const int64_t position = first_position + row;
    const auto slot = static_cast<size_t>(int64_t{layer} * n_positions_ + position % n_positions_);
    position_of_[slot] = position;
    std::copy_n(q + row * width_, width_, queries_.begin() + static_cast<std::ptrdiff_t>(slot) * width_);
  }
}

void RecentQueries::Truncate(int64_t n_tokens) {
  for (int64_t& position : position_of_) {
    if (position >= n_tokens) position = -1;
  }
}

RecentQueries RecentQueries::Newest(int n_positions) const {
  LS_CHECK(n_positions <= n_positions_);
  if (n_positions == n_positions_) return *this;
  const int n_layers = static_cast<int>(position_of_.size() / static_cast<size_t>(n_positions_));
  RecentQueries newest(n_layers, n_positions, width_);
  for (int layer = 0; layer < n_layers; ++layer) {
    const auto held = position_of_.begin() + int64_t{layer} * n_positions_;
    const int64_t last = *std::max_element(held, held + n_positions_);
    for (int64_t position = std::max<int64_t>(0, last - n_positions + 1); position <= last; ++position) {
      if (const float* q = Find(layer, position)) newest.Store(layer, position, 1, q);
    }
  }
  return newest;
}

const float* RecentQueries::Find(int layer, int64_t position) const {
  if (n_positions_ == 0 || position < 0) return nullptr;
  const auto slot = static_cast<size_t>(int64_t{layer} * n_positions_ + position % n_positions_);
  return position_of_[slot] == position ? queries_.data() + static_cast<std::ptrdiff_t>(slot) * width_ : nullptr;
}

std::vector<std::byte> RecentQueries::Encode() const {
  const size_t row_bytes = static_cast<size_t>(width_) * sizeof(float);
  const size_t positions_bytes = position_of_.size() * sizeof(int64_t);
  const auto n_held = static_cast<size_t>(std::ranges::count_if(position_of_, [](int64_t p) { return p >= 0; }));
  std::vector<std::byte> bytes(positions_bytes + n_held * row_bytes);
  std::ranges::copy(std::as_bytes(std::span(position_of_)), bytes.begin());  // there may be none
  std::byte* target = bytes.data() + positions_bytes;
  for (size_t slot = 0; slot < position_of_.size(); ++slot) {
    if (position_of_[slot] < 0) continue;
    std::memcpy(target, queries_.data() + slot * static_cast<size_t>(width_), row_bytes);
    target += row_bytes;
  }
  return bytes;
}

bool RecentQueries::Decode(std::span<const std::byte> bytes, int64_t n_tokens) {
  const size_t row_bytes = static_cast<size_t>(width_) * sizeof(float);
  const size_t positions_bytes = position_of_.size() * sizeof(int64_t);
  if (bytes.size() < positions_bytes) return false;
  std::vector<int64_t> positions(position_of_.size());
  std::ranges::copy(bytes.first(positions_bytes), std::as_writable_bytes(std::span(positions)).begin());
  size_t n_held = 0;
  for (size_t slot = 0; slot < positions.size(); ++slot) {
    const int64_t position = positions[slot];
    if (position < 0) continue;
    const bool in_its_slot = position % n_positions_ == static_cast<int64_t>(slot) % n_positions_;
    if (position >= n_tokens || !in_its_slot) return false;
    ++n_held;
  }
  if (bytes.size() != positions_bytes + n_held * row_bytes) return false;
  const std::byte* source = bytes.data() + positions_bytes;
  for (size_t slot = 0; slot < positions.size(); ++slot) {
    if (positions[slot] < 0) {
      position_of_[slot] = -1;
      continue;
    }
    position_of_[slot] = positions[slot];
    std::memcpy(queries_.data() + slot * static_cast<size_t>(width_), source, row_bytes);
    source += row_bytes;
  }
  return true;
}

}  // namespace loopserve
