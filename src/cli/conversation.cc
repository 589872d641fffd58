#include "src/cli/conversation.h"

#include <chrono>

namespace loopserve {

EngineConversation::EngineConversation(std::shared_ptr<Engine> engine, const Policy& policy)
    : engine_(std::move(engine)), policy_(policy), session_(engine_->NewSession(policy)) {}

Result<TurnResult> EngineConversation::Answer(std::span<const ChatMessage> messages, const SamplingParams& params,
                                              const TextCallback& on_text, const RunControl& control) {
  const auto submitted = std::chrono::steady_clock::now();
  Result<std::vector<Token>> prompt =
      engine_->model().has_chat_template
          ? engine_->RenderChat(messages, /*add_generation_prompt=*/true, session_.tokens())
          : engine_->Tokenize(PlainPrompt(messages), /*add_special=*/true, /*parse_special=*/false);
  if (!prompt.ok()) return prompt.status();
  TurnResult result;
  LS_ASSIGN_OR_RETURN(result.sync, session_.Sync(*prompt, control));
  const double before_generation_ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - submitted).count();
  if (on_read_) on_read_(session_);
  LS_ASSIGN_OR_RETURN(result.generation, session_.Generate(params, on_text, control));
  if (result.generation.output_tokens > 0) result.ttft_ms = before_generation_ms + result.generation.first_token_ms;
  return result;
}

std::string PlainPrompt(std::span<const ChatMessage> messages) {
  std::string text;
  for (const ChatMessage& message : messages) {
    if (!text.empty()) text += "\n\n";
    text += message.content;
  }
  return text;
}

}  // namespace loopserve
