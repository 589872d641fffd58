// The speed table: engines interleaved on the same tokens, medians over rounds, beside the machine's bound.
// How it goes: every engine is a helper process; for each case (context, new tokens) all engines fill the context, then
// in each round every engine is timed once, one after the other, starting with another one each round. An engine that
// cannot run the model is skipped with its reason.
// Thread rule: one thread.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/machine_bound.h"
#include "bench/measured_engine.h"
#include "bench/model_cost.h"
#include "bench/text_source.h"
#include "loopserve/status.h"

namespace loopserve::bench {

/// One engine that takes part, and how it is started.
struct Contestant {
  EngineSpec spec;
  std::function<Result<std::unique_ptr<MeasuredEngine>>()> start;
};

struct SpeedOptions {
  std::vector<SpeedCase> cases;
  int gen_tokens = 16;
  int rounds = 3;
  std::vector<Token> text;  ///< at least SpeedTextTokens() of every case
  int64_t n_special = 0;    ///< tokens at the text's begin that must stay there (begin of text)
  /// Between two timed runs, so that threads that still poll for work have gone to sleep.
  std::chrono::milliseconds settle{300};
  const std::atomic<bool>* cancel = nullptr;
  std::function<void(const std::string&)> on_progress;
};

/// One line of the table.
struct SpeedRow {
  EngineSpec spec;
  SpeedCase speed_case;
  std::vector<RunFigures> runs;  ///< one for each round
  RunFigures median;             ///< of each figure for itself; the peak is the largest
  double ttft_min_ms = 0, ttft_max_ms = 0;
  std::optional<double> tpot_min_ms, tpot_max_ms;
  bool best_ttft = false, best_tpot = false;  ///< among this engine's rows of the case
  int64_t same_output_tokens = 0;             ///< leading tokens of round 0 that equal those of the case's first row
};

struct SpeedSkip {
  EngineSpec spec;
  std::string reason;
};

struct SpeedReport {
  std::vector<SpeedRow> rows;  ///< by case, then in the order of the contestants
  std::vector<SpeedSkip> skipped;
};

/// Errors: kCancelled; the error of a contestant whose engine is "loopserve" (others are skipped).
Result<SpeedReport> MeasureSpeed(const SpeedOptions& options, const std::vector<Contestant>& contestants);

/// Medians, extremes and the marks of the best rows. Precondition: every row has a run.
void Summarize(std::vector<SpeedRow>* rows);

/// How near a row comes to the machine's bound.
struct Achieved {
  double prefill_gflops = 0;                       ///< useful operations of the timed prefill / TTFT
  std::optional<double> decode_gbytes_per_second;  ///< bytes that a token must read / TPOT
};
Achieved AchievedBy(const SpeedRow& row, const ModelCost& cost);

/// The table for people, with the ratio of our first policy's figures to each row's.
std::string FormatSpeedTable(const SpeedReport& report, const ModelCost& cost, const MachineBound& bound, int threads);

}  // namespace loopserve::bench
