// A Conversation for tests that answers from a script and remembers what it was asked.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "src/cli/conversation.h"

namespace loopserve {

class FakeConversation : public Conversation {
 public:
  using Script = std::function<Result<std::string>(std::span<const ChatMessage>)>;

  /// script: gives the answer to the messages, or an error. Empty: "echo: " and the last message.
  explicit FakeConversation(Script script = {}) : script_(std::move(script)) {
    model_.description = "a fake model";
    model_.context_tokens = 4096;
    model_.has_chat_template = true;
  }

  Result<TurnResult> Answer(std::span<const ChatMessage> messages, const SamplingParams&, const TextCallback& on_text,
                            const RunControl& control) override {
    asked.emplace_back(messages.begin(), messages.end());
    if (control.on_progress) control.on_progress(0.5);
    Result<std::string> answer = script_ ? script_(messages) : Result<std::string>("echo: " + messages.back().content);
    if (!answer.ok()) return answer.status();
    TurnResult result;
    result.sync.prompt_tokens = static_cast<int64_t>(messages.size()) * 10;
    result.sync.cached_tokens = held_;
    result.sync.new_tokens = result.sync.prompt_tokens - held_;
    result.sync.prefill_density = 1.0;
    held_ = result.sync.prompt_tokens;
    for (char c : *answer) {
      const bool cancelled = control.cancel != nullptr && control.cancel->load();
      if (cancelled || !on_text(std::string_view(&c, 1))) {
        result.generation.stop_reason = StopReason::kCancelled;
        break;
      }
      result.generation.text += c;
      ++result.generation.output_tokens;
    }
    result.generation.tpot_ms = 2.5;
    if (result.generation.output_tokens > 0) result.ttft_ms = 12.5;
    return result;
  }
  void Reset() override { held_ = 0; }
  const ModelInfo& model() const override { return model_; }
  int64_t held_tokens() const override { return held_; }
  size_t kv_bytes() const override { return static_cast<size_t>(held_) * 1024; }

  std::vector<std::vector<ChatMessage>> asked;

 private:
  Script script_;
  ModelInfo model_;
  int64_t held_ = 0;
};

}  // namespace loopserve
