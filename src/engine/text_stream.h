// Turns the bytes of generated tokens into text that may be shown: whole UTF-8 characters only, nothing that could still
// become a stop string, and nothing of a stop string that was reached. Thread rule: one owner; one per answer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace loopserve {

class TextStream {
 public:
  explicit TextStream(std::vector<std::string> stop);

  /// Adds a token's bytes; returns the text that may be shown now (maybe empty). After a stop string was found
  /// stopped() is true and the text before it has been returned.
  std::string Push(std::string_view bytes);
  /// The answer ended otherwise: returns what was held back. Invalid UTF-8 becomes U+FFFD.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stop_;
  std::string pending_;
  bool stopped_ = false;
};

}  // namespace loopserve
