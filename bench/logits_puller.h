// A model's logits row by row, on demand: turns a call that reports rows through a callback (Session::Sync, the
// llama.cpp peer) into one that is asked for the next row, so that two models walk through a text together and no
// text's logits are ever stored.
//
// Thread rule: the source runs on a thread of its own, but only while Next() or Finish() waits for it: never two models
// at a time. One thread calls. Ownership: the source's references must outlive the puller.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <optional>
#include <span>
#include <thread>

#include "loopserve/engine.h"
#include "loopserve/status.h"

namespace loopserve::bench {

/// Computes all rows of something, handing each to the callback.
using LogitsSource = std::function<Status(const LogitsCallback&)>;

class LogitsPuller {
 public:
  explicit LogitsPuller(LogitsSource source);
  /// Lets the source run to its end.
  ~LogitsPuller();
  LogitsPuller(const LogitsPuller&) = delete;
  LogitsPuller& operator=(const LogitsPuller&) = delete;

  /// The next row, f32 [n_vocab], valid until the next call; empty after the last. An error: the source's.
  Result<std::span<const float>> Next();
  /// Skips what is left and returns the source's status.
  Status Finish();

 private:
  enum class Turn { kCaller, kSource };
  void Publish(std::span<const float> row);

  LogitsSource source_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Turn turn_ = Turn::kCaller;
  bool done_ = false;
  bool skip_ = false;  // nobody wants the rows that are left
  std::span<const float> row_;
  Status status_;
  std::thread thread_;
};

}  // namespace loopserve::bench
