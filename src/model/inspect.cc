#include "loopserve/inspect.h"

#include <algorithm>
#include <string>

namespace loopserve {
namespace {

constexpr int kMaxRows = 4096;  // of a sample: what ChooseLines takes

Status OutOfRange(const std::string& what, int64_t value, int64_t first, int64_t last) {
  return Status(StatusCode::kInvalidArgument, what + " must be " + std::to_string(first) + " to " +
                                                  std::to_string(last) + ", not " + std::to_string(value));
}

}  // namespace

Status InspectOptions::Validate(std::span<const int64_t> layer_windows, int n_heads) const {
  if (!(alpha > 0 && alpha <= 1)) {
    return Status(StatusCode::kInvalidArgument, "alpha must be above 0 and at most 1, not " + std::to_string(alpha));
  }
  if (sample_rows < 1 || sample_rows > kMaxRows) return OutOfRange("rows", sample_rows, 1, kMaxRows);
  if (heldout_rows < 0 || heldout_rows > kMaxRows) return OutOfRange("held-out rows", heldout_rows, 0, kMaxRows);
  if (map_cells < 1 || map_cells > kMaxRows) return OutOfRange("the map's cells", map_cells, 1, kMaxRows);
  const auto n_layers = static_cast<int64_t>(layer_windows.size());
  if (layer && (*layer < 0 || *layer >= n_layers)) {
    return OutOfRange("the layer", *layer, 0, n_layers - 1);
  }
  if (map_head && !layer) return Status(StatusCode::kInvalidArgument, "a head needs its layer");
  if (map_head && (*map_head < 0 || *map_head >= n_heads)) return OutOfRange("the head", *map_head, 0, n_heads - 1);
  if (!layer) return Status::Ok();
  if (const int64_t window = layer_windows[static_cast<size_t>(*layer)]; window > 0) {
    std::string others;
    for (size_t i = 0; i < layer_windows.size(); ++i) {
      if (layer_windows[i] == 0) others += (others.empty() ? "" : ", ") + std::to_string(i);
    }
    return Status(StatusCode::kUnsupported,
                  "layer " + std::to_string(*layer) + " has a sliding window of " + std::to_string(window) +
                      " keys and is always dense; layers without one: " + (others.empty() ? "none" : others));
  }
  return Status::Ok();
}

double LineOverlap::of_smaller() const {
  const int64_t smaller = std::min(before, now);
  return smaller > 0 ? static_cast<double>(both) / static_cast<double>(smaller) : 0.0;
}

double LineOverlap::jaccard() const {
  return any() ? static_cast<double>(both) / static_cast<double>(before + now - both) : 0.0;
}

double LineOverlap::by_chance() const {
  const bool none = std::min(before, now) == 0;
  return none ? 0.0 : static_cast<double>(std::max(before, now)) / static_cast<double>(possible);
}

LineOverlap OverlapOfLines(std::span<const AttentionLine> before, std::span<const AttentionLine> now,
                           int64_t n_keys_before) {
  const auto possible = [n_keys_before](std::span<const AttentionLine> lines) {
    return lines.first(
        static_cast<size_t>(std::ranges::lower_bound(lines, n_keys_before, {}, &AttentionLine::index) - lines.begin()));
  };
  const std::span<const AttentionLine> a = possible(before), b = possible(now);
  LineOverlap overlap;
  overlap.possible = n_keys_before;
  overlap.before = static_cast<int64_t>(a.size());
  overlap.now = static_cast<int64_t>(b.size());
  for (size_t i = 0, k = 0; i < a.size() && k < b.size();) {
    if (a[i].index == b[k].index) ++overlap.both;
    const bool step_a = a[i].index <= b[k].index, step_b = b[k].index <= a[i].index;
    i += step_a ? 1 : 0;
    k += step_b ? 1 : 0;
  }
  return overlap;
}

}  // namespace loopserve
