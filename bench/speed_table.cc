#include "bench/speed_table.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "bench/metrics.h"

namespace loopserve::bench {
namespace {

/// The figures whose medians are taken one by one.
constexpr std::optional<double> RunFigures::*kMedianFigures[] = {
    &RunFigures::tpot_ms,
    &RunFigures::itl_max_over_median,
    &RunFigures::linear_ms,
    &RunFigures::attention_ms,
    &RunFigures::selection_ms,
    &RunFigures::prefill_density,
    &RunFigures::coverage_heldout,
    &RunFigures::output_error,
    &RunFigures::output_error_p90,
    &RunFigures::floor_density,
    &RunFigures::floor_error,
    &RunFigures::decode_linear_ms,
    &RunFigures::decode_attention_ms,
    &RunFigures::decode_selection_ms,
    &RunFigures::decode_coverage,
    &RunFigures::decode_coverage_p10,
    &RunFigures::decode_kv_fraction,
};

class SpeedRun {
 public:
  SpeedRun(const SpeedOptions& options, const std::vector<Contestant>& contestants)
      : options_(options), contestants_(contestants), engines_(contestants.size()) {}

  Result<SpeedReport> Run() {
    for (size_t i = 0; i < contestants_.size(); ++i) {
      LS_RETURN_IF_ERROR(Progress("loading " + Name(i)));
      Result<std::unique_ptr<MeasuredEngine>> engine = contestants_[i].start();
      if (engine.ok()) {
        engines_[i] = std::move(*engine);
      } else {
        LS_RETURN_IF_ERROR(Drop(i, engine.status()));
      }
    }
    for (const SpeedCase& speed_case : options_.cases) LS_RETURN_IF_ERROR(MeasureCase(speed_case));
    Summarize(&report_.rows);
    return std::move(report_);
  }

 private:
  std::string Name(size_t i) const { return contestants_[i].spec.engine + " " + contestants_[i].spec.policy; }

  Status Progress(const std::string& what) const {
    if (options_.cancel != nullptr && options_.cancel->load()) return Status(StatusCode::kCancelled, "interrupted");
    if (options_.on_progress) options_.on_progress(what);
    return Status::Ok();
  }

  /// Takes an engine out of the race; our own engine's failure ends it.
  Status Drop(size_t i, const Status& status) {
    engines_[i].reset();
    if (contestants_[i].spec.engine == "loopserve" || status.code() == StatusCode::kCancelled) return status;
    report_.skipped.push_back({contestants_[i].spec, status.message()});
    return Status::Ok();
  }

  Status MeasureCase(const SpeedCase& speed_case) {
    const std::string label = " (" + std::to_string(speed_case.new_tokens) + " new tokens on " +
                              std::to_string(speed_case.context_tokens) + ")";
    const std::span<const Token> context(options_.text.data(), static_cast<size_t>(speed_case.context_tokens));
    for (size_t i = 0; i < engines_.size(); ++i) {
      if (!engines_[i]) continue;
      LS_RETURN_IF_ERROR(Progress("filling the context of " + Name(i) + label));
      if (const Status status = engines_[i]->Prepare(context); !status.ok()) LS_RETURN_IF_ERROR(Drop(i, status));
    }
    std::vector<std::vector<RunFigures>> runs(engines_.size());
    for (int round = 0; round < options_.rounds; ++round) {
      const std::vector<Token> prompt = SpeedPrompt(options_.text, speed_case, options_.n_special, round);
      for (size_t turn = 0; turn < engines_.size(); ++turn) {
        const size_t i = (turn + static_cast<size_t>(round)) % engines_.size();
        if (!engines_[i]) continue;
        LS_RETURN_IF_ERROR(Progress("round " + std::to_string(round + 1) + " of " + std::to_string(options_.rounds) +
                                    ": " + Name(i) + label));
        std::this_thread::sleep_for(options_.settle);
        Result<RunFigures> figures = engines_[i]->Run(prompt, options_.gen_tokens);
        if (figures.ok()) {
          runs[i].push_back(std::move(*figures));
        } else {
          LS_RETURN_IF_ERROR(Drop(i, figures.status()));
        }
      }
    }
    for (size_t i = 0; i < engines_.size(); ++i) {
      if (!engines_[i]) continue;
      report_.rows.push_back({.spec = contestants_[i].spec, .speed_case = speed_case, .runs = std::move(runs[i])});
    }
    return Status::Ok();
  }

  const SpeedOptions& options_;
  const std::vector<Contestant>& contestants_;
  std::vector<std::unique_ptr<MeasuredEngine>> engines_;
  SpeedReport report_;
};

void SummarizeRow(SpeedRow* row) {
  const auto values = [&](std::optional<double> RunFigures::*member) {
    std::vector<double> present;
    for (const RunFigures& run : row->runs) {
      if (run.*member) present.push_back(*(run.*member));
    }
    return present;
  };
  for (const auto member : kMedianFigures) {
    if (const std::vector<double> present = values(member); !present.empty()) row->median.*member = Median(present);
  }
  std::vector<double> ttft;
  for (const RunFigures& run : row->runs) ttft.push_back(run.ttft_ms);
  row->median.ttft_ms = Median(ttft);
  row->ttft_min_ms = *std::min_element(ttft.begin(), ttft.end());
  row->ttft_max_ms = *std::max_element(ttft.begin(), ttft.end());
  if (const std::vector<double> tpot = values(&RunFigures::tpot_ms); !tpot.empty()) {
    row->tpot_min_ms = *std::min_element(tpot.begin(), tpot.end());
    row->tpot_max_ms = *std::max_element(tpot.begin(), tpot.end());
  }
  if (const std::vector<double> peaks = values(&RunFigures::peak_rss_bytes); !peaks.empty()) {
    row->median.peak_rss_bytes = *std::max_element(peaks.begin(), peaks.end());
  }
  row->median.output = row->runs.front().output;
}

bool SameCase(const SpeedCase& a, const SpeedCase& b) {
  return a.context_tokens == b.context_tokens && a.new_tokens == b.new_tokens;
}

}  // namespace

Result<SpeedReport> MeasureSpeed(const SpeedOptions& options, const std::vector<Contestant>& contestants) {
  return SpeedRun(options, contestants).Run();
}

void Summarize(std::vector<SpeedRow>* rows) {
  for (SpeedRow& row : *rows) SummarizeRow(&row);
  for (SpeedRow& row : *rows) {
    row.best_ttft = row.best_tpot = true;
    const SpeedRow* first = nullptr;
    for (const SpeedRow& other : *rows) {
      if (!SameCase(row.speed_case, other.speed_case)) continue;
      if (first == nullptr) first = &other;
      if (other.spec.engine != row.spec.engine) continue;
      if (other.median.ttft_ms < row.median.ttft_ms) row.best_ttft = false;
      if (!row.median.tpot_ms || other.median.tpot_ms.value_or(*row.median.tpot_ms) < *row.median.tpot_ms) {
        row.best_tpot = false;
      }
    }
    const auto& mine = row.median.output;
    const auto& theirs = first->median.output;
    row.same_output_tokens = std::mismatch(mine.begin(), mine.end(), theirs.begin(), theirs.end()).first - mine.begin();
  }
}

}  // namespace loopserve::bench
