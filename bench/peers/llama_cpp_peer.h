// libllama in this process, as the peer to race and the reference to compare logits with. One peer is one loaded model
// with one context of one sequence; Sync makes it hold the given tokens, as Session::Sync does for our engine.
//
// Thread rule: one thread at a time. Its compute threads sleep between calls, so that they do not disturb other engines
// that are measured meanwhile. Ownership: the peer owns the model, the context and the threads.
#pragma once

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve::bench {

struct LlamaCppOptions {
  std::string model_path;
  int threads = 1;
  /// Longest sequence in tokens; 0 = what the model was trained for.
  int64_t context_tokens = 0;
  bool flash_attention = true;
  /// Rows of one pass over the weights, and the most rows whose logits are held. 512 is libllama's own default.
  int batch_rows = 512;
  /// Looked at between batches; Sync then returns kCancelled and holds what was computed.
  const std::atomic<bool>* cancel = nullptr;
};

/// What a greedy continuation took.
struct LlamaCppGeneration {
  std::vector<Token> tokens;
  double first_token_ms = 0;  ///< choosing the first token from the logits that Sync left
  double tpot_ms = 0;         ///< (all - first) / (tokens - 1); 0 with fewer than two tokens
};

class LlamaCppPeer {
 public:
  /// Errors: kUnsupported (libllama's own words), kInvalidArgument.
  static Result<std::unique_ptr<LlamaCppPeer>> Open(const LlamaCppOptions& options);
  ~LlamaCppPeer();

  int n_vocab() const;
  int64_t n_parameters() const;
  int64_t context_tokens() const;
  /// Whether Sync can go back to an earlier prefix; models with sliding-window layers forget what they need for it.
  bool can_rewind() const;

  /// Makes the context hold exactly `tokens`, computing what is missing. Where it cannot rewind, all is computed anew.
  /// on_logits, if given, sees every newly computed row. Errors: kContextLength, kInternal (libllama's code).
  Status Sync(std::span<const Token> tokens, const LogitsCallback& on_logits = {});
  /// Continues greedily for `n_tokens` >= 1 tokens, past an end of text. Precondition: Sync succeeded.
  Result<LlamaCppGeneration> Generate(int n_tokens);

  /// Forgets all tokens.
  void Clear();
  /// Writes the KV of what is held to a file, and takes it back: the way to return to a context where can_rewind() is
  /// false. Errors: kIoError.
  Status SaveState(const std::filesystem::path& path) const;
  Status LoadState(const std::filesystem::path& path);

 private:
  struct State;
  explicit LlamaCppPeer(std::unique_ptr<State> state);
  Status Decode(std::span<const Token> tokens, int64_t position, bool all_logits, const LogitsCallback& on_logits);
  std::unique_ptr<State> state_;
};

/// Opens the peer on the model's weights dequantised to f32: the same model, without libllama's rounding of activations
/// to 8 bits. The f32 file is written to a new folder in `scratch` and deleted before this returns, also on errors (an
/// opened model keeps its mapping). Errors: kResourceExhausted (says how much room is needed), those of
/// GgufFile::Open, and as Open.
Result<std::unique_ptr<LlamaCppPeer>> OpenDequantized(const LlamaCppOptions& options,
                                                      const std::filesystem::path& scratch);

}  // namespace loopserve::bench
