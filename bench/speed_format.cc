// The speed table as text for people, and its rates.
#include <algorithm>
#include <string>
#include <vector>

#include "bench/speed_table.h"
#include "src/base/format.h"

namespace loopserve::bench {
namespace {

/// Bytes of one key or value component, scales included.
double KvBytesPerValue(const EngineSpec& spec, int head_dim) {
  constexpr double kF16 = 2;
  constexpr double kQ8 = 34.0 / 32;                                              // an f16 scale for 32 values
  if (spec.engine == "openvino" && spec.kv != "f16") return 1 + 8.0 / head_dim;  // u8; f32 scale and zero point a head
  return spec.kv == "q8_0" ? kQ8 : kF16;
}

std::string Cell(const std::optional<double>& value, int decimals) {
  return value ? FormatFixed(*value, decimals) : "-";
}

/// Columns padded to their widest cell; the first two to the left, the others to the right.
std::string Align(const std::vector<std::vector<std::string>>& lines) {
  std::vector<size_t> widths;
  for (const auto& line : lines) {
    widths.resize(std::max(widths.size(), line.size()));
    for (size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
  }
  std::string text;
  for (const auto& line : lines) {
    for (size_t i = 0; i < line.size(); ++i) {
      const std::string padding(widths[i] - line[i].size(), ' ');
      text += i < 2 ? line[i] + padding + "  " : padding + line[i] + "  ";
    }
    while (text.ends_with(' ')) text.pop_back();
    text += '\n';
  }
  return text;
}

std::vector<std::string> RowCells(const SpeedRow& row, const SpeedRow* ours, const ModelCost& cost) {
  const RunFigures& figures = row.median;
  const Achieved achieved = AchievedBy(row, cost);
  std::optional<double> ttft_ratio, tpot_ratio, peak_mib;
  if (ours != nullptr) ttft_ratio = ours->median.ttft_ms / figures.ttft_ms;
  if (ours != nullptr && ours->median.tpot_ms && figures.tpot_ms) tpot_ratio = *ours->median.tpot_ms / *figures.tpot_ms;
  if (figures.peak_rss_bytes) peak_mib = *figures.peak_rss_bytes / (1 << 20);
  const std::string policy =
      row.spec.policy + (row.spec.engine != "loopserve" && row.best_ttft && row.best_tpot ? " (best)" : "");
  return {row.spec.engine,
          policy,
          FormatCount(row.speed_case.context_tokens),
          FormatCount(row.speed_case.new_tokens),
          FormatFixed(figures.ttft_ms, 1),
          Cell(ttft_ratio, 2),
          FormatFixed(achieved.prefill_gflops, 0),
          Cell(figures.tpot_ms, 2),
          Cell(tpot_ratio, 2),
          Cell(achieved.decode_gbytes_per_second, 1),
          Cell(figures.linear_ms, 0),
          Cell(figures.attention_ms, 0),
          Cell(figures.selection_ms, 0),
          Cell(figures.prefill_density, 3),
          Cell(figures.decode_kv_fraction, 3),
          Cell(peak_mib, 0)};
}

}  // namespace

Achieved AchievedBy(const SpeedRow& row, const ModelCost& cost) {
  Achieved achieved;
  const RunFigures& figures = row.median;
  const double flops = cost.PrefillFlops(row.speed_case, figures.prefill_density.value_or(1));
  achieved.prefill_gflops = flops / figures.ttft_ms / 1e6;
  if (figures.tpot_ms && *figures.tpot_ms > 0) {
    const int64_t keys =
        row.speed_case.context_tokens + row.speed_case.new_tokens + static_cast<int64_t>(figures.output.size()) / 2;
    const double bytes =
        cost.DecodeBytes(keys, KvBytesPerValue(row.spec, cost.params.head_dim), figures.decode_kv_fraction.value_or(1));
    achieved.decode_gbytes_per_second = bytes / *figures.tpot_ms / 1e6;
  }
  return achieved;
}

std::string FormatSpeedTable(const SpeedReport& report, const ModelCost& cost, const MachineBound& bound, int threads) {
  std::vector<std::vector<std::string>> lines = {{"engine", "policy", "context", "new", "TTFT ms", "ours/this",
                                                  "GFLOP/s", "TPOT ms", "ours/this", "GB/s", "linear", "attention",
                                                  "selection", "density", "KV read", "peak MiB"}};
  for (const SpeedRow& row : report.rows) {
    const auto ours = std::find_if(report.rows.begin(), report.rows.end(), [&](const SpeedRow& other) {
      return other.spec.engine == "loopserve" && other.speed_case.context_tokens == row.speed_case.context_tokens &&
             other.speed_case.new_tokens == row.speed_case.new_tokens;
    });
    lines.push_back(RowCells(row, ours == report.rows.end() ? nullptr : &*ours, cost));
  }
  std::string text = Align(lines);
  for (const SpeedSkip& skip : report.skipped) {
    text += "skipped: " + skip.spec.engine + " " + skip.spec.policy + ": " + skip.reason + "\n";
  }
  text += "this machine's bound with " + std::to_string(threads) +
          " threads, measured: " + FormatFixed(bound.f32_gflops, 0) + " GFLOP/s in f32" +
          (bound.bf16_gflops ? ", " + FormatFixed(*bound.bf16_gflops, 0) + " in bf16" : "") + ", " +
          FormatFixed(bound.read_gbytes_per_s, 1) + " GB/s from memory\n";
  return text;
}

}  // namespace loopserve::bench
