// What stands behind the public Session: the timeline (tokens and their KV) and how a turn changes it.
// Thread rule: as in loopserve/engine.h.
#pragma once

#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "loopserve/engine.h"
#include "src/engine/engine_impl.h"
#include "src/kvcache/snapshot_reader.h"
#include "src/model/dialogue.h"

namespace loopserve {

class AnswerImpl;

class SessionImpl {
 public:
  SessionImpl(std::shared_ptr<EngineImpl> engine, const Policy& policy)
      : SessionImpl(std::move(engine), policy, NotedQueries(policy)) {}
  /// noted_queries: newest queries that are kept, for this policy or for those that it will be forked under.
  SessionImpl(std::shared_ptr<EngineImpl> engine, const Policy& policy, int noted_queries);

  Result<SyncStats> Sync(std::span<const Token> prompt, const RunControl& control, const LogitsCallback& on_logits);
  Result<GenerationStats> Generate(const SamplingParams& params, const TextCallback& on_text,
                                   const RunControl& control);
  Result<std::unique_ptr<AnswerImpl>> BeginAnswer(const SamplingParams& params, const RunControl& control);
  Result<GenerationStats> Replay(std::span<const Token> answer, const RunControl& control,
                                 const LogitsCallback& on_logits);
  std::unique_ptr<SessionImpl> Fork() const;
  Result<std::unique_ptr<SessionImpl>> Fork(const Policy& policy) const;
  /// Makes this new session what a file says: these tokens, their logits and the dialogue in `reader`. kContextLength,
  /// kCorruptData, and the errors of ReadDialogue; the session is then still a new one.
  Status Fill(const SnapshotReader& reader, std::vector<Token> tokens, std::vector<float> logits);

  /// kInvalidArgument while a prompt is being read.
  Status CheckIdle() const;
  const EngineImpl& engine() const { return *engine_; }
  const Dialogue& dialogue() const { return dialogue_; }
  const Policy& policy() const { return dialogue_.policy; }
  std::span<const Token> tokens() const { return tokens_; }
  std::span<const float> logits() const { return logits_; }
  const KvCache& cache() const { return dialogue_.cache; }

 private:
  friend class AnswerSteps;
  SessionImpl(const SessionImpl& other);
  SessionImpl(const SessionImpl& other, const Policy& policy);
  Status CheckFork(const Policy& policy) const;
  /// Tokens of the vocabulary, `before` of them and these within the context.
  Status Check(std::span<const Token> tokens, size_t before = 0) const;
  /// Computes tokens after what is held. On error the timeline ends where it did.
  Status Append(std::span<const Token> tokens, const RunControl& control, const LogitsCallback& on_logits,
                ForwardStats* stats);
  /// One session's token of several that are computed in one pass.
  struct Appended {
    SessionImpl* session = nullptr;
    Token token = -1;
    ForwardStats* stats = nullptr;
    Status status = Status::Ok();
  };
  /// Append of one token to each of different sessions of an engine.
  static void AppendToEach(std::span<Appended> tokens);
  /// n_same: tokens that stand there as they are wanted, where one of them is only computed anew.
  void Rewind(int64_t n_tokens, int64_t n_same);
  Status CheckCanAnswer() const;

  std::shared_ptr<EngineImpl> engine_;
  Dialogue dialogue_;
  std::vector<Token> tokens_;  ///< as many as the cache holds
  std::vector<float> logits_;  ///< after tokens_.back(); empty when unknown
  size_t read_at_once_ = 0;    ///< tokens that one Sync gave the empty session; 0 once any of them was dropped
  bool computing_ = false;     ///< a prompt is being read, perhaps yielding to other sessions
};

}  // namespace loopserve
