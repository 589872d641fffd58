#include "src/cli/eval_player.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "bench/answer_fidelity.h"
#include "bench/process_memory.h"
#include "eval/metrics.h"
#include "src/cli/conversation.h"
#include "src/cli/shared_prefills.h"
#include "src/cli/turn_report.h"

namespace loopserve {
namespace {

using eval::DialogueTurn;
using eval::PlayedTurn;
using eval::WrittenDialogue;

/// A dialogue that was played, and what is needed to be measured against another.
struct Playing {
  std::vector<PlayedTurn> turns;
  std::vector<Session> ready;               ///< of each turn, when its prompt was read; only for fidelity, as the next
  std::vector<std::vector<Token>> answers;  ///< what the session held of each
};

PlayedTurn ToPlayedTurn(const TurnResult& result) {
  PlayedTurn played;
  played.answer = result.generation.text;
  played.prompt_tokens = result.sync.prompt_tokens;
  played.cached_tokens = result.sync.cached_tokens;
  played.new_tokens = result.sync.new_tokens;
  played.output_tokens = result.generation.output_tokens;
  played.stop_reason = ToString(result.generation.stop_reason);
  played.ttft_ms = result.ttft_ms;
  played.tpot_ms = TpotMs(result.generation);
  played.prefill_linear_ms = result.sync.linear_ms;
  played.prefill_attention_ms = result.sync.attention_ms;
  played.prefill_selection_ms = result.sync.selection_ms;
  played.decode_linear_ms = result.generation.linear_ms;
  played.decode_attention_ms = result.generation.attention_ms;
  played.decode_selection_ms = result.generation.selection_ms;
  played.prefill_density = result.sync.prefill_density;
  played.decode_kv_fraction = result.generation.decode_kv_fraction;
  return played;
}

/// What the turn's task says of the answer.
void ScoreTurn(const DialogueTurn& turn, PlayedTurn* played) {
  played->references = turn.reference;
  if (!turn.task) return;
  const eval::TurnTask& task = *turn.task;
  played->dataset = task.dataset;
  played->position = NameOf(task.position);
  played->dependency = NameOf(task.dependency);
  played->metric = NameOf(task.metric);
  for (const std::string& id : task.source_ids) played->sources += (played->sources.empty() ? "" : " ") + id;
  played->cut_tokens = static_cast<double>(task.cut_tokens);
  if (turn.reference.empty()) return;
  played->score = eval::Score(task.metric, played->answer, turn.reference, task.all_classes, task.first_line_only);
}

class EvalPlayer : public eval::Player {
 public:
  EvalPlayer(std::shared_ptr<Engine> engine, const EvalPlayerOptions& options)
      : engine_(std::move(engine)), options_(options), shared_(engine_, control_) {
    control_.cancel = options.cancel;
  }

  void Expect(const WrittenDialogue& dialogue, const std::vector<std::string>& specs) override {
    std::vector<Policy> policies;
    for (const std::string& spec : specs) {
      // One that Play will refuse shares nothing.
      if (Result<Policy> policy = Policy::Parse(spec); policy.ok()) policies.push_back(std::move(*policy));
    }
    // Played in any case, as what the others are measured against.
    const bool has_dense = std::ranges::any_of(policies, [](const Policy& policy) { return policy.is_dense(); });
    if (options_.fidelity && !has_dense) policies.insert(policies.begin(), Policy());
    shared_.Expect(dialogue, policies);
  }

  int threads() const override { return engine_->model().threads; }

  Result<std::vector<PlayedTurn>> Play(const WrittenDialogue& dialogue, const std::string& spec) override {
    LS_ASSIGN_OR_RETURN(const Policy policy, Policy::Parse(spec));
    if (!options_.fidelity) {
      LS_ASSIGN_OR_RETURN(Playing playing, PlayTurns(dialogue, policy));
      return std::move(playing.turns);
    }
    // The dense dialogue of an earlier start is gone: it is played again for the policies that are left.
    if (!policy.is_dense() && dense_id_ != dialogue.id) LS_RETURN_IF_ERROR(PlayDense(dialogue).status());
    LS_ASSIGN_OR_RETURN(Playing playing, policy.is_dense() ? PlayDense(dialogue) : PlayTurns(dialogue, policy));
    LS_ASSIGN_OR_RETURN(
        const std::vector<bench::AnswerFidelity> fidelity,
        bench::MeasureFidelity(*dense_, engine_->NewSession(policy), std::move(playing.ready), control_));
    for (size_t t = 0; t < fidelity.size(); ++t) {
      PlayedTurn& turn = playing.turns[t];
      turn.kl = fidelity[t].answer.kl;
      turn.top1_agreement = fidelity[t].answer.top1_agreement;
      turn.answer_nll = fidelity[t].answer.nll;
      if (!fidelity[t].reference) continue;
      turn.reference_kl = fidelity[t].reference->kl;
      turn.reference_top1_agreement = fidelity[t].reference->top1_agreement;
      turn.reference_nll = fidelity[t].reference->nll;
    }
    return std::move(playing.turns);
  }

 private:
  /// Longest answer of a turn.
  int64_t AnswerTokens(const DialogueTurn& turn) const {
    int64_t tokens = turn.task ? turn.task->max_answer_tokens : kDefaultAnswerTokens;
    if (options_.max_answer_tokens > 0) tokens = std::min(tokens, options_.max_answer_tokens);
    return std::min<int64_t>(tokens, std::numeric_limits<int32_t>::max());
  }

  Result<Playing> PlayTurns(const WrittenDialogue& dialogue, const Policy& policy) {
    Playing playing;
    LS_ASSIGN_OR_RETURN(SharedPrefills::Opened opened, shared_.Open(dialogue, policy));
    EngineConversation& conversation = opened.conversation;
    if (options_.fidelity) {
      conversation.OnRead([&](const Session& session) { playing.ready.push_back(session.Fork()); });
    }
    std::vector<ChatMessage> messages;
    if (!dialogue.system.empty()) messages.push_back({"system", dialogue.system});
    for (const DialogueTurn& turn : dialogue.turns) {
      messages.push_back({"user", turn.user});
      SamplingParams greedy;
      greedy.max_tokens = static_cast<int32_t>(AnswerTokens(turn));
      bench::ResetPeakRss();
      LS_ASSIGN_OR_RETURN(const TurnResult result, conversation.Answer(messages, greedy, {}, control_));
      if (result.generation.stop_reason == StopReason::kCancelled) {
        return Status(StatusCode::kCancelled, "interrupted");
      }
      PlayedTurn& played = playing.turns.emplace_back(ToPlayedTurn(result));
      played.turn = static_cast<int64_t>(playing.turns.size());
      played.kv_bytes = static_cast<double>(conversation.kv_bytes());
      played.peak_rss_bytes = bench::PeakRssBytes();
      if (opened.has_read && played.turn == 1) {
        played.prefill_shared = 1;
        played.peak_rss_bytes = std::max(played.peak_rss_bytes, opened.peak_rss_bytes);
      }
      ScoreTurn(turn, &played);
      messages.push_back({"assistant", result.generation.text});
      if (!options_.fidelity) continue;
      const std::span<const Token> held = conversation.session().tokens();
      playing.answers.emplace_back(held.begin() + static_cast<ptrdiff_t>(result.sync.prompt_tokens), held.end());
    }
    return playing;
  }

  /// Plays the dialogue densely and keeps what the others are measured against.
  Result<Playing> PlayDense(const WrittenDialogue& dialogue) {
    dense_id_.clear();
    dense_.reset();
    LS_ASSIGN_OR_RETURN(Playing playing, PlayTurns(dialogue, Policy()));
    LS_ASSIGN_OR_RETURN(auto references, ReferenceTokens(dialogue));
    LS_ASSIGN_OR_RETURN(auto dense, bench::DenseDialogue::Create(options_.scratch_dir, engine_->model().n_vocab));
    for (size_t t = 0; t < playing.ready.size(); ++t) {
      LS_RETURN_IF_ERROR(
          dense.AddTurn(playing.ready[t].Fork(), playing.answers[t], std::move(references[t]), control_));
    }
    dense_ = std::move(dense);
    dense_id_ = dialogue.id;
    return playing;
  }

  /// Of each turn its first reference, as far as an answer may go.
  Result<std::vector<std::vector<Token>>> ReferenceTokens(const WrittenDialogue& dialogue) const {
    std::vector<std::vector<Token>> references;
    for (const DialogueTurn& turn : dialogue.turns) {
      std::vector<Token>& tokens = references.emplace_back();
      if (turn.reference.empty()) continue;
      LS_ASSIGN_OR_RETURN(tokens, engine_->Tokenize(turn.reference.front(), /*add_special=*/false, false));
      tokens.resize(std::min(tokens.size(), static_cast<size_t>(AnswerTokens(turn))));
    }
    return references;
  }

  std::shared_ptr<Engine> engine_;
  EvalPlayerOptions options_;
  RunControl control_;
  SharedPrefills shared_;
  std::string dense_id_;  // the dialogue that dense_ is of; empty: none
  std::optional<bench::DenseDialogue> dense_;
};

}  // namespace

std::unique_ptr<eval::Player> MakeEvalPlayer(std::shared_ptr<Engine> engine, const EvalPlayerOptions& options) {
  return std::make_unique<EvalPlayer>(std::move(engine), options);
}

}  // namespace loopserve
