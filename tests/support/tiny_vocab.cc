#include "tests/support/tiny_vocab.h"

#include <cstdint>
#include <cstdio>
#include <vector>

namespace loopserve {
namespace {

// Token types of the format.
constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kByte = 6;

struct Piece {
  const char* left;
  const char* right;
};

// Merges in order; '_' stands for the space. Each makes one token of two that exist by then.
constexpr Piece kMerges[] = {
    {"_", "t"},   {"_", "a"},    {"h", "e"},   {"i", "n"},    {"r", "e"},     {"o", "n"}, {"_t", "he"}, {"e", "r"},
    {"_", "s"},   {"a", "t"},    {"_", "w"},   {"_", "o"},    {"e", "n"},     {"_", "c"}, {"i", "t"},   {"i", "s"},
    {"a", "n"},   {"o", "r"},    {"e", "s"},   {"_", "b"},    {"e", "d"},     {"_", "f"}, {"in", "g"},  {"_", "p"},
    {"o", "u"},   {"_a", "n"},   {"a", "l"},   {"a", "r"},    {"_t", "o"},    {"_", "m"}, {"_o", "f"},  {"_", "in"},
    {"_", "d"},   {"_", "h"},    {"_an", "d"}, {"u", "s"},    {"i", "c"},     {"l", "e"}, {"_", "l"},   {"a", "s"},
    {"s", "t"},   {"_", "n"},    {"_th", "e"}, {"i", "on"},   {"_", "I"},     {"l", "l"}, {"l", "o"},   {"_", "g"},
    {"r", "o"},   {"_", "e"},    {"v", "e"},   {"_", "re"},   {"t", "h"},     {"_", "y"}, {"_y", "ou"}, {"H", "e"},
    {"He", "ll"}, {"Hell", "o"}, {"_w", "or"}, {"_wor", "l"}, {"_worl", "d"}, {"_", "T"}, {"_", "_"},   {"__", "__"},
    {"e", "l"},   {"_s", "t"},   {"_b", "e"},  {"_i", "s"},   {"o", "m"},     {"e", "t"}, {"c", "h"},   {"n", "e"},
    {"_f", "or"}, {"_n", "ot"},  {"u", "r"},   {"_c", "on"},  {"m", "e"},     {"e", "e"}, {"_i", "t"},  {"i", "d"}};

std::string Utf8(uint32_t c) {
  if (c < 0x80) return std::string(1, static_cast<char>(c));
  return {static_cast<char>(0xc0 | c >> 6), static_cast<char>(0x80 | (c & 0x3f))};
}

/// GPT-2's character for a byte: printable ones stand for themselves, the rest are numbered from 256.
std::vector<std::string> ByteAlphabet() {
  std::vector<std::string> alphabet(256);
  uint32_t next = 256;
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    alphabet[b] = Utf8(printable ? b : next++);
  }
  return alphabet;
}

std::string WithSpace(const char* text, const std::string& space) {
  std::string result;
  for (; *text != '\0'; ++text) result += *text == '_' ? space : std::string(1, *text);
  return result;
}

struct Vocab {
  std::vector<std::string> texts;
  std::vector<int32_t> types;
  std::vector<float> scores;

  int Add(const std::string& text, int32_t type, float score = 0) {
    for (const std::string& known : texts) {
      if (known == text) return -1;
    }
    texts.push_back(text);
    types.push_back(type);
    scores.push_back(score);
    return static_cast<int>(texts.size()) - 1;
  }
};

void SetStrings(gguf_context* gguf, const char* key, const std::vector<std::string>& texts) {
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  gguf_set_arr_str(gguf, key, pointers.data(), pointers.size());
}

void SetTokens(gguf_context* gguf, const Vocab& vocab) {
  SetStrings(gguf, "tokenizer.ggml.tokens", vocab.texts);
  gguf_set_arr_data(gguf, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, vocab.types.data(), vocab.types.size());
}

}  // namespace

int WriteTinyBpeVocab(gguf_context* gguf, const std::string& pre, bool add_bos) {
  const std::vector<std::string> alphabet = ByteAlphabet();
  Vocab vocab;
  const int end = vocab.Add("<|endoftext|>", kControl);
  vocab.Add("<|im_start|>", kControl);
  const int turn_end = vocab.Add("<|im_end|>", kControl);
  vocab.Add("<think>", kUserDefined);
  vocab.Add("</think>", kUserDefined);
  for (const std::string& character : alphabet) vocab.Add(character, kNormal);
  std::vector<std::string> merges;
  for (const Piece& merge : kMerges) {
    const std::string left = WithSpace(merge.left, alphabet[' ']), right = WithSpace(merge.right, alphabet[' ']);
    merges.push_back(left + " " + right);
    vocab.Add(left + right, kNormal);
  }
  gguf_set_val_str(gguf, "tokenizer.ggml.model", "gpt2");
  gguf_set_val_str(gguf, "tokenizer.ggml.pre", pre.c_str());
  SetTokens(gguf, vocab);
  SetStrings(gguf, "tokenizer.ggml.merges", merges);
  gguf_set_val_u32(gguf, "tokenizer.ggml.bos_token_id", static_cast<uint32_t>(end));
  gguf_set_val_u32(gguf, "tokenizer.ggml.eos_token_id", static_cast<uint32_t>(turn_end));
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", add_bos);
  return static_cast<int>(vocab.texts.size());
}

int WriteTinySpmVocab(gguf_context* gguf, bool add_space_prefix) {
  const std::string space = "\xE2\x96\x81";
  Vocab vocab;
  vocab.Add("<unk>", kUnknown);
  const int begin = vocab.Add("<s>", kControl);
  const int end = vocab.Add("</s>", kControl);
  vocab.Add("<start_of_turn>", kControl);
  vocab.Add("<end_of_turn>", kControl);
  vocab.Add("\n\n", kUserDefined);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof(text), "<0x%02X>", byte);
    vocab.Add(text, kByte);
  }
  // The better the score, the earlier two symbols are merged into this piece.
  float score = 0;
  for (const Piece& merge : kMerges) {
    vocab.Add(WithSpace(merge.left, space) + WithSpace(merge.right, space), kNormal, --score);
  }
  vocab.Add(space, kNormal, --score);
  for (char c = '!'; c <= '~'; ++c) vocab.Add(std::string(1, c), kNormal, --score);
  gguf_set_val_str(gguf, "tokenizer.ggml.model", "llama");
  gguf_set_val_str(gguf, "tokenizer.ggml.pre", "default");
  SetTokens(gguf, vocab);
  gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, vocab.scores.data(), vocab.scores.size());
  gguf_set_val_u32(gguf, "tokenizer.ggml.bos_token_id", static_cast<uint32_t>(begin));
  gguf_set_val_u32(gguf, "tokenizer.ggml.eos_token_id", static_cast<uint32_t>(end));
  gguf_set_val_u32(gguf, "tokenizer.ggml.unknown_token_id", 0);
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_bos_token", true);
  gguf_set_val_bool(gguf, "tokenizer.ggml.add_space_prefix", add_space_prefix);
  return static_cast<int>(vocab.texts.size());
}

}  // namespace loopserve
