// One dialogue as chat and run hold it: messages in, an answer with its figures out. The interface lets both be tested
// without a model; EngineConversation is the real one.
// Life of a turn: render the messages -> Session::Sync -> Session::Generate.
// Thread rule: one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve {

struct TurnResult {
  SyncStats sync;
  GenerationStats generation;
  /// From handing over the messages, rendering included, to the first token; empty if there was none.
  std::optional<double> ttft_ms;
};

class Conversation {
 public:
  virtual ~Conversation() = default;
  /// messages: the whole dialogue, the new user message last. Errors: those of RenderChat, Sync and Generate.
  virtual Result<TurnResult> Answer(std::span<const ChatMessage> messages, const SamplingParams& params,
                                    const TextCallback& on_text, const RunControl& control) = 0;
  /// Forgets everything that was read.
  virtual void Reset() = 0;
  virtual const ModelInfo& model() const = 0;
  virtual int64_t held_tokens() const = 0;
  virtual size_t kv_bytes() const = 0;
};

class EngineConversation : public Conversation {
 public:
  EngineConversation(std::shared_ptr<Engine> engine, const Policy& policy);

  Result<TurnResult> Answer(std::span<const ChatMessage> messages, const SamplingParams& params,
                            const TextCallback& on_text, const RunControl& control) override;
  void Reset() override { session_ = engine_->NewSession(policy_); }
  const ModelInfo& model() const override { return engine_->model(); }
  int64_t held_tokens() const override { return static_cast<int64_t>(session_.tokens().size()); }
  size_t kv_bytes() const override { return session_.kv_bytes(); }

  const Session& session() const { return session_; }
  /// Called within Answer, when the prompt was read and before the answer begins: the moment for a fork. Its time does
  /// not count.
  void OnRead(std::function<void(const Session&)> on_read) { on_read_ = std::move(on_read); }

 private:
  std::shared_ptr<Engine> engine_;
  Policy policy_;
  Session session_;
  std::function<void(const Session&)> on_read_;
};

/// What a model without a chat template is given: the texts alone, an empty line between them.
std::string PlainPrompt(std::span<const ChatMessage> messages);

}  // namespace loopserve
