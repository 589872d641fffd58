// Which prompt is read first where one arrives while another is being read: the one with less left to read, so that a
// short one does not wait for a whole long one; but a prompt lets others go first for no more tokens than it has read
// itself, so that none is held up for ever, and none takes more than twice its time for the prompts of others.
#pragma once

#include <cstdint>

namespace loopserve::server {

/// A prompt on its way.
struct Reading {
  int64_t new_tokens = 0;  ///< that are not held already
  double share_read = 0;   ///< of them
  int64_t let_before = 0;  ///< new tokens of the prompts that went before it since it began
};

/// Whether a prompt of so many new tokens goes before the rest of `reading`.
inline bool GoesBefore(int64_t new_tokens, const Reading& reading) {
  const double read = reading.share_read * static_cast<double>(reading.new_tokens);
  return static_cast<double>(new_tokens) <= static_cast<double>(reading.new_tokens) - read &&
         static_cast<double>(new_tokens + reading.let_before) <= read;
}

}  // namespace loopserve::server
