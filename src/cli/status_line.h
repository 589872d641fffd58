// One line of progress on a terminal, drawn over itself; nothing at all where stderr is no terminal.
// Thread rule: one thread at a time.
#pragma once

#include <chrono>
#include <cstdio>
#include <string>

namespace loopserve {

class StatusLine {
 public:
  /// Draws only if `file` is a terminal. The file must outlive this.
  explicit StatusLine(std::FILE* file = stderr);
  ~StatusLine() { Clear(); }

  bool visible() const { return visible_; }
  /// Draws `text` instead of what was there, at most ten times a second unless `now`.
  void Show(const std::string& text, bool now = false);
  /// Removes the line, so that other output can follow.
  void Clear();

 private:
  std::FILE* file_;
  bool visible_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point last_{};
};

/// "[######----]": `fraction` of `width` characters, kept in [0, 1].
std::string ProgressBar(double fraction, int width);

}  // namespace loopserve
