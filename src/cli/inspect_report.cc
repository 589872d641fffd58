#include "src/cli/inspect_report.h"

#include <algorithm>

#include "src/base/format.h"
#include "src/base/utf8.h"
#include "src/cli/inspect_summary.h"

namespace loopserve {
namespace {

constexpr size_t kShownLines = 12;

std::string Right(const std::string& text, size_t width) {
  return std::string(width > text.size() ? width - text.size() : 0, ' ') + text;
}

std::string Share(std::optional<double> share) { return share ? FormatFixed(*share, 3) : "-"; }

std::string Jaccard(const std::optional<OverlapMeans>& turns, const std::optional<OverlapMeans>& samples) {
  if (!turns) return "-";
  return FormatFixed(turns->jaccard, 2) + (samples ? " of " + FormatFixed(samples->jaccard, 2) : "");
}

struct Column {
  const char* title;
  size_t width;
  std::string (*text)(const AttentionSummary&);
};

constexpr Column kColumns[] = {
    {"density", 9, [](const AttentionSummary& s) { return Share(s.density); }},
    {"p10", 7, [](const AttentionSummary& s) { return Share(s.density_p10); }},
    {"p90", 7, [](const AttentionSummary& s) { return Share(s.density_p90); }},
    {"floor", 7, [](const AttentionSummary& s) { return Share(s.floor); }},
    {"sampled", 9, [](const AttentionSummary& s) { return Share(s.sampled_coverage); }},
    {"held-out", 10, [](const AttentionSummary& s) { return Share(s.heldout_coverage); }},
    {"columns", 9, [](const AttentionSummary& s) { return FormatFixed(s.columns, 0); }},
    {"slashes", 9, [](const AttentionSummary& s) { return FormatFixed(s.slashes, 0); }},
    {"sinks", 7, [](const AttentionSummary& s) { return Share(s.sink_share); }},
    {"near", 7, [](const AttentionSummary& s) { return Share(s.near_share); }},
    {"columns again", 15, [](const AttentionSummary& s) { return Jaccard(s.column_overlap, s.column_resampled); }},
    {"slashes again", 15, [](const AttentionSummary& s) { return Jaccard(s.slash_overlap, s.slash_resampled); }},
    {"last lines", 12, [](const AttentionSummary& s) { return Share(s.coverage_by_last_lines); }},
};

std::string TableRow(const std::string& label, std::span<const HeadInTurn> heads) {
  const AttentionSummary summary = Summarize(heads);
  std::string row = Right(label, 5);
  for (const Column& column : kColumns) row += Right(column.text(summary), column.width);
  return row + "\n";
}

std::string TableHeader(const std::string& label) {
  std::string row = Right(label, 5);
  for (const Column& column : kColumns) row += Right(column.title, column.width);
  return row + "\n";
}

const TurnAttention* TurnBefore(const InspectReport& report, size_t turn) {
  return turn > 0 ? &report.inspector.turns[turn - 1] : nullptr;
}

std::string FormatTurn(const InspectReport& report, size_t index) {
  const TurnAttention& turn = report.inspector.turns[index];
  const std::vector<HeadInTurn> heads = HeadsOf(turn, TurnBefore(report, index));
  const bool by_head = report.inspector.options.layer.has_value();
  std::string text = "turn " + std::to_string(index + 1) + ": " + FormatCount(turn.n_rows) + " new tokens, " +
                     FormatCount(turn.n_keys()) + " keys" +
                     (by_head ? ", layer " + std::to_string(*report.inspector.options.layer) : "") + "\n" +
                     TableHeader(by_head ? "head" : "layer");
  for (size_t first = 0; first < heads.size();) {
    size_t end = first + 1;
    while (!by_head && end < heads.size() && heads[end].layer == heads[first].layer) ++end;
    text += TableRow(std::to_string(by_head ? heads[first].head : heads[first].layer),
                     std::span(heads).subspan(first, end - first));
    first = end;
  }
  return text + TableRow("all", heads) + "\n";
}

std::string FormatLines(const std::vector<AttentionLine>& lines, const std::function<std::string(int32_t)>& name_of) {
  std::vector<AttentionLine> strongest = lines;
  const size_t n = std::min(kShownLines, strongest.size());
  std::partial_sort(strongest.begin(), strongest.begin() + static_cast<ptrdiff_t>(n), strongest.end(),
                    [](const AttentionLine& a, const AttentionLine& b) {
                      return std::pair(-a.weight, a.index) < std::pair(-b.weight, b.index);
                    });
  std::string text;
  for (size_t i = 0; i < n; ++i) {
    text += Right(FormatCount(strongest[i].index), 10) + Right(FormatFixed(strongest[i].weight, 4), 9) + "  " +
            name_of(strongest[i].index) + "\n";
  }
  return text;
}

std::string FormatHead(const InspectReport& report, size_t turn_index) {
  const InspectOptions& options = report.inspector.options;
  const TurnAttention& turn = report.inspector.turns[turn_index];
  const HeadAttention& head = turn.layers.at(0).heads.at(static_cast<size_t>(*options.map_head));
  const std::string name = "turn " + std::to_string(turn_index + 1) + ", layer " + std::to_string(*options.layer) +
                           ", head " + std::to_string(*options.map_head) + ": ";
  return name + FormatCount(static_cast<int64_t>(head.columns.size())) +
         " columns; the strongest: key, weight, token\n" +
         FormatLines(head.columns, [&](int32_t key) { return QuoteToken(report.text_of(key)); }) + name +
         FormatCount(static_cast<int64_t>(head.slashes.size())) + " slashes; the strongest: distance, weight\n" +
         FormatLines(head.slashes, [](int32_t) { return std::string(); }) + "\n";
}

std::string FormatOverlap(const char* lines, const std::optional<OverlapMeans>& turns,
                          const std::optional<OverlapMeans>& samples) {
  if (!turns) return "";
  std::string text = std::string(lines) + " chosen in a turn and in the one before: " + FormatFixed(turns->jaccard, 2) +
                     " of those chosen in either, " + FormatFixed(turns->of_smaller, 2) +
                     " of the smaller choice (by chance " + FormatFixed(turns->by_chance, 2) + ")";
  if (samples) {
    text += "; by two samples of the same turn: " + FormatFixed(samples->jaccard, 2) + ", " +
            FormatFixed(samples->of_smaller, 2);
  }
  return text + "\n";
}

std::string FormatSummary(const InspectReport& report) {
  std::vector<HeadInTurn> all, later;
  for (size_t i = 0; i < report.inspector.turns.size(); ++i) {
    const std::vector<HeadInTurn> heads = HeadsOf(report.inspector.turns[i], TurnBefore(report, i));
    all.insert(all.end(), heads.begin(), heads.end());
    if (i > 0) later.insert(later.end(), heads.begin(), heads.end());
  }
  const AttentionSummary of_all = Summarize(all);
  std::string text = "alpha " + FormatFixed(report.inspector.options.alpha, 3) + ": density " + Share(of_all.density) +
                     ", held-out coverage " + Share(of_all.heldout_coverage) + ", floor " + Share(of_all.floor) + "\n";
  if (later.empty()) return text;
  const AttentionSummary of_later = Summarize(later);
  text += FormatOverlap("columns", of_later.column_overlap, of_later.column_resampled) +
          FormatOverlap("slashes", of_later.slash_overlap, of_later.slash_resampled);
  if (of_later.coverage_by_last_lines) {
    text += "from the second turn on, the lines of the turn before hold " + Share(of_later.coverage_by_last_lines) +
            " of the weight of held-out rows, those of the turn itself " + Share(of_later.heldout_coverage) + "\n";
  }
  return text;
}

}  // namespace

std::string QuoteToken(const std::string& text) {
  static constexpr char kHex[] = "0123456789abcdef";
  const size_t bad = FindInvalidUtf8(text);  // half a character is usual at a token's end
  std::string quoted = "\"";
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == '\n') {
      quoted += "\\n";
    } else if (byte == '\t') {
      quoted += "\\t";
    } else if (byte == '"' || byte == '\\') {
      quoted += std::string("\\") + text[i];
    } else if (byte < 0x20 || byte == 0x7F || (i >= bad && byte >= 0x80)) {
      quoted += std::string("\\x") + kHex[byte / 16] + kHex[byte % 16];
    } else {
      quoted += text[i];
    }
  }
  return quoted + "\"";
}

std::string FormatInspectReport(const InspectReport& report) {
  std::string text;
  for (size_t i = 0; i < report.inspector.turns.size(); ++i) {
    text += FormatTurn(report, i);
    if (report.inspector.options.map_head) text += FormatHead(report, i);
  }
  std::string sliding;
  for (size_t i = 0; i < report.layer_windows.size(); ++i) {
    if (report.layer_windows[i] > 0) sliding += (sliding.empty() ? "" : ", ") + std::to_string(i);
  }
  if (!sliding.empty() && !report.inspector.options.layer) {
    text += "layers with a sliding window are always dense, and not looked at: " + sliding + "\n";
  }
  return text + FormatSummary(report);
}

}  // namespace loopserve
