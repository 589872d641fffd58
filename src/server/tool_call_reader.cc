#include "src/server/tool_call_reader.h"

#include <algorithm>

namespace loopserve::server {

ToolCallReader::ToolCallReader(const ToolCallForm& form) : form_(form), mark_(form.begin) {
  while (!mark_.empty() && (mark_.back() == ' ' || mark_.back() == '\n')) mark_.pop_back();
  if (!mark_.empty()) return;
  mark_ = form_.begin + form_.before_name;
  mark_at_start_ = true;
}

std::vector<ToolEvent> ToolCallReader::Push(std::string_view piece, bool at_end) {
  std::vector<ToolEvent> events;
  buffer_ += piece;
  while (Step(at_end, &events)) {
  }
  return events;
}

bool ToolCallReader::Step(bool at_end, std::vector<ToolEvent>* events) {
  switch (place_) {
    case Place::kText:
      return StepText(at_end, events);
    case Place::kBegin: {
      const std::string whole = form_.begin + form_.before_name;
      if (buffer_.size() < whole.size()) return false;
      buffer_.erase(0, whole.size());
      place_ = Place::kName;
      return true;
    }
    case Place::kName:
      return StepName(events);
    case Place::kArguments:
      return StepArguments(events);
    case Place::kAfter:
      return StepAfter();
  }
  return false;
}

bool ToolCallReader::StepText(bool at_end, std::vector<ToolEvent>* events) {
  const auto show = [&](size_t n) {
    if (n == 0) return;
    events->push_back({ToolEvent::Kind::kText, -1, buffer_.substr(0, n)});
    buffer_.erase(0, n);
    any_text_ = true;
  };
  const size_t found = mark_at_start_ && any_text_ ? std::string::npos : buffer_.find(mark_);
  if (found != std::string::npos && (!mark_at_start_ || found == 0)) {
    show(found);
    place_ = Place::kBegin;
    return true;
  }
  // What may still become the mark waits.
  size_t keep = at_end || (mark_at_start_ && any_text_) ? 0 : std::min(buffer_.size(), mark_.size() - 1);
  while (keep > 0 && !mark_.starts_with(std::string_view(buffer_).substr(buffer_.size() - keep))) --keep;
  if (mark_at_start_ && keep < buffer_.size()) keep = 0;
  show(buffer_.size() - keep);
  return false;
}

bool ToolCallReader::StepName(std::vector<ToolEvent>* events) {
  const size_t end = buffer_.find(form_.before_arguments);
  if (end == std::string::npos) return false;
  events->push_back({ToolEvent::Kind::kCall, n_calls_++, buffer_.substr(0, end)});
  buffer_.erase(0, end + form_.before_arguments.size());
  place_ = Place::kArguments;
  depth_ = 0;
  return true;
}

bool ToolCallReader::StepArguments(std::vector<ToolEvent>* events) {
  size_t n = 0;
  bool ended = false;
  while (n < buffer_.size() && !ended) {
    const char c = buffer_[n++];
    if (in_string_) {
      in_string_ = escaped_ || c != '"';
      escaped_ = !escaped_ && c == '\\';
    } else if (c == '"') {
      in_string_ = true;
    } else if (c == '{' || c == '[') {
      ++depth_;
    } else if (c == '}' || c == ']') {
      ended = --depth_ == 0;
    }
  }
  if (n > 0) events->push_back({ToolEvent::Kind::kArguments, n_calls_ - 1, buffer_.substr(0, n)});
  buffer_.erase(0, n);
  if (!ended) return false;
  events->push_back({ToolEvent::Kind::kCallEnd, n_calls_ - 1, ""});
  place_ = Place::kAfter;
  return true;
}

bool ToolCallReader::StepAfter() {
  const std::string next = form_.after_arguments + form_.separator + form_.before_name;
  if (form_.separator.empty() || buffer_.size() < next.size() || !buffer_.starts_with(next)) return false;
  buffer_.erase(0, next.size());
  place_ = Place::kName;
  return true;
}

ReadAnswer ReadToolCalls(const ToolCallForm& form, const std::string& answer) {
  ReadAnswer read;
  ToolCallReader reader(form);
  for (const ToolEvent& event : reader.Push(answer, true)) {
    if (event.kind == ToolEvent::Kind::kText) read.text += event.text;
    if (event.kind == ToolEvent::Kind::kCall) read.calls.push_back({"", event.text, ""});
    if (event.kind == ToolEvent::Kind::kArguments) read.calls.back().arguments += event.text;
  }
  return read;
}

}  // namespace loopserve::server
