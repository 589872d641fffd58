#include "src/gguf/ggml_log.h"

#include <mutex>

#include "ggml.h"

namespace loopserve {
namespace {

constexpr size_t kMaxErrorBytes = 1000;
thread_local GgmlErrorCapture* current_capture = nullptr;

}  // namespace

void GgmlLogSink(int level, const char* text) {
  if (level != GGML_LOG_LEVEL_ERROR || current_capture == nullptr || !current_capture->first_error_.empty()) return;
  std::string error(text);
  error.resize(std::min(error.size(), kMaxErrorBytes));
  while (!error.empty() && error.back() == '\n') error.pop_back();
  current_capture->first_error_ = std::move(error);
}

void SilenceGgml() {
  static std::once_flag once;
  std::call_once(once, [] {
    ggml_log_set([](ggml_log_level level, const char* text, void*) { GgmlLogSink(level, text); }, nullptr);
  });
}

GgmlErrorCapture::GgmlErrorCapture() : outer_(current_capture) { current_capture = this; }
GgmlErrorCapture::~GgmlErrorCapture() { current_capture = outer_; }

}  // namespace loopserve
