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
#include <utility>

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
  EngineConversation(std::shared_ptr<Engine> engine, const Policy& policy)
      : EngineConversation(engine, policy, engine->NewSession(policy)) {}
  EngineConversation(std::shared_ptr<Engine> engine, const Policy& policy, Session session)
      : engine_(std::move(engine)), policy_(policy), session_(std::move(session)) {}

  Result<TurnResult> Answer(std::span<const ChatMessage> messages, const SamplingParams& params,
                            const TextCallback& on_text, const RunControl& control) override;
  void Reset() override {
    session_ = engine_->NewSession(policy_);
    reading_.reset();
  }
  /// Goes on with a stored session, and under its policy.
  void Resume(Session session) {
    policy_ = session.policy();
    session_ = std::move(session);
    reading_.reset();
  }
  const ModelInfo& model() const override { return engine_->model(); }
  int64_t held_tokens() const override { return static_cast<int64_t>(session_.tokens().size()); }
  size_t kv_bytes() const override { return session_.kv_bytes(); }

  /// What Answer does before the answer: reads the messages. Answer with the same messages goes on from there.
  Status Read(std::span<const ChatMessage> messages, const RunControl& control);
  /// A conversation under another policy that has read the same (Session::Fork: it says where that is exact). Its next
  /// Answer, which must be given the same messages, reports the time of this reading plus that of the fork, which
  /// counts as selection. Precondition: Read was called, and no Answer.
  Result<EngineConversation> Fork(const Policy& policy) const;

  const Session& session() const { return session_; }
  /// Called within Answer, when the prompt was read and before the answer begins: the moment for a fork. Its time does
  /// not count.
  void OnRead(std::function<void(const Session&)> on_read) { on_read_ = std::move(on_read); }

 private:
  struct Reading {
    SyncStats sync;
    double elapsed_ms = 0;  ///< rendering included
  };

  std::shared_ptr<Engine> engine_;
  Policy policy_;
  Session session_;
  std::optional<Reading> reading_;  ///< of the messages that come next
  std::function<void(const Session&)> on_read_;
};

/// What a model without a chat template is given: the texts alone, an empty line between them.
std::string PlainPrompt(std::span<const ChatMessage> messages);

}  // namespace loopserve
