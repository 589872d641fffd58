#include "src/cli/conversation.h"

#include "src/base/check.h"
#include "src/base/clock.h"

namespace loopserve {

Status EngineConversation::Read(std::span<const ChatMessage> messages, const RunControl& control) {
  const auto submitted = Clock::now();
  Result<std::vector<Token>> prompt =
      engine_->model().has_chat_template
          ? engine_->RenderChat(messages, /*add_generation_prompt=*/true, session_.tokens())
          : engine_->Tokenize(PlainPrompt(messages), /*add_special=*/true, /*parse_special=*/false);
  if (!prompt.ok()) return prompt.status();
  Reading reading;
  LS_ASSIGN_OR_RETURN(reading.sync, session_.Sync(*prompt, control));
  reading.elapsed_ms = MillisecondsSince(submitted);
  reading_ = std::move(reading);
  return Status::Ok();
}

Result<EngineConversation> EngineConversation::Fork(const Policy& policy) const {
  LS_CHECK(reading_.has_value());
  const auto begin = Clock::now();
  LS_ASSIGN_OR_RETURN(Session session, session_.Fork(policy));
  const double fork_ms = MillisecondsSince(begin);
  EngineConversation fork(engine_, policy, std::move(session));
  fork.reading_ = reading_;
  fork.reading_->sync.elapsed_ms += fork_ms;
  fork.reading_->sync.selection_ms += fork_ms;
  fork.reading_->elapsed_ms += fork_ms;
  return fork;
}

Result<TurnResult> EngineConversation::Answer(std::span<const ChatMessage> messages, const SamplingParams& params,
                                              const TextCallback& on_text, const RunControl& control) {
  if (!reading_) LS_RETURN_IF_ERROR(Read(messages, control));
  const Reading reading = *std::exchange(reading_, std::nullopt);
  TurnResult result;
  result.sync = reading.sync;
  if (on_read_) on_read_(session_);
  LS_ASSIGN_OR_RETURN(result.generation, session_.Generate(params, on_text, control));
  if (result.generation.output_tokens > 0) result.ttft_ms = reading.elapsed_ms + result.generation.first_token_ms;
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
