// Memory aligned for SIMD, uninitialised, that grows and never shrinks by itself. Thread rule: one owner.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>

namespace loopserve {

class AlignedBuffer {
 public:
  static constexpr size_t kAlignment = 64;

  /// Makes at least `bytes` available; the content is lost when it has to grow. False (and empty) without memory.
  [[nodiscard]] bool Reserve(size_t bytes) {
    if (bytes <= bytes_) return true;
    data_.reset();
    bytes_ = 0;
    const size_t rounded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    if (rounded < bytes) return false;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlignment, rounded)));
    if (data_ == nullptr) return false;
    bytes_ = rounded;
    return true;
  }
  void Free() {
    data_.reset();
    bytes_ = 0;
  }

  std::byte* data() const { return data_.get(); }
  float* floats() const { return reinterpret_cast<float*>(data_.get()); }
  size_t bytes() const { return bytes_; }

 private:
  struct FreeDeleter {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, FreeDeleter> data_;
  size_t bytes_ = 0;
};

}  // namespace loopserve
