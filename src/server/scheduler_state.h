// What the scheduler knows of a request that it works on: for its own files only. Thread rule: the engine's thread.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "src/server/reading_order.h"
#include "src/server/scheduler.h"

namespace loopserve::server {

/// Prompts that are read at once: as many as RunControl::yield allows.
inline constexpr size_t kMaxReadings = 3;

/// One of a request's answers.
struct Scheduler::Writer {
  int choice = 0;
  std::optional<Session> fork;  ///< of all but the first
  Session* session = nullptr;
  std::optional<Answer> answer;  ///< before `session` goes
  bool ended = false;
  Clock::time_point last_token;
};

struct Scheduler::Active {
  Waiting waiting;
  HeldDialogue* dialogue = nullptr;
  std::vector<std::unique_ptr<Writer>> writers;
  std::atomic<bool> stop_reading{false};
  Clock::time_point reading_start, last_progress;
  Reading reading;
  int64_t cached_tokens = 0;
  size_t planned_bytes = 0;
  bool was_read = false;
  bool finished = false;
  bool is_done = false;  ///< finished, and told so when its dialogue is given back

  const JobSpec& spec() const { return waiting.spec; }
  JobChannel& channel() const { return *waiting.channel; }
};

/// An answer's turn to get a token.
struct Scheduler::Turn {
  Active* active = nullptr;
  Writer* writer = nullptr;
};

}  // namespace loopserve::server
