#include "src/selection/shape/attention_shape.h"

#include <algorithm>

namespace loopserve {
namespace {

int64_t ScaledToContext(int64_t size, int64_t n_keys, int64_t reference_keys) {
  if (n_keys >= reference_keys) return size;
  return (size * n_keys + reference_keys - 1) / reference_keys;  // sizes and lengths are below 2^32: no overflow
}

}  // namespace

int64_t AttentionShape::LocalBegin(int64_t position) const {
  return position >= first_dense ? 0 : std::max<int64_t>(0, position + 1 - local);
}

int64_t AttentionShape::SinkEnd(int64_t position) const { return std::min(sinks, LocalBegin(position)); }

bool AttentionShape::LeavesSomethingOut() const {
  // Of the rows that may, the last has the most keys.
  return first_dense > first_position && LocalBegin(first_dense - 1) > sinks;
}

AttentionShape MakeAttentionShape(const PrefillSettings& settings, int64_t n_rows, int64_t n_keys) {
  AttentionShape shape;
  shape.first_position = n_keys - n_rows;
  shape.sinks = ScaledToContext(settings.sinks, n_keys, settings.reference_keys);
  shape.local = std::max<int64_t>(1, ScaledToContext(settings.local, n_keys, settings.reference_keys));
  shape.first_dense = n_keys - std::min(settings.last_rows, n_rows);
  return shape;
}

}  // namespace loopserve
