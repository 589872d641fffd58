#include <cstdio>

#include "loopserve/sampling.h"
#include "src/base/utf8.h"

namespace loopserve {
namespace {

constexpr int32_t kMaxPenaltyWindow = 1 << 20;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxStopBytes = 1024;

Status Invalid(const std::string& field, const std::string& value, const std::string& range) {
  return Status(StatusCode::kInvalidArgument, field + " is " + value + "; it must be " + range);
}

std::string Text(float value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", static_cast<double>(value));
  return text;
}

Status ValidateStop(const std::vector<std::string>& stop) {
  if (stop.size() > kMaxStopStrings) {
    return Invalid("stop", "a list of " + std::to_string(stop.size()), "at most 16 texts");
  }
  for (size_t i = 0; i < stop.size(); ++i) {
    const std::string field = "stop[" + std::to_string(i) + "]";
    if (stop[i].empty()) return Invalid(field, "empty", "a text of 1 to 1024 bytes");
    if (stop[i].size() > kMaxStopBytes) {
      return Invalid(field, std::to_string(stop[i].size()) + " bytes long", "a text of 1 to 1024 bytes");
    }
    // An answer is always valid UTF-8, so that it would never be found.
    if (!IsValidUtf8(stop[i])) return Invalid(field, "not valid UTF-8", "a text");
  }
  return Status::Ok();
}

}  // namespace

Status SamplingParams::Validate() const {
  const struct {
    const char* field;
    float value;
    bool valid;  // false for NaN
    const char* range;
  } kFloats[] = {
      {"temperature", temperature, temperature >= 0.0f && temperature <= 100.0f, "in [0, 100]"},
      {"top_p", top_p, top_p > 0.0f && top_p <= 1.0f, "in (0, 1]"},
      {"min_p", min_p, min_p >= 0.0f && min_p <= 1.0f, "in [0, 1]"},
      {"repeat_penalty", repeat_penalty, repeat_penalty > 0.0f && repeat_penalty <= 10.0f, "in (0, 10]"},
      {"presence_penalty", presence_penalty, presence_penalty >= -2.0f && presence_penalty <= 2.0f, "in [-2, 2]"},
      {"frequency_penalty", frequency_penalty, frequency_penalty >= -2.0f && frequency_penalty <= 2.0f, "in [-2, 2]"},
  };
  for (const auto& f : kFloats) {
    if (!f.valid) return Invalid(f.field, Text(f.value), f.range);
  }
  if (top_k < 0) return Invalid("top_k", std::to_string(top_k), "in [0, 2^31)");
  if (penalty_window < 0 || penalty_window > kMaxPenaltyWindow) {
    return Invalid("penalty_window", std::to_string(penalty_window), "in [0, 2^20]");
  }
  if (max_tokens < -1) return Invalid("max_tokens", std::to_string(max_tokens), "-1 or at least 0");
  return ValidateStop(stop);
}

}  // namespace loopserve
