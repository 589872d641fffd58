// The one place that decides what becomes of the messages of ggml and libllama: they are kept off the terminal. What
// ggml reports as an error while an ErrorCapture lives is kept, so that it can become part of a Status.
// Thread rule: all functions may be called from any thread; an ErrorCapture collects its own thread's messages.
#pragma once

#include <string>

namespace loopserve {

/// Hand this to ggml_log_set and llama_log_set. `level` is a ggml_log_level.
void GgmlLogSink(int level, const char* text);

/// Makes ggml use the sink. Cheap; call it before anything that may log.
void SilenceGgml();

class GgmlErrorCapture {
 public:
  GgmlErrorCapture();
  ~GgmlErrorCapture();
  GgmlErrorCapture(const GgmlErrorCapture&) = delete;
  GgmlErrorCapture& operator=(const GgmlErrorCapture&) = delete;

  /// The first error reported since construction, without its line end; empty if there was none.
  const std::string& first_error() const { return first_error_; }

 private:
  friend void GgmlLogSink(int level, const char* text);
  std::string first_error_;
  GgmlErrorCapture* outer_;
};

}  // namespace loopserve
