#include "src/cli/inspect_summary.h"

#include <algorithm>

namespace loopserve {
namespace {

class Mean {
 public:
  void Add(double value) {
    sum_ += value;
    ++n_;
  }
  std::optional<double> value() const { return n_ > 0 ? std::optional(sum_ / static_cast<double>(n_)) : std::nullopt; }

 private:
  double sum_ = 0;
  int64_t n_ = 0;
};

template <typename OfHead>
double MeanOver(std::span<const HeadInTurn> heads, OfHead of_head) {
  Mean mean;
  for (const HeadInTurn& head : heads) mean.Add(static_cast<double>(of_head(*head.now)));
  return *mean.value();
}

template <typename OfHead>
std::optional<double> MeanOverSome(std::span<const HeadInTurn> heads, OfHead of_head) {
  Mean mean;
  for (const HeadInTurn& head : heads) {
    if (const std::optional<double> value = of_head(*head.now)) mean.Add(*value);
  }
  return mean.value();
}

template <typename OfHead>
std::optional<OverlapMeans> MeanOverlap(std::span<const HeadInTurn> heads, OfHead of_head) {
  Mean of_smaller, jaccard, by_chance;
  for (const HeadInTurn& head : heads) {
    const std::optional<LineOverlap> overlap = of_head(head);
    if (!overlap || !overlap->any()) continue;
    of_smaller.Add(overlap->of_smaller());
    jaccard.Add(overlap->jaccard());
    by_chance.Add(overlap->by_chance());
  }
  if (!of_smaller.value()) return std::nullopt;
  return OverlapMeans{*of_smaller.value(), *jaccard.value(), *by_chance.value()};
}

}  // namespace

std::optional<LineOverlap> HeadInTurn::ColumnOverlap() const {
  if (before == nullptr) return std::nullopt;
  return OverlapOfLines(before->columns, now->columns, n_keys_before);
}

std::optional<LineOverlap> HeadInTurn::SlashOverlap() const {
  if (before == nullptr) return std::nullopt;
  return OverlapOfLines(before->slashes, now->slashes, n_keys_before);
}

std::vector<HeadInTurn> HeadsOf(const TurnAttention& turn, const TurnAttention* before) {
  std::vector<HeadInTurn> heads;
  for (const LayerAttention& layer : turn.layers) {
    const LayerAttention* layer_before = nullptr;
    if (before != nullptr) {
      const auto found = std::ranges::find(before->layers, layer.layer, &LayerAttention::layer);
      if (found != before->layers.end()) layer_before = &*found;
    }
    for (size_t i = 0; i < layer.heads.size(); ++i) {
      HeadInTurn head{layer.layer, static_cast<int>(i), &layer.heads[i], nullptr, 0};
      if (layer_before != nullptr) {
        head.before = &layer_before->heads[i];
        head.n_keys_before = before->n_keys();
      }
      heads.push_back(head);
    }
  }
  return heads;
}

AttentionSummary Summarize(std::span<const HeadInTurn> heads) {
  AttentionSummary summary;
  std::vector<double> densities;
  for (const HeadInTurn& head : heads) densities.push_back(head.now->density);
  std::ranges::sort(densities);
  if (densities.size() > 1) {
    summary.density_p10 = densities[densities.size() / 10];
    summary.density_p90 = densities[densities.size() * 9 / 10];
  }
  summary.density = MeanOver(heads, [](const HeadAttention& head) { return head.density; });
  summary.sampled_coverage = MeanOver(heads, [](const HeadAttention& head) { return head.sampled_coverage; });
  summary.heldout_coverage = MeanOverSome(heads, [](const HeadAttention& head) { return head.heldout_coverage; });
  summary.coverage_by_last_lines =
      MeanOverSome(heads, [](const HeadAttention& head) { return head.coverage_by_last_lines; });
  summary.columns = MeanOver(heads, [](const HeadAttention& head) { return head.columns.size(); });
  summary.slashes = MeanOver(heads, [](const HeadAttention& head) { return head.slashes.size(); });
  summary.column_share = MeanOver(heads, [](const HeadAttention& head) { return head.column_share; });
  summary.sink_share = MeanOver(heads, [](const HeadAttention& head) { return head.sink_share; });
  summary.near_share = MeanOver(heads, [](const HeadAttention& head) { return head.near_share; });
  summary.floor = MeanOver(heads, [](const HeadAttention& head) { return head.floor; });
  summary.column_overlap = MeanOverlap(heads, [](const HeadInTurn& head) { return head.ColumnOverlap(); });
  summary.slash_overlap = MeanOverlap(heads, [](const HeadInTurn& head) { return head.SlashOverlap(); });
  summary.column_resampled = MeanOverlap(heads, [](const HeadInTurn& head) { return head.now->column_resampled; });
  summary.slash_resampled = MeanOverlap(heads, [](const HeadInTurn& head) { return head.now->slash_resampled; });
  return summary;
}

}  // namespace loopserve
