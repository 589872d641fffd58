#include "src/gguf/fingerprint.h"

#include <algorithm>
#include <string>

#include "ggml.h"
#include "src/base/sha256.h"

namespace loopserve {
namespace {

constexpr size_t kSampleBytes = 4096;

Fingerprint Finish(Sha256& hasher) {
  const std::string hex = hasher.FinishHex();
  Fingerprint bytes;
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<uint8_t>(std::stoul(hex.substr(2 * i, 2), nullptr, 16));
  return bytes;
}

}  // namespace

Fingerprint ModelFingerprint(const GgufFile& file) {
  Sha256 hasher;
  const std::span<const uint8_t> header = file.header_bytes();
  hasher.Update(header.data(), header.size());
  const uint64_t file_bytes = file.file_bytes();
  hasher.Update(&file_bytes, sizeof(file_bytes));
  for (const ggml_tensor* tensor : file.tensors()) {
    const auto* data = static_cast<const uint8_t*>(tensor->data);
    const size_t bytes = ggml_nbytes(tensor);
    const size_t sample = std::min(bytes, kSampleBytes);
    for (const size_t offset : {size_t{0}, (bytes - sample) / 2, bytes - sample}) hasher.Update(data + offset, sample);
  }
  return Finish(hasher);
}

Fingerprint TokenizerFingerprint(const GgufFile& file) {
  Sha256 hasher;
  file.ForEachKey("tokenizer.", [&](std::string_view key, std::span<const uint8_t> value) {
    const uint64_t sizes[2] = {key.size(), value.size()};
    hasher.Update(sizes, sizeof(sizes));
    hasher.Update(key.data(), key.size());
    hasher.Update(value.data(), value.size());
  });
  return Finish(hasher);
}

}  // namespace loopserve
