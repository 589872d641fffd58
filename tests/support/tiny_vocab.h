// The tokenizers of the tiny models: some 400 tokens that cover every byte. Used by tiny_gguf.cc and tokenizer tests.
// Thread rule: pure functions.
#pragma once

#include <string>

#include "gguf.h"

namespace loopserve {

/// Writes the tokenizer.* keys of a byte-level BPE vocabulary; `pre` is tokenizer.ggml.pre. Returns its size in tokens.
int WriteTinyBpeVocab(gguf_context* gguf, const std::string& pre, bool add_bos);

/// The same for a SentencePiece vocabulary with byte fallback.
int WriteTinySpmVocab(gguf_context* gguf, bool add_space_prefix);

}  // namespace loopserve
