// One engine in one configuration, as the speed table sees it: fill a context, then time new tokens on top of it and
// the answer that follows. Implemented in this process (InProcessEngine in worker.h) and by a helper process that
// speaks the same operations over pipes (WorkerProcess), so that every engine has a memory peak of its own. Thread
// rule: one thread at a time.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve::bench {

/// How an engine is loaded.
struct EngineSpec {
  std::string engine;  ///< "loopserve", "llama.cpp" or "openvino"
  /// loopserve: a policy. llama.cpp: flash_attention | no_flash_attention. openvino: full | xattention |
  /// eviction[:TOKENS].
  std::string policy;
  std::string model_path;
  int threads = 1;
  /// The longest sequence that will be run, answer included.
  int64_t max_tokens = 0;
  /// KV precision: "" is the engine's default (f16; OpenVINO: u8). loopserve: f16 | q8_0. openvino: u8 | f16.
  std::string kv;
  /// loopserve only: auto | quantized | f32 | bf16.
  std::string linear_path = "auto";
};

/// What one timed run gave. Empty optionals: the engine does not say.
struct RunFigures {
  double ttft_ms = 0;                         ///< from handing over the prompt to knowing the first new token
  std::optional<double> tpot_ms;              ///< mean over the tokens after the first; empty with one token
  std::optional<double> itl_max_over_median;  ///< the slowest token after the first; empty with fewer than three tokens
  std::optional<double> linear_ms;
  std::optional<double> attention_ms;
  std::optional<double> selection_ms;
  std::optional<double> prefill_density;
  std::optional<double> coverage_heldout;
  std::optional<double> output_error;
  std::optional<double> output_error_p90;
  std::optional<double> floor_density;
  std::optional<double> floor_error;
  std::optional<double> decode_linear_ms;  ///< of the whole answer, as are the next two
  std::optional<double> decode_attention_ms;
  std::optional<double> decode_selection_ms;
  std::optional<double> decode_coverage;
  std::optional<double> decode_coverage_p10;
  std::optional<double> decode_kv_fraction;
  std::optional<double> peak_rss_bytes;  ///< of the engine's process, since the context was prepared
  std::vector<Token> output;             ///< the tokens it wrote
};

class MeasuredEngine {
 public:
  virtual ~MeasuredEngine() = default;
  /// Fills the context that the following runs start from, by real prefill; untimed. Empty: runs start from nothing.
  virtual Status Prepare(std::span<const Token> context) = 0;
  /// Times `prompt`, which begins with the prepared context, and `gen_tokens` >= 1 greedy tokens after it, going on
  /// past an end of text. Every run starts from the prepared context again.
  virtual Result<RunFigures> Run(std::span<const Token> prompt, int gen_tokens) = 0;
};

}  // namespace loopserve::bench
