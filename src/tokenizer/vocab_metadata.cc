#include "src/tokenizer/vocab_metadata.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <unordered_set>

#include "llama.h"
#include "src/tokenizer/long_runs.h"

namespace loopserve {
namespace {

constexpr size_t kMaxTokens = 1 << 22;
constexpr size_t kMaxTokenBytes = 1 << 16;
constexpr size_t kMaxMerges = 1 << 24;
constexpr size_t kMaxEscapedBytes = size_t{64} << 20;

const char kModel[] = "tokenizer.ggml.model";
const char kPre[] = "tokenizer.ggml.pre";
const char kTokens[] = "tokenizer.ggml.tokens";
const char kScores[] = "tokenizer.ggml.scores";
const char kTypes[] = "tokenizer.ggml.token_type";
const char kMerges[] = "tokenizer.ggml.merges";
const char kSpacePrefix[] = "tokenizer.ggml.add_space_prefix";

// All keys that libllama reads as token ids and as bools.
const char* const kIdKeys[] = {
    "tokenizer.ggml.bos_token_id",     "tokenizer.ggml.eos_token_id",     "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eom_token_id",     "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.seperator_token_id",
    "tokenizer.ggml.padding_token_id", "tokenizer.ggml.mask_token_id",    "tokenizer.ggml.fim_pre_token_id",
    "tokenizer.ggml.fim_suf_token_id", "tokenizer.ggml.fim_mid_token_id", "tokenizer.ggml.fim_pad_token_id",
    "tokenizer.ggml.fim_rep_token_id", "tokenizer.ggml.fim_sep_token_id", "tokenizer.ggml.prefix_token_id",
    "tokenizer.ggml.suffix_token_id",  "tokenizer.ggml.middle_token_id"};
const char* const kBoolKeys[] = {"tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token",
                                 "tokenizer.ggml.add_sep_token", "tokenizer.ggml.remove_extra_whitespaces"};

Status KeyError(const char* key, const std::string& what) {
  return Status(StatusCode::kCorruptData, std::string(key) + " " + what);
}

/// Whether GPT-2's byte alphabet has this character: the printable ones stand for themselves, 256 to 323 for the rest.
bool InByteAlphabet(uint32_t c) { return (c >= 33 && c <= 126) || (c >= 161 && c <= 172) || (c >= 174 && c <= 323); }

/// Characters of a text that are not in the byte alphabet, counting every malformed byte as one.
size_t CountOutsideByteAlphabet(std::string_view text) {
  size_t n = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const uint8_t first = static_cast<uint8_t>(text[i]);
    uint32_t c = first;
    if (first >= 0xc2 && first <= 0xc5 && i + 1 < text.size()) {  // two bytes, up to U+017F
      c = static_cast<uint32_t>(first & 0x1f) << 6 | (static_cast<uint8_t>(text[++i]) & 0x3f);
    }
    n += !InByteAlphabet(c);
  }
  return n;
}

struct Tokens {
  std::vector<std::string> texts;
  std::vector<int32_t> types;
  std::vector<float> scores;
};

/// The token texts as libllama will see them. It asserts that all are different, after cutting each at a NUL byte and
/// giving names to empty ones.
Status ReadTexts(const GgufFile& file, std::vector<std::string>* texts) {
  LS_ASSIGN_OR_RETURN(const auto tokens, file.FindStringArray(kTokens));
  if (!tokens) return KeyError(kTokens, "is missing");
  if (tokens->empty()) return KeyError(kTokens, "is empty");
  if (tokens->size() > kMaxTokens) return KeyError(kTokens, "has " + std::to_string(tokens->size()) + " tokens");
  std::unordered_set<std::string_view> seen;
  texts->reserve(tokens->size());
  for (const std::string_view token : *tokens) {
    const size_t i = texts->size();
    if (token.size() > kMaxTokenBytes)
      return KeyError(kTokens, "has a token of " + std::to_string(token.size()) + " bytes");
    texts->emplace_back(token.substr(0, token.find('\0')));
    if (texts->back().empty()) texts->back() = "[EMPTY_" + std::to_string(i) + "]";
    if (!seen.insert(texts->back()).second) {
      return KeyError(kTokens, "has the same text twice: token " + std::to_string(i));
    }
  }
  return Status::Ok();
}

Status ReadTypes(const GgufFile& file, Tokens* tokens) {
  const size_t n = tokens->texts.size();
  LS_ASSIGN_OR_RETURN(const auto types, file.FindIntArray(kTypes));
  tokens->types.assign(n, LLAMA_TOKEN_TYPE_NORMAL);
  if (!types) return Status::Ok();
  if (types->size() != n) {
    return KeyError(kTypes, "has " + std::to_string(types->size()) + " entries for " + std::to_string(n) + " tokens");
  }
  for (size_t i = 0; i < n; ++i) {
    const int64_t type = (*types)[i];
    if (type < LLAMA_TOKEN_TYPE_UNDEFINED || type > LLAMA_TOKEN_TYPE_BYTE) {
      return KeyError(kTypes, "has the unknown type " + std::to_string(type));
    }
    const std::string& text = tokens->texts[i];
    if (type == LLAMA_TOKEN_TYPE_BYTE && (text.size() != 6 || text.substr(0, 3) != "<0x" || text[5] != '>')) {
      return KeyError(kTypes, "says that token " + std::to_string(i) + " is a byte, but it is not written as one");
    }
    tokens->types[i] = static_cast<int32_t>(type);
  }
  return Status::Ok();
}

Status ReadScores(const GgufFile& file, Tokens* tokens) {
  LS_ASSIGN_OR_RETURN(const auto scores, file.FindFloatArray(kScores));
  if (!scores) return Status::Ok();
  if (scores->size() != tokens->texts.size()) {
    return KeyError(kScores, "has " + std::to_string(scores->size()) + " entries for " +
                                 std::to_string(tokens->texts.size()) + " tokens");
  }
  if (!std::all_of(scores->begin(), scores->end(), [](float s) { return std::isfinite(s); })) {
    return KeyError(kScores, "has a number that is not finite");
  }
  tokens->scores = *scores;
  return Status::Ok();
}

/// SPM falls back to bytes; libllama throws in the middle of a text when one is missing.
Status CheckSpmBytes(const std::vector<std::string>& texts) {
  const std::unordered_set<std::string_view> known(texts.begin(), texts.end());
  for (int byte = 0; byte < 256; ++byte) {
    char escaped[7];
    std::snprintf(escaped, sizeof(escaped), "<0x%02X>", byte);
    const char raw = static_cast<char>(byte);
    if (known.count(escaped) == 0 && (byte == 0 || known.count(std::string_view(&raw, 1)) == 0)) {
      return KeyError(kTokens, "has no token for the byte " + std::string(escaped));
    }
  }
  return Status::Ok();
}

/// When a BPE token has characters outside the byte alphabet, libllama writes the whole text once for each of them:
/// a few long tokens could fill the memory.
Status CheckBpeAlphabet(const Tokens& tokens) {
  size_t escaped_bytes = 0;
  for (const std::string& text : tokens.texts) {
    escaped_bytes += CountOutsideByteAlphabet(text) * (text.size() + 32);
    if (escaped_bytes > kMaxEscapedBytes)
      return KeyError(kTokens, "has long tokens that are not written in GPT-2's byte alphabet");
  }
  return Status::Ok();
}

Status CopyMerges(const GgufFile& file, gguf_context* table) {
  LS_ASSIGN_OR_RETURN(const auto merges, file.FindStringArray(kMerges));
  if (!merges) return KeyError(kMerges, "is missing");
  if (merges->size() > kMaxMerges) return KeyError(kMerges, "has " + std::to_string(merges->size()) + " entries");
  std::vector<std::string> texts(merges->begin(), merges->end());
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  gguf_set_arr_str(table, kMerges, pointers.data(), pointers.size());
  return Status::Ok();
}

Status CopyIdsAndFlags(const GgufFile& file, size_t n_tokens, gguf_context* table) {
  for (const char* key : kIdKeys) {
    LS_ASSIGN_OR_RETURN(const auto id, file.FindUint(key));
    // Files in the wild use 2^32 - 1 for "none".
    if (!id || *id == std::numeric_limits<uint32_t>::max()) continue;
    if (*id >= n_tokens) {
      return KeyError(key, "is " + std::to_string(*id) + ", but there are " + std::to_string(n_tokens) + " tokens");
    }
    gguf_set_val_u32(table, key, static_cast<uint32_t>(*id));
  }
  for (const char* key : kBoolKeys) {
    LS_ASSIGN_OR_RETURN(const auto flag, file.FindBool(key));
    if (flag) gguf_set_val_bool(table, key, *flag);
  }
  return Status::Ok();
}

void CopyTokens(const Tokens& tokens, gguf_context* table) {
  std::vector<const char*> pointers;
  for (const std::string& text : tokens.texts) pointers.push_back(text.c_str());
  gguf_set_arr_str(table, kTokens, pointers.data(), pointers.size());
  gguf_set_arr_data(table, kTypes, GGUF_TYPE_INT32, tokens.types.data(), tokens.types.size());
  if (!tokens.scores.empty()) {
    gguf_set_arr_data(table, kScores, GGUF_TYPE_FLOAT32, tokens.scores.data(), tokens.scores.size());
  }
}

}  // namespace

Result<VocabMetadata> CopyVocabMetadata(const GgufFile& file) {
  LS_ASSIGN_OR_RETURN(const auto model, file.FindString(kModel));
  if (!model) return KeyError(kModel, "is missing");
  const bool spm = *model == "llama";
  if (!spm && *model != "gpt2") {
    return Status(StatusCode::kUnsupported, std::string(kModel) + " is '" + model->substr(0, 40) +
                                                "'; supported are 'llama' (SentencePiece) and 'gpt2' (BPE)");
  }
  Tokens tokens;
  LS_RETURN_IF_ERROR(ReadTexts(file, &tokens.texts));
  LS_RETURN_IF_ERROR(ReadTypes(file, &tokens));
  LS_RETURN_IF_ERROR(ReadScores(file, &tokens));
  LS_RETURN_IF_ERROR(spm ? CheckSpmBytes(tokens.texts) : CheckBpeAlphabet(tokens));

  VocabMetadata metadata;
  metadata.table.reset(gguf_init_empty());
  // Any family that libllama knows will do: with vocab_only it looks no further than the tokenizer's keys.
  gguf_set_val_str(metadata.table.get(), "general.architecture", "llama");
  gguf_set_val_str(metadata.table.get(), kModel, model->c_str());
  CopyTokens(tokens, metadata.table.get());
  LS_RETURN_IF_ERROR(CopyIdsAndFlags(file, tokens.texts.size(), metadata.table.get()));
  LS_ASSIGN_OR_RETURN(const auto space_prefix, file.FindBool(kSpacePrefix));
  if (spm) {
    metadata.add_space_prefix = space_prefix.value_or(true);
    gguf_set_val_bool(metadata.table.get(), kSpacePrefix, false);
  } else {
    LS_ASSIGN_OR_RETURN(const auto pre, file.FindString(kPre));
    // The first makes libllama assert at two spaces in a row, the second backtracks without end over plain words.
    if (pre == "whitespace" || pre == "exaone-moe") {
      return Status(StatusCode::kUnsupported, std::string(kPre) + " '" + *pre + "' is not supported");
    }
    metadata.cut_long_runs = SplitsByStdRegex(pre.value_or(""));
    if (pre) gguf_set_val_str(metadata.table.get(), kPre, pre->c_str());
    LS_RETURN_IF_ERROR(CopyMerges(file, metadata.table.get()));
  }
  return metadata;
}

}  // namespace loopserve
