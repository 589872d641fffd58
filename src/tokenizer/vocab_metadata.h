// Checks a model's tokenizer metadata and copies it for libllama. libllama never sees the model's file: it gets a
// metadata table that holds these checked values and nothing else, so a hostile file cannot reach its assertions.
// Thread rule: pure function.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "gguf.h"
#include "loopserve/status.h"
#include "src/gguf/gguf_file.h"

namespace loopserve {

struct GgufContextDeleter {
  void operator()(gguf_context* context) const { gguf_free(context); }
};
using GgufContextPtr = std::unique_ptr<gguf_context, GgufContextDeleter>;

struct VocabMetadata {
  GgufContextPtr table;
  /// SPM only: libllama would put a space before every text that follows a control token. The copied table switches
  /// that off, and Tokenizer does it: only it knows where a text that is tokenized in pieces really begins.
  bool add_space_prefix = false;
  /// BPE only: long runs have to be cut before libllama sees them (long_runs.h).
  bool cut_long_runs = false;
};

/// Errors: kUnsupported (a kind of tokenizer that is not SPM or BPE), kCorruptData (names the key).
Result<VocabMetadata> CopyVocabMetadata(const GgufFile& file);

}  // namespace loopserve
