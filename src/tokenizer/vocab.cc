#include "src/tokenizer/vocab.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <limits>
#include <mutex>
#include <new>

#include "src/gguf/ggml_log.h"
#include "src/tokenizer/long_runs.h"
#include "src/tokenizer/vocab_metadata.h"

namespace loopserve {
namespace {

void SilenceLlama() {
  static std::once_flag once;
  std::call_once(once, [] {
    SilenceGgml();
    llama_log_set([](ggml_log_level level, const char* text, void*) { GgmlLogSink(level, text); }, nullptr);
  });
}

}  // namespace

Result<std::unique_ptr<Vocab>> Vocab::Load(const GgufFile& file) {
  SilenceLlama();
  LS_ASSIGN_OR_RETURN(const VocabMetadata metadata, CopyVocabMetadata(file));
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  std::unique_ptr<Vocab> vocab(new Vocab());
  const GgmlErrorCapture errors;
  try {
    vocab->model_.reset(llama_model_init_from_user(
        metadata.table.get(), [](ggml_tensor*, void*) {}, nullptr, params));
  } catch (const std::exception& e) {
    return Status(StatusCode::kCorruptData, std::string("the tokenizer cannot be loaded: ") + e.what());
  }
  if (!vocab->model_) {
    const std::string& error = errors.first_error();
    const bool unknown_pre = error.find("unknown pre-tokenizer") != std::string::npos;
    return Status(unknown_pre ? StatusCode::kUnsupported : StatusCode::kCorruptData,
                  "the tokenizer cannot be loaded: " + (error.empty() ? "libllama gave no reason" : error));
  }
  vocab->vocab_ = llama_model_get_vocab(vocab->model_.get());
  vocab->n_tokens_ = llama_vocab_n_tokens(vocab->vocab_);
  vocab->add_space_prefix_ = metadata.add_space_prefix;
  vocab->cut_long_runs_ = metadata.cut_long_runs;
  if (llama_vocab_get_add_bos(vocab->vocab_)) vocab->added_bos_ = llama_vocab_bos(vocab->vocab_);
  if (llama_vocab_get_add_eos(vocab->vocab_)) vocab->added_eos_ = llama_vocab_eos(vocab->vocab_);
  vocab->CollectSpecials();
  return vocab;
}

bool Vocab::IsControl(Token token) const {
  if (token < 0 || token >= n_tokens_) return false;
  return (llama_vocab_get_attr(vocab_, token) & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) != 0;
}

bool Vocab::IsEndOfText(Token token) const {
  return token >= 0 && token < n_tokens_ && llama_vocab_is_eog(vocab_, token);
}

std::string Vocab::bos_text() const {
  const Token bos = llama_vocab_bos(vocab_);
  return bos < 0 ? std::string() : llama_vocab_get_text(vocab_, bos);
}

std::string Vocab::eos_text() const {
  const Token eos = llama_vocab_eos(vocab_);
  return eos < 0 ? std::string() : llama_vocab_get_text(vocab_, eos);
}

void Vocab::CollectSpecials() {
  for (Token token = 0; token < n_tokens_; ++token) {
    const bool control = IsControl(token);
    if (!control && (llama_vocab_get_attr(vocab_, token) & LLAMA_TOKEN_ATTR_USER_DEFINED) == 0) continue;
    specials_.push_back({llama_vocab_get_text(vocab_, token), token, control});
  }
  std::stable_sort(specials_.begin(), specials_.end(),
                   [](const Special& a, const Special& b) { return a.text.size() > b.text.size(); });
  for (size_t i = 0; i < specials_.size(); ++i) {
    specials_by_first_byte_[static_cast<uint8_t>(specials_[i].text[0])].push_back(static_cast<uint32_t>(i));
  }
}

std::string Vocab::Piece(Token token) const {
  if (token < 0 || token >= n_tokens_) return std::string();
  std::string piece(32, '\0');
  int n = llama_token_to_piece(vocab_, token, piece.data(), static_cast<int32_t>(piece.size()), 0, true);
  if (n < 0) {
    piece.resize(static_cast<size_t>(-n));
    n = llama_token_to_piece(vocab_, token, piece.data(), static_cast<int32_t>(piece.size()), 0, true);
  }
  piece.resize(static_cast<size_t>(std::max(n, 0)));
  return piece;
}

std::vector<TextSpan> Vocab::Split(std::string_view text, const std::vector<bool>& control_allowed) const {
  // Longest first, as llama.cpp has it; only those that stand somewhere: most texts have few.
  std::vector<bool> is_somewhere(specials_.size());
  for (size_t i = 0; i < text.size(); ++i) {
    for (const uint32_t rank : specials_by_first_byte_[static_cast<uint8_t>(text[i])]) {
      const std::string& special = specials_[rank].text;
      if (!is_somewhere[rank] && text.compare(i, special.size(), special) == 0) is_somewhere[rank] = true;
    }
  }

  std::vector<TextSpan> specials;
  std::vector<bool> taken(text.size());
  for (size_t rank = 0; rank < specials_.size(); ++rank) {
    if (!is_somewhere[rank]) continue;
    const Special& special = specials_[rank];
    const size_t size = special.text.size();
    for (size_t begin = text.find(special.text); begin != text.npos;) {
      bool free = true;
      for (size_t i = begin; free && i < begin + size; ++i) {
        free = !taken[i] && (!special.control || (!control_allowed.empty() && control_allowed[i]));
      }
      if (free) {
        std::fill_n(taken.begin() + static_cast<ptrdiff_t>(begin), size, true);
        specials.push_back({begin, begin + size, special.token});
      }
      begin = text.find(special.text, begin + (free ? size : 1));
    }
  }
  std::sort(specials.begin(), specials.end(), [](const TextSpan& a, const TextSpan& b) { return a.begin < b.begin; });

  std::vector<TextSpan> spans;
  size_t end = 0;
  for (const TextSpan& special : specials) {
    if (special.begin > end) spans.push_back({end, special.begin, -1});
    spans.push_back(special);
    end = special.end;
  }
  if (end < text.size()) spans.push_back({end, text.size(), -1});
  return spans;
}

Status Vocab::Tokenize(std::string_view text, std::vector<Token>* tokens) const {
  const size_t before = tokens->size();
  // One token a byte is enough for all texts but those made of bytes that the vocabulary escapes.
  int32_t capacity = static_cast<int32_t>(std::min<size_t>(text.size() + 8, std::numeric_limits<int32_t>::max()));
  for (;;) {
    tokens->resize(before + static_cast<size_t>(capacity));
    const int32_t n = llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), tokens->data() + before,
                                     capacity, /*add_special=*/false, /*parse_special=*/false);
    tokens->resize(before + static_cast<size_t>(std::max(n, 0)));
    if (n >= 0) return Status::Ok();
    if (n == std::numeric_limits<int32_t>::min()) {
      return Status(StatusCode::kInvalidArgument, "the text has too many tokens");
    }
    capacity = -n;
  }
}

Status Vocab::AppendTokens(std::string_view span, std::vector<Token>* tokens) const {
  try {
    if (cut_long_runs_) {
      for (const std::string_view piece : CutLongRuns(span)) LS_RETURN_IF_ERROR(Tokenize(piece, tokens));
      return Status::Ok();
    }
    return add_space_prefix_ ? Tokenize(" " + std::string(span), tokens) : Tokenize(span, tokens);
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kResourceExhausted, "not enough memory to tokenize the text");
  } catch (const std::exception& e) {
    return Status(StatusCode::kInternal, std::string("the text cannot be tokenized: ") + e.what());
  }
}

}  // namespace loopserve
