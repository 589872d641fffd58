#include "src/server/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace loopserve::server {
namespace {

const std::vector<double> kFirstTokenSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75,
                                                1,     2.5,   5,    7.5,  10,   20,   40,   80,  160,  640, 2560};
const std::vector<double> kTokenSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2,
                                           0.3,   0.4,    0.5,   0.75, 1,     2.5,  5,     10,  20};
const std::vector<double> kRequestSeconds = {0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1,  1.5, 2,   2.5, 5,
                                             10,   15,   20,  30,  40,  50,  60, 120, 240, 480, 960};
const std::vector<double> kDiskSeconds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30};
const std::vector<double> kShares = {0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1};

const char* NameOf(StopReason reason) {
  switch (reason) {
    case StopReason::kEndOfText:
    case StopReason::kStopString:
      return "stop";
    case StopReason::kMaxTokens:
    case StopReason::kContextFull:
      return "length";
    case StopReason::kCancelled:
      return "abort";
  }
  return "abort";
}

}  // namespace

struct Metrics::State {
  prometheus::Registry registry;
  prometheus::Labels labels;

  prometheus::Gauge& NewGauge(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Counter& NewCounter(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add(labels);
  }
  prometheus::Histogram& NewHistogram(const std::string& name, const std::string& help,
                                      const std::vector<double>& bounds) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add(labels, bounds);
  }

  explicit State(const std::string& model_name) : labels{{"model_name", model_name}} {}

  prometheus::Gauge& running = NewGauge("vllm:num_requests_running", "Answers being written or prompts being read.");
  prometheus::Gauge& waiting = NewGauge("vllm:num_requests_waiting", "Requests in the queue.");
  prometheus::Gauge& kv_usage = NewGauge("vllm:kv_cache_usage_perc", "KV bytes in use / KV budget, 0 to 1.");
  prometheus::Counter& prefix_queries =
      NewCounter("vllm:prefix_cache_queries_total", "Prompt tokens that were looked for in held dialogues.");
  prometheus::Counter& prefix_hits = NewCounter("vllm:prefix_cache_hits_total", "Of these, those that were found.");
  prometheus::Counter& prompt_tokens = NewCounter("vllm:prompt_tokens_total", "Prompt tokens.");
  prometheus::Counter& output_tokens = NewCounter("vllm:generation_tokens_total", "Tokens of answers.");
  prometheus::Histogram& first_token = NewHistogram("vllm:time_to_first_token_seconds",
                                                    "From a request's arrival to its first token.", kFirstTokenSeconds);
  prometheus::Histogram& inter_token =
      NewHistogram("vllm:inter_token_latency_seconds", "From one token of an answer to its next.", kTokenSeconds);
  prometheus::Histogram& per_token = NewHistogram("vllm:request_time_per_output_token_seconds",
                                                  "Mean time of an answer's tokens after the first.", kTokenSeconds);
  prometheus::Histogram& end_to_end =
      NewHistogram("vllm:e2e_request_latency_seconds", "From arrival to the answer's end.", kRequestSeconds);
  prometheus::Histogram& queue_time =
      NewHistogram("vllm:request_queue_time_seconds", "Time in the queue.", kRequestSeconds);
  prometheus::Histogram& prefill_time =
      NewHistogram("vllm:request_prefill_time_seconds", "Time in which the prompt was read.", kRequestSeconds);
  prometheus::Histogram& decode_time =
      NewHistogram("vllm:request_decode_time_seconds", "Time in which the answer was written.", kRequestSeconds);
  prometheus::Histogram& density =
      NewHistogram("loopserve:prefill_density", "Computed / causal query-key pairs of a prompt's new tokens.", kShares);
  prometheus::Histogram& kv_fraction =
      NewHistogram("loopserve:decode_kv_fraction", "KV rows read / held, mean over an answer's steps.", kShares);
  prometheus::Counter& reselections =
      NewCounter("loopserve:reselections_total",
                 "How often an answer's keys were chosen anew, each layer of each token for itself.");
  prometheus::Histogram& coverage = NewHistogram(
      "loopserve:coverage", "Attention weight recovered on held-out rows, where measure_quality asked.", kShares);
  prometheus::Gauge& kv_bytes = NewGauge("loopserve:kv_used_bytes", "Bytes of KV in memory.");
  prometheus::Gauge& kv_budget = NewGauge("loopserve:kv_budget_bytes", "Their limit; 0: none.");
  prometheus::Gauge& sessions = NewGauge("loopserve:sessions", "Dialogues held.");
  prometheus::Gauge& dropped =
      NewGauge("loopserve:sessions_dropped", "Idle dialogues that left memory and are on no disk, so far.");
  prometheus::Gauge& unloaded =
      NewGauge("loopserve:sessions_unloaded", "Idle dialogues that left memory and are on disk, so far.");
  prometheus::Gauge& disk_sessions = NewGauge("loopserve:disk_sessions", "Dialogues on disk that can go on here.");
  prometheus::Gauge& disk_bytes = NewGauge("loopserve:disk_used_bytes", "Bytes of all files of dialogues.");
  prometheus::Gauge& disk_budget = NewGauge("loopserve:disk_budget_bytes", "Their limit; 0: none.");
  prometheus::Histogram& write_time =
      NewHistogram("loopserve:snapshot_write_seconds", "Time of a dialogue's save.", kDiskSeconds);
  prometheus::Counter& written_bytes = NewCounter("loopserve:snapshot_written_bytes_total", "Bytes written by saves.");
  prometheus::Histogram& restore_time =
      NewHistogram("loopserve:snapshot_restore_seconds", "Time in which a dialogue was read from disk.", kDiskSeconds);
  prometheus::Counter& restored_bytes =
      NewCounter("loopserve:snapshot_restored_bytes_total", "Bytes of KV that were read from disk.");
  prometheus::Family<prometheus::Counter>& snapshot_failures = prometheus::BuildCounter()
                                                                   .Name("loopserve:snapshot_failures_total")
                                                                   .Help("What went wrong with dialogues on disk.")
                                                                   .Register(registry);
  prometheus::Family<prometheus::Counter>& success = prometheus::BuildCounter()
                                                         .Name("vllm:request_success_total")
                                                         .Help("Answers by how they ended.")
                                                         .Register(registry);
  prometheus::Family<prometheus::Counter>& http =
      prometheus::BuildCounter().Name("loopserve:http_requests_total").Help("Replies by status.").Register(registry);
};

Metrics::Metrics(const std::string& model_name) : state_(std::make_unique<State>(model_name)) {}
Metrics::~Metrics() = default;

void Metrics::SetLoad(size_t running, size_t waiting) {
  state_->running.Set(static_cast<double>(running));
  state_->waiting.Set(static_cast<double>(waiting));
}

void Metrics::SetMemory(size_t kv_used_bytes, size_t kv_budget_bytes, size_t sessions, int64_t dropped_sessions,
                        int64_t unloaded_sessions) {
  const auto used = static_cast<double>(kv_used_bytes), budget = static_cast<double>(kv_budget_bytes);
  state_->kv_usage.Set(kv_budget_bytes > 0 ? used / budget : 0);
  state_->kv_bytes.Set(used);
  state_->kv_budget.Set(budget);
  state_->sessions.Set(static_cast<double>(sessions));
  state_->dropped.Set(static_cast<double>(dropped_sessions));
  state_->unloaded.Set(static_cast<double>(unloaded_sessions));
}

void Metrics::SetDisk(uint64_t used_bytes, uint64_t budget_bytes, size_t sessions) {
  state_->disk_bytes.Set(static_cast<double>(used_bytes));
  state_->disk_budget.Set(static_cast<double>(budget_bytes));
  state_->disk_sessions.Set(static_cast<double>(sessions));
}

void Metrics::CountSnapshotWrite(const SaveStats& stats) {
  state_->write_time.Observe(stats.elapsed_ms / 1000);
  state_->written_bytes.Increment(static_cast<double>(stats.written_bytes));
}

void Metrics::CountSnapshotRestore(uint64_t bytes, double seconds) {
  state_->restore_time.Observe(seconds);
  state_->restored_bytes.Increment(static_cast<double>(bytes));
}

void Metrics::CountSnapshotFailure(const std::string& operation) {
  prometheus::Labels labels = state_->labels;
  labels.emplace("operation", operation);
  state_->snapshot_failures.Add(labels).Increment();
}

void Metrics::CountHttp(int status) { state_->http.Add({{"status", std::to_string(status)}}).Increment(); }

void Metrics::CountQueueTime(double seconds) { state_->queue_time.Observe(seconds); }

void Metrics::CountPrompt(const SyncStats& stats) {
  state_->prefix_queries.Increment(static_cast<double>(stats.prompt_tokens));
  state_->prefix_hits.Increment(static_cast<double>(stats.cached_tokens));
  state_->prompt_tokens.Increment(static_cast<double>(stats.prompt_tokens));
  state_->prefill_time.Observe(stats.elapsed_ms / 1000);
  if (stats.prefill_density) state_->density.Observe(*stats.prefill_density);
  if (stats.coverage_heldout) state_->coverage.Observe(*stats.coverage_heldout);
}

void Metrics::CountFirstToken(double seconds_since_arrival) { state_->first_token.Observe(seconds_since_arrival); }
void Metrics::CountNextToken(double seconds_since_last) { state_->inter_token.Observe(seconds_since_last); }

void Metrics::CountAnswer(const GenerationStats& stats, double seconds_since_arrival) {
  state_->output_tokens.Increment(static_cast<double>(stats.output_tokens));
  if (stats.output_tokens > 1) state_->per_token.Observe(stats.tpot_ms / 1000);
  state_->decode_time.Observe(stats.elapsed_ms / 1000);
  state_->end_to_end.Observe(seconds_since_arrival);
  if (stats.decode_kv_fraction) state_->kv_fraction.Observe(std::min(1.0, *stats.decode_kv_fraction));
  state_->reselections.Increment(static_cast<double>(stats.reselections));
  prometheus::Labels labels = state_->labels;
  labels.emplace("finished_reason", NameOf(stats.stop_reason));
  state_->success.Add(labels).Increment();
}

std::string Metrics::ToText() const { return prometheus::TextSerializer().Serialize(state_->registry.Collect()); }

}  // namespace loopserve::server
