#include "eval/result_report.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "eval/task.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

struct Mean {
  double sum = 0;
  int64_t n = 0;
  void Add(double value) {
    sum += value;
    ++n;
  }
};

/// Left-aligned first column, the others to the right.
std::string FormatTable(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    text += row[0] + std::string(widths[0] - row[0].size(), ' ');
    for (size_t i = 1; i < row.size(); ++i) text += std::string(2 + widths[i] - row[i].size(), ' ') + row[i];
    text += "\n";
  }
  return text;
}

}  // namespace

std::string ScoreTable(std::span<const PlayedDialogue> played) {
  const std::vector<Position> positions = AllOf<Position>();
  std::vector<std::pair<std::string, std::vector<Mean>>> policies;  // of each: by position, then of all
  for (const PlayedDialogue& one : played) {
    for (const PlayedTurn& turn : one.turns) {
      if (!turn.score) continue;
      auto row = std::find_if(policies.begin(), policies.end(), [&](const auto& p) { return p.first == one.policy; });
      if (row == policies.end()) row = policies.insert(row, {one.policy, std::vector<Mean>(positions.size() + 1)});
      for (size_t i = 0; i < positions.size(); ++i) {
        if (NameOf(positions[i]) == turn.position) row->second[i].Add(*turn.score);
      }
      row->second.back().Add(*turn.score);
    }
  }
  if (policies.empty()) return "";
  std::vector<std::vector<std::string>> rows = {{"mean score x 100"}};
  for (const Position position : positions) rows[0].emplace_back(NameOf(position));
  rows[0].insert(rows[0].end(), {"all", "answers"});
  for (const auto& [policy, means] : policies) {
    std::vector<std::string>& row = rows.emplace_back();
    row.push_back(OnOneLine(policy));
    for (const Mean& mean : means) {
      row.push_back(mean.n > 0 ? FormatFixed(100 * mean.sum / static_cast<double>(mean.n), 1) : "-");
    }
    row.push_back(FormatCount(means.back().n));
  }
  return FormatTable(rows);
}

}  // namespace loopserve::eval
