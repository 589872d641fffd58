// One pass of the transformer over new tokens of one dialogue: appends their KV and gives logits. Chooses between the
// decode graph (few rows) and layer-major prefill (many).
// Thread rule: one owner; one pass at a time, over any dialogue.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "loopserve/engine.h"
#include "src/model/compute_threads.h"
#include "src/model/dialogue.h"
#include "src/model/gemm.h"
#include "src/model/model.h"
#include "src/model/prefill_attention.h"

namespace loopserve {

struct ForwardOptions {
  LinearPath linear_path = LinearPath::kAuto;
  size_t weight_cache_bytes = 0;
};

struct ForwardStats {
  double linear_ms = 0;  ///< everything but attention and selection
  PrefillFigures attention;
  double decode_keys_read = 0;  ///< by steps of one token and to choose for them, over layers and KV heads; over held
  double decode_keys_held = 0;
  int64_t decode_choices = 0;  ///< layers that chose their keys, over the same steps
};

class DecodeGraph;
class Evictor;
class Prefill;
class PrefillWeights;

class Forward {
 public:
  /// Passes of up to this many rows go through the decode graph.
  static constexpr int64_t kDecodeRows = 8;
  /// Dialogues of a step, at most.
  static constexpr size_t kMaxSteps = 16;
  /// Prompts that are read at once, one in the yield of another.
  static constexpr size_t kMaxReadings = 3;

  /// kUnsupported if the linear path does not exist on this CPU or in this build.
  static Result<std::unique_ptr<Forward>> Create(const Model& model, ComputeThreads& threads,
                                                 const ForwardOptions& options);
  ~Forward();

  LinearPath linear_path() const { return linear_path_; }

  /// Computes tokens at positions dialogue.cache.n_tokens()... and commits their KV. last_logits: f32 [n_vocab], of the
  /// last token. on_logits, if set, gets every row's logits. Errors leave the dialogue as it was (kCancelled,
  /// kResourceExhausted, kInternal; kInvalidArgument for many tokens while kMaxReadings prefills of other dialogues
  /// yield to each other). stats may be null.
  Status Run(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
             const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats);

  /// One dialogue's token in a step that several share.
  struct Step {
    Dialogue* dialogue = nullptr;
    Token token = -1;
    std::vector<float>* logits = nullptr;  ///< as last_logits of Run
    ForwardStats* stats = nullptr;         ///< may be null; times are the whole step's
    Status status = Status::Ok();
  };
  /// Computes one token of each of different dialogues as Run would, bit for bit, reading the weights once for all of
  /// them. Up to kMaxSteps. One that fails leaves its dialogue as it was; the others go on.
  void RunSteps(std::span<Step> steps);

  /// After a prefill of n_rows was committed, which Run does by itself: codes its keys, where the policy wants that.
  /// For a dialogue whose prefill another one ran.
  Status EndPrefill(Dialogue& dialogue, int64_t n_rows, double* selection_ms);
  /// The tokens of a prompt are computed, the last n_new of them by the Run before: an eviction policy compresses.
  /// kResourceExhausted.
  Status EndPrompt(Dialogue& dialogue, int64_t n_new, ForwardStats* stats);
  /// Before the first token of an answer: chooses what its steps will read, where the policy wants that.
  Status BeginAnswer(Dialogue& dialogue, bool measure, ForwardStats* stats);
  /// After the last: an eviction policy that waited for the answer compresses. kResourceExhausted.
  Status FinishAnswer(Dialogue& dialogue, ForwardStats* stats);
  /// And however it ended: gives the working sets' memory back.
  void EndAnswer(Dialogue& dialogue);
  /// True attention weight that the step just run, alone, could see, for each sparse layer and KV head. Slow.
  Result<std::vector<double>> MeasureDecodeCoverage(Dialogue& dialogue);

 private:
  Forward(const Model& model, ComputeThreads& threads);
  Prefill& PrefillOf(size_t depth);
  Status BeginStep(Dialogue& dialogue, ForwardStats* stats);
  // What Try... does may throw std::bad_alloc, or leave things half done where it fails: Run... puts that right.
  Status RunFew(Dialogue& dialogue, std::span<const Token> tokens, const LogitsCallback& on_logits,
                std::vector<float>* last_logits, ForwardStats* stats);
  Status TryFew(Dialogue& dialogue, std::span<const Token> tokens, const LogitsCallback& on_logits,
                std::vector<float>* last_logits, ForwardStats* stats);
  Status TryShared(std::span<Step> steps);
  Status TryPrefill(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                    const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats);
  Status RunPrefill(Dialogue& dialogue, std::span<const Token> tokens, const RunControl& control,
                    const LogitsCallback& on_logits, std::vector<float>* last_logits, ForwardStats* stats);

  const Model& model_;
  ComputeThreads& threads_;
  LinearPath linear_path_ = LinearPath::kQuantized;
  std::unique_ptr<Gemm> gemm_;         ///< of the layers
  std::unique_ptr<Gemm> logits_gemm_;  ///< f32: scoring asks for every row's logits, and is never what a user waits for
  std::unique_ptr<DecodeGraph> decode_;
  std::unique_ptr<PrefillWeights> weights_;         ///< null without gemm_
  std::vector<std::unique_ptr<Prefill>> prefills_;  ///< of each depth, made when it is first needed
  std::unique_ptr<Evictor> evictor_;
  bool shares_steps_ = false;  ///< the products of a row do not depend on how many there are
  size_t n_reading_ = 0;       ///< prefills on their way: RunControl::yield may come back here for another dialogue
};

}  // namespace loopserve
