// Reads and checks the header of a GGUF file (versions 2 and 3, little endian). Used by GgufFile alone.
//
// The whole header is walked here with overflow-checked arithmetic rather than by ggml's own reader: that one asserts
// on some damage, copies every string, and knows nothing of the file's end when it describes tensors. Nothing is
// allocated in proportion to a number in the file, only to bytes that are really there. Thread rule: pure function.
// Ownership: all views point into the bytes given to Parse, which must outlive them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string_view>
#include <vector>

#include "ggml.h"
#include "gguf.h"
#include "loopserve/status.h"

namespace loopserve {

/// A metadata value. Numbers are little endian and unaligned. Strings in an array: each its u64 length, then its bytes.
struct GgufValue {
  gguf_type type = GGUF_TYPE_COUNT;          ///< GGUF_TYPE_ARRAY for arrays
  gguf_type element_type = GGUF_TYPE_COUNT;  ///< of an array's elements; equal to `type` for scalars
  uint64_t count = 1;                        ///< elements of an array
  const uint8_t* data = nullptr;             ///< the number, the string's characters, or the first element
  size_t size_bytes = 0;
};

struct GgufTensorInfo {
  std::string_view name;
  ggml_type type = GGML_TYPE_COUNT;
  int n_dims = 0;
  std::array<int64_t, GGML_MAX_DIMS> ne = {1, 1, 1, 1};
  uint64_t file_offset = 0;  ///< of its first byte, from the start of the file
  size_t size_bytes = 0;
};

struct GgufHeader {
  uint32_t version = 0;
  std::map<std::string_view, GgufValue> values;  ///< a tree: hostile keys cannot make it slow
  std::vector<GgufTensorInfo> tensors;           ///< in the file's order
};

/// Checks everything that can be checked without knowing the model. Errors: kCorruptData, kUnsupported (version,
/// byte order).
Result<GgufHeader> ParseGguf(std::span<const uint8_t> file);

/// Bytes of one element; 0 for strings, arrays and unknown types.
size_t GgufElementBytes(gguf_type type);

}  // namespace loopserve
