// How kernels see the KV cache of one layer and one KV head: rows in fixed-size blocks, read-only, owned by kvcache/.
// Thread rule: a value; any number of threads may read through it while no one appends.
#pragma once

#include <cstddef>
#include <cstdint>

namespace loopserve {

/// Storage of keys and values. kQ8_0 is ggml's block format: 32 int8 and one f16 scale (34 bytes).
enum class KvType : uint8_t { kF16, kQ8_0 };

/// Bytes of one row of `head_dim` elements (kQ8_0: head_dim must be a multiple of 32).
inline size_t KvRowBytes(KvType type, int head_dim) {
  return type == KvType::kF16 ? static_cast<size_t>(head_dim) * 2 : static_cast<size_t>(head_dim / 32) * 34;
}

/// Keys (after RoPE) and values of one KV head of one layer. Key of token t, dtype `type`, [head_dim]:
///   blocks[t / block_tokens] + key_offset_bytes + (t % block_tokens) * row_bytes
/// and its value likewise with value_offset_bytes.
struct KvHeadView {
  KvType type = KvType::kF16;
  int head_dim = 0;
  int block_tokens = 0;
  int64_t n_keys = 0;
  size_t row_bytes = 0;
  const std::byte* const* blocks = nullptr;
  size_t key_offset_bytes = 0;
  size_t value_offset_bytes = 0;

  const std::byte* Key(int64_t t) const {
    return blocks[t / block_tokens] + key_offset_bytes + static_cast<size_t>(t % block_tokens) * row_bytes;
  }
  const std::byte* Value(int64_t t) const {
    return blocks[t / block_tokens] + value_offset_bytes + static_cast<size_t>(t % block_tokens) * row_bytes;
  }
};

}  // namespace loopserve
