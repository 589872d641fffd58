// What /metrics tells, in Prometheus' text form: the names that dashboards for vLLM read, and our own.
// Thread rule: thread-safe.
#pragma once

#include <memory>
#include <string>

#include "loopserve/engine.h"
#include "loopserve/session_store.h"

namespace loopserve::server {

class Metrics {
 public:
  explicit Metrics(const std::string& model_name);
  ~Metrics();

  void SetLoad(size_t running, size_t waiting);
  void SetMemory(size_t kv_used_bytes, size_t kv_budget_bytes, size_t sessions, int64_t dropped_sessions,
                 int64_t unloaded_sessions);
  void SetDisk(uint64_t used_bytes, uint64_t budget_bytes, size_t sessions);
  void CountHttp(int status);
  void CountQueueTime(double seconds);
  void CountPrompt(const SyncStats& stats);
  void CountFirstToken(double seconds_since_arrival);
  void CountNextToken(double seconds_since_last);
  void CountAnswer(const GenerationStats& stats, double seconds_since_arrival);
  void CountSnapshotWrite(const SaveStats& stats);
  void CountSnapshotRestore(uint64_t bytes, double seconds);
  /// operation: "start", "save", "restore", "pin", "delete".
  void CountSnapshotFailure(const std::string& operation);

  std::string ToText() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace loopserve::server
