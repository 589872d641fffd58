#include "src/engine/text_stream.h"

#include <cstdint>
#include <utility>

namespace loopserve {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

struct Utf8Step {
  enum Kind { kCharacter, kInvalid, kIncomplete } kind;
  size_t length;  // bytes of the character, or of its longest valid beginning (at least 1)
};

// The first character of `bytes` (not empty), by Unicode's table of well-formed sequences (table 3-7).
Utf8Step FirstCharacter(std::string_view bytes) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(bytes[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {Utf8Step::kCharacter, 1};
  if (lead < 0xC2 || lead > 0xF4) return {Utf8Step::kInvalid, 1};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead == 0xE0) low = 0xA0;   // overlong below
  if (lead == 0xED) high = 0x9F;  // surrogates above
  if (lead == 0xF0) low = 0x90;   // overlong below
  if (lead == 0xF4) high = 0x8F;  // over U+10FFFF above
  for (size_t i = 1; i < length; ++i) {
    if (i == bytes.size()) return {Utf8Step::kIncomplete, i};
    if (byte(i) < low || byte(i) > high) return {Utf8Step::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Step::kCharacter, length};
}

}  // namespace

TextStream::TextStream(std::vector<std::string> stop) : stop_(std::move(stop)) {}

std::string TextStream::Push(std::string_view bytes) {
  if (stopped_) return "";
  incomplete_ += bytes;
  std::string_view rest = incomplete_;
  while (!rest.empty()) {
    const Utf8Step step = FirstCharacter(rest);
    if (step.kind == Utf8Step::kIncomplete) break;
    pending_ += step.kind == Utf8Step::kCharacter ? rest.substr(0, step.length) : kReplacement;
    rest.remove_prefix(step.length);
  }
  incomplete_.erase(0, incomplete_.size() - rest.size());
  return Release(false);
}

std::string TextStream::Finish() {
  if (stopped_) return "";
  if (!incomplete_.empty()) pending_ += kReplacement;
  incomplete_.clear();
  return Release(true);
}

// Decides position by position: a stop string begins here, one could, or none can.
std::string TextStream::Release(bool at_end) {
  size_t shown = stop_.empty() ? pending_.size() : 0;
  for (bool held = false; shown < pending_.size() && !held; shown += held ? 0 : 1) {
    const std::string_view rest = std::string_view(pending_).substr(shown);
    for (const std::string& stop : stop_) {
      if (rest.starts_with(stop)) {
        stopped_ = true;
        pending_.resize(shown);
        return std::exchange(pending_, "");
      }
      held = held || (!at_end && rest.size() < stop.size() && stop.starts_with(rest));
    }
  }
  std::string text = pending_.substr(0, shown);
  pending_.erase(0, shown);
  return text;
}

}  // namespace loopserve
