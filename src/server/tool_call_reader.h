// Reads tool calls out of an answer as it grows: what is text, which tool is called, its arguments piece by piece.
// Thread rule: one owner; one per answer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "loopserve/engine.h"

namespace loopserve::server {

/// What a piece of an answer brought.
struct ToolEvent {
  enum class Kind { kText, kCall, kArguments, kCallEnd };
  Kind kind = Kind::kText;
  int call = -1;     ///< counted from 0
  std::string text;  ///< text, the tool's name, a piece of its arguments
};

class ToolCallReader {
 public:
  explicit ToolCallReader(const ToolCallForm& form);

  /// The next piece of the answer, whose calls were written under AnswerForm's grammar; at_end: nothing follows.
  std::vector<ToolEvent> Push(std::string_view piece, bool at_end);
  int n_calls() const { return n_calls_; }

 private:
  enum class Place { kText, kBegin, kName, kArguments, kAfter };
  /// Makes one step; false where more text is needed.
  bool Step(bool at_end, std::vector<ToolEvent>* events);
  bool StepText(bool at_end, std::vector<ToolEvent>* events);
  bool StepName(std::vector<ToolEvent>* events);
  bool StepArguments(std::vector<ToolEvent>* events);
  bool StepAfter();

  const ToolCallForm form_;
  std::string mark_;  ///< what a call is known by
  bool mark_at_start_ = false;
  bool any_text_ = false;
  Place place_ = Place::kText;
  std::string buffer_;
  int n_calls_ = 0;
  int depth_ = 0;
  bool in_string_ = false, escaped_ = false;
};

/// Text and calls of a whole answer. Calls have no ids yet.
struct ReadAnswer {
  std::string text;
  std::vector<ToolCall> calls;
};
ReadAnswer ReadToolCalls(const ToolCallForm& form, const std::string& answer);

}  // namespace loopserve::server
