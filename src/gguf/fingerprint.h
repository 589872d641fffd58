// What tells one model file from another without reading all of it: SHA-256 of its header and of samples of every
// tensor (docs/decisions/0007-snapshots.md). Thread rule: pure functions.
#pragma once

#include <array>
#include <cstdint>

#include "src/gguf/gguf_file.h"

namespace loopserve {

using Fingerprint = std::array<uint8_t, 32>;

/// Over everything before the first tensor (all keys, names, shapes, types), the file's size, and 4 KiB at the
/// beginning, the middle and the end of each tensor.
Fingerprint ModelFingerprint(const GgufFile& file);
/// Over the keys that begin with "tokenizer.": vocabulary, merges, special tokens, chat template.
Fingerprint TokenizerFingerprint(const GgufFile& file);

}  // namespace loopserve
