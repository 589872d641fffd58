// The eleven datasets of the benchmark: their prompts, answer lengths and metrics as LongBench has them, and what is
// needed beyond it to place a question anywhere in a turn and to spread a text over turns. Constant data.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "eval/task.h"

namespace loopserve::eval {

/// What a context consists of, and so where it may be cut and split.
enum class ContextKind : uint8_t {
  kDocument,  ///< one text, or several that belong together; a question must say which document it means
  kPassages,  ///< "Passage N:" and a text, many times; a question may be about any of them
  kExamples,  ///< solved examples of the task
};

/// LongBench's prompt is intro + label + context + ask + cue, with the question in place of {input}.
struct DatasetSpec {
  std::string_view name;
  Metric metric = Metric::kTokenF1;
  int64_t max_answer_tokens = 0;
  bool first_line_only = false;  ///< the rest of an answer is not scored
  ContextKind kind = ContextKind::kDocument;
  std::string_view noun;   ///< of a document; numbered where a dialogue has several
  std::string_view part;   ///< what every passage or example of a context begins with; empty: nothing marks them
  std::string_view intro;  ///< what is to be done
  std::string_view label;  ///< announces the context
  std::string_view ask;    ///< the question, behind the context
  std::string_view cue;    ///< ends the turn: the answer comes next
  // The same where the question does not stand behind the context. The instructions then move with the question, which
  // is what its position is about; "above" is gone, and the cue still says which answer is meant after all that came
  // between.
  std::string_view early_intro;
  std::string_view early_label;
  std::string_view early_ask;
  std::string_view early_cue;
  /// A cue that the files have at the end of a question; taken away where the question stands early.
  std::string_view input_cue;
};

/// All eleven, in the paper's order.
std::span<const DatasetSpec> Datasets();
/// Null where there is none of this name.
const DatasetSpec* FindDataset(std::string_view name);
/// "narrativeqa, qasper, ..."
std::string DatasetNames();

}  // namespace loopserve::eval
