// Means of what several turns or windows computed and lost. Thread rule: one owner.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>

#include "bench/text_score.h"

namespace loopserve::bench {

inline constexpr std::optional<double> WindowFigures::*kWindowFigures[] = {
    &WindowFigures::prefill_density,  &WindowFigures::coverage_heldout,    &WindowFigures::output_error,
    &WindowFigures::output_error_p90, &WindowFigures::floor_density,       &WindowFigures::floor_error,
    &WindowFigures::decode_coverage,  &WindowFigures::decode_coverage_p10, &WindowFigures::decode_kv_fraction,
};

/// Means of the figures of several turns or windows, weighted by their tokens.
class FigureMeans {
 public:
  void Add(const WindowFigures& figures, int64_t tokens) {
    for (size_t i = 0; i < std::size(kWindowFigures); ++i) {
      const std::optional<double>& value = figures.*kWindowFigures[i];
      if (!value) continue;
      sums_[i] += *value * static_cast<double>(tokens);
      tokens_[i] += static_cast<double>(tokens);
    }
  }
  WindowFigures mean() const {
    WindowFigures figures;
    for (size_t i = 0; i < std::size(kWindowFigures); ++i) {
      if (tokens_[i] > 0) figures.*kWindowFigures[i] = sums_[i] / tokens_[i];
    }
    return figures;
  }

 private:
  double sums_[std::size(kWindowFigures)] = {};
  double tokens_[std::size(kWindowFigures)] = {};
};

}  // namespace loopserve::bench
