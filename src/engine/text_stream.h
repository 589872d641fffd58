// Turns the bytes of generated tokens into text that may be shown: whole UTF-8 characters only, nothing that could
// still become a stop string, and nothing of a stop string that was reached. However the bytes are cut into tokens, the
// pieces add up to the same text: that of all bytes, up to where the first stop string in it begins. Thread rule: one
// owner; one per answer.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace loopserve {

class TextStream {
 public:
  /// `stop`: UTF-8, none empty (SamplingParams::Validate).
  explicit TextStream(std::vector<std::string> stop);

  /// Adds a token's bytes; returns the text that may be shown now (maybe empty). Invalid UTF-8 becomes U+FFFD, one for
  /// each maximal part of a character (Unicode, 3.9). After a stop string was found stopped() is true and the text
  /// before it has been returned; what is pushed then gives nothing. Where one stop string could still begin before
  /// another that is complete, the decision waits for more text.
  std::string Push(std::string_view bytes);
  /// The answer ended otherwise: returns what was held back, up to a stop string where one is in it.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  std::string Release(bool at_end);

  std::vector<std::string> stop_;
  std::string incomplete_;  // the bytes of a character that has not ended
  std::string pending_;     // text that could still become a stop string
  bool stopped_ = false;
};

}  // namespace loopserve
