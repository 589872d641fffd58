// The words in which a benchmark describes a turn: how its answer is scored, where its question stands, and on which
// turn's text it depends. The names are those of files and options. Thread rule: pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace loopserve::eval {

/// How an answer is scored; see eval/metrics.h.
enum class Metric : uint8_t { kTokenF1, kRougeL, kClassAccuracy };

/// Where the question stands, relative to the text that the same turn brings.
enum class Position : uint8_t { kBegin, kMiddle, kEnd };

/// Which text the question is about.
enum class Dependency : uint8_t {
  kSame,     ///< the text of its own turn
  kEarlier,  ///< text of one earlier turn
  kCross,    ///< text that was spread over several turns
};

/// "f1", "rouge_l", "accuracy"; "begin", "middle", "end"; "same", "earlier", "cross".
std::string_view NameOf(Metric metric);
std::string_view NameOf(Position position);
std::string_view NameOf(Dependency dependency);

/// The value with this name, if any. T: one of the three above.
template <typename T>
std::optional<T> FromName(std::string_view name);
/// All values, in their order.
template <typename T>
std::vector<T> AllOf();

/// What a benchmark knows of one turn.
struct TurnTask {
  std::string dataset;
  Metric metric = Metric::kTokenF1;
  Position position = Position::kEnd;
  Dependency dependency = Dependency::kSame;
  std::vector<int> text_turns;           ///< the turns that hold the text asked about, from 1 on, ascending
  int64_t max_answer_tokens = 1;         ///< where LongBench stops the answer
  bool first_line_only = false;          ///< only the answer's first line is scored
  std::vector<std::string> all_classes;  ///< kClassAccuracy: the names an answer may give
  std::vector<std::string> source_ids;   ///< items of the dataset whose text this turn brings or asks about
  int64_t cut_tokens = 0;                ///< left out of the text asked about, to keep to the length
  bool truncated() const { return cut_tokens > 0; }
};

}  // namespace loopserve::eval
