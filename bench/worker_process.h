// An engine in a helper process of its own: its memory peak is its own, its threads are idle while others are measured.
// Thread rule: one thread at a time. Ownership: owns the process; it ends with this object.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "bench/child_process.h"
#include "bench/measured_engine.h"

namespace loopserve::bench {

class WorkerProcess : public MeasuredEngine {
 public:
  /// Starts `command`, a program that speaks worker_protocol.h, and loads the engine in it. Every request may take
  /// `timeout`; cancel may be null. Errors: those of ChildProcess, and what the engine says (kUnsupported: it cannot
  /// run this model).
  static Result<std::unique_ptr<WorkerProcess>> Start(const std::vector<std::string>& command, const EngineSpec& spec,
                                                      std::chrono::milliseconds timeout,
                                                      const std::atomic<bool>* cancel = nullptr);

  Status Prepare(std::span<const Token> context) override;
  Result<RunFigures> Run(std::span<const Token> prompt, int gen_tokens) override;

 private:
  WorkerProcess(std::unique_ptr<ChildProcess> child, std::chrono::milliseconds timeout)
      : child_(std::move(child)), timeout_(timeout) {}
  std::unique_ptr<ChildProcess> child_;
  std::chrono::milliseconds timeout_;
};

}  // namespace loopserve::bench
