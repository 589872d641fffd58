#include "src/cli/inspect_report.h"
#include "src/cli/inspect_summary.h"

namespace loopserve {
namespace {

Json OverlapToJson(const std::optional<OverlapMeans>& overlap) {
  if (!overlap) return nullptr;
  return {{"of_smaller", overlap->of_smaller}, {"jaccard", overlap->jaccard}, {"by_chance", overlap->by_chance}};
}

Json SummaryToJson(const AttentionSummary& summary) {
  Json json = {{"density", summary.density}};
  if (summary.density_p10) json["density_p10"] = *summary.density_p10;
  if (summary.density_p90) json["density_p90"] = *summary.density_p90;
  json["floor"] = summary.floor;
  json["sampled_coverage"] = summary.sampled_coverage;
  json["heldout_coverage"] = JsonOrNull(summary.heldout_coverage);
  json["columns"] = summary.columns;
  json["slashes"] = summary.slashes;
  json["column_share"] = summary.column_share;
  json["sink_share"] = summary.sink_share;
  json["near_share"] = summary.near_share;
  json["column_overlap"] = OverlapToJson(summary.column_overlap);
  json["slash_overlap"] = OverlapToJson(summary.slash_overlap);
  json["column_resampled"] = OverlapToJson(summary.column_resampled);
  json["slash_resampled"] = OverlapToJson(summary.slash_resampled);
  json["coverage_by_last_lines"] = JsonOrNull(summary.coverage_by_last_lines);
  return json;
}

Json LinesToJson(const std::vector<AttentionLine>& lines) {
  Json indices = Json::array(), weights = Json::array();
  for (const AttentionLine& line : lines) {
    indices.push_back(line.index);
    weights.push_back(line.weight);
  }
  return {{"index", std::move(indices)}, {"weight", std::move(weights)}};
}

Json LayerToJson(std::span<const HeadInTurn> heads, bool with_lines) {
  Json json = {{"layer", heads.front().layer}};
  json.update(SummaryToJson(Summarize(heads)));
  Json of_heads = Json::array();
  for (const HeadInTurn& head : heads) {
    Json of_head = {{"head", head.head}};
    of_head.update(SummaryToJson(Summarize({&head, 1})));
    of_head["columns"] = head.now->columns.size();
    of_head["slashes"] = head.now->slashes.size();
    of_head["computed_pairs"] = head.now->computed_pairs;
    if (with_lines) {
      of_head["column_lines"] = LinesToJson(head.now->columns);
      of_head["slash_lines"] = LinesToJson(head.now->slashes);
    }
    of_heads.push_back(std::move(of_head));
  }
  json["heads"] = std::move(of_heads);
  return json;
}

}  // namespace

Json InspectReportToJson(const InspectReport& report) {
  const std::vector<TurnAttention>& turns = report.inspector.turns;
  const bool with_lines = report.inspector.options.layer.has_value();
  Json of_turns = Json::array();
  std::vector<HeadInTurn> all;
  for (size_t i = 0; i < turns.size(); ++i) {
    const std::vector<HeadInTurn> heads = HeadsOf(turns[i], i > 0 ? &turns[i - 1] : nullptr);
    all.insert(all.end(), heads.begin(), heads.end());
    Json turn = {{"first_position", turns[i].first_position},
                 {"new_tokens", turns[i].n_rows},
                 {"keys", turns[i].n_keys()},
                 {"prefill_density", JsonOrNull(report.prefill_density[i])},
                 {"all", SummaryToJson(Summarize(heads))},
                 {"layers", Json::array()}};
    const size_t n_heads = turns[i].layers.front().heads.size();
    for (size_t first = 0; first < heads.size(); first += n_heads) {
      turn["layers"].push_back(LayerToJson(std::span(heads).subspan(first, n_heads), with_lines));
    }
    of_turns.push_back(std::move(turn));
  }
  return {{"all", SummaryToJson(Summarize(all))}, {"turns", std::move(of_turns)}};
}

}  // namespace loopserve
