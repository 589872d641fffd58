#include "src/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <thread>

#include "llama.h"
#include "src/tokenizer/vocab_metadata.h"
#include "tests/support/raw_gguf.h"
#include "tests/support/tiny_vocab.h"

namespace loopserve {
namespace {

using testing::HasSubstr;

enum class Kind { kBpe, kTekken, kSpm, kSpmWithSpace };

/// A file that holds nothing but a tokenizer; `change` may damage it.
class VocabFile {
 public:
  explicit VocabFile(Kind kind, const std::function<void(gguf_context*)>& change = {}) : file_("") {
    const GgufContextPtr gguf(gguf_init_empty());
    gguf_set_val_str(gguf.get(), "general.architecture", "llama");
    switch (kind) {
      case Kind::kBpe:
        WriteTinyBpeVocab(gguf.get(), "llama-bpe", /*add_bos=*/true);
        break;
      case Kind::kTekken:
        WriteTinyBpeVocab(gguf.get(), "tekken", /*add_bos=*/false);
        break;
      case Kind::kSpm:
      case Kind::kSpmWithSpace:
        WriteTinySpmVocab(gguf.get(), kind == Kind::kSpmWithSpace);
    }
    if (change) change(gguf.get());
    LS_CHECK(gguf_write_to_file(gguf.get(), file_.path().c_str(), /*only_meta=*/true));
  }
  std::string path() const { return file_.path(); }

 private:
  MemoryFile file_;
};

Result<std::unique_ptr<Tokenizer>> Load(const VocabFile& file) {
  auto gguf = GgufFile::Open(file.path());
  if (!gguf.ok()) return gguf.status();
  return Tokenizer::Load(**gguf);
}

std::unique_ptr<Tokenizer> MustLoad(Kind kind, const std::function<void(gguf_context*)>& change = {}) {
  auto tokenizer = Load(VocabFile(kind, change));
  if (!tokenizer.ok()) {
    ADD_FAILURE() << tokenizer.status().message();
    return nullptr;
  }
  return std::move(tokenizer).value();
}

class Libllama {
 public:
  explicit Libllama(const VocabFile& file) : model_(nullptr, llama_model_free) {
    llama_model_params params = llama_model_default_params();
    params.vocab_only = true;
    model_.reset(llama_model_load_from_file(file.path().c_str(), params));
  }
  std::vector<Token> Encode(const std::string& text, bool add_special, bool parse_special) const {
    std::vector<Token> tokens(text.size() * 4 + 8);
    tokens.resize(static_cast<size_t>(llama_tokenize(llama_model_get_vocab(model_.get()), text.data(),
                                                     static_cast<int32_t>(text.size()), tokens.data(),
                                                     static_cast<int32_t>(tokens.size()), add_special, parse_special)));
    return tokens;
  }

 private:
  std::unique_ptr<llama_model, decltype(&llama_model_free)> model_;
};

const std::vector<std::string>& Texts() {
  static const std::vector<std::string> texts = {
      "",
      " ",
      "Hello world",
      " the  world is   not the same, and you're in it: 12 of 3456!\n\n\nOn\tit goes ...",
      "<|im_start|>user\nHello<|im_end|>\n<think>hm</think> <|endoftext|>",
      "<s>a</s> b <unk><start_of_turn>model\n\n<end_of_turn>",
      "<|im_start|><|im_start|> <|im_<|im_end|>",
      "\n\n\n\n<think><think>",
      "\xC3\xA9t\xC3\xA9 \xE2\x82\xAC 10 \xF0\x9F\x98\x80\xF0\x9F\x98\x80 \xE4\xB8\xAD\xE6\x96\x87",
      std::string("a\0b\0", 4),
      std::string(3000, 'a') + std::string(3000, ' ') + "b",
      "\xE2\x96\x81 the\xE2\x96\x81",
  };
  return texts;
}

TEST(Tokenizer, EncodesAsLibllamaDoes) {
  for (const Kind kind : {Kind::kBpe, Kind::kSpm, Kind::kSpmWithSpace}) {
    const VocabFile file(kind);
    auto tokenizer = Load(file);  // silences libllama too
    ASSERT_TRUE(tokenizer.ok()) << tokenizer.status().message();
    const Libllama libllama(file);
    for (const std::string& text : Texts()) {
      for (const bool add_special : {false, true}) {
        for (const bool parse_special : {false, true}) {
          const auto tokens = (*tokenizer)->Encode(text, add_special, parse_special);
          ASSERT_TRUE(tokens.ok());
          EXPECT_EQ(*tokens, libllama.Encode(text, add_special, parse_special))
              << static_cast<int>(kind) << " " << add_special << parse_special << " '" << text << "'";
        }
      }
    }
  }
}

TEST(Tokenizer, DecodingGivesTheTextBack) {
  for (const Kind kind : {Kind::kBpe, Kind::kTekken, Kind::kSpm}) {
    const auto tokenizer = MustLoad(kind);
    ASSERT_NE(tokenizer, nullptr);
    for (const std::string& text : Texts()) {
      if (kind == Kind::kSpm && text.find("\xE2\x96\x81") != std::string::npos) continue;  // SPM's sign for a space
      EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(text, false, false), true), text);
      EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(text, false, true), true), text);
    }
  }
  const auto with_space = MustLoad(Kind::kSpmWithSpace);
  EXPECT_EQ(with_space->Decode(*with_space->Encode("Hello world", true, false)), " Hello world");
}

TEST(Tokenizer, BadUtf8IsReplaced) {
  for (const Kind kind : {Kind::kBpe, Kind::kTekken, Kind::kSpm}) {
    const auto tokenizer = MustLoad(kind);
    ASSERT_NE(tokenizer, nullptr);
    const std::string replacement = "\xEF\xBF\xBD";
    const std::pair<std::string, std::string> cases[] = {
        {"a\xFFz", "a" + replacement + "z"},
        {"\xC3", replacement},
        {"\xE2\x82", replacement + replacement},
        {"\xED\xA0\x80", replacement + replacement + replacement},                    // a surrogate
        {"\xF7\xBF\xBF\xBF", replacement + replacement + replacement + replacement},  // beyond Unicode
        {"\xC0\xAF", replacement + replacement},                                      // overlong
    };
    for (const auto& [bad, good] : cases) {
      EXPECT_EQ(tokenizer->Decode(*tokenizer->Encode(bad, false, true)), good);
    }
    std::string all_bytes;
    for (int i = 0; i < 65536; ++i) all_bytes += static_cast<char>(i * 2654435761u >> 24);
    EXPECT_TRUE(tokenizer->Encode(all_bytes, true, true).ok());
  }
}

TEST(Tokenizer, ControlTokensAreShownOnlyOnRequest) {
  const auto tokenizer = MustLoad(Kind::kBpe);
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<Token> tokens = *tokenizer->Encode("<|im_start|>a<|im_end|><think>", true, true);
  ASSERT_THAT(tokens, testing::ElementsAre(0, 1, testing::Gt(4), 2, 3));
  EXPECT_EQ(tokenizer->Decode(tokens), "a<think>");
  EXPECT_EQ(tokenizer->Decode(tokens, true), "<|endoftext|><|im_start|>a<|im_end|><think>");
  EXPECT_TRUE(tokenizer->IsEndOfText(2));
  EXPECT_TRUE(tokenizer->IsEndOfText(0));
  EXPECT_FALSE(tokenizer->IsEndOfText(1));
  for (const Token outside :
       {-1, tokenizer->n_vocab(), std::numeric_limits<Token>::max(), std::numeric_limits<Token>::min()}) {
    EXPECT_EQ(tokenizer->Piece(outside, true), "");
    EXPECT_FALSE(tokenizer->IsEndOfText(outside));
  }
  EXPECT_GT(tokenizer->Encode("<|im_end|>", false, false)->size(), 5u);
}

TEST(Tokenizer, LongRunsDoNotExhaustTheStack) {
  const auto tokenizer = MustLoad(Kind::kTekken);
  ASSERT_NE(tokenizer, nullptr);
  for (const char* unit : {"a", "A", "\xE4\xB8\xAD", "!", " ", "\n", "\xE3\x80\x80", "7", "'s"}) {
    std::string text;
    for (int i = 0; i < 200000; ++i) text += unit;
    const auto tokens = tokenizer->Encode(text, false, false);
    ASSERT_TRUE(tokens.ok()) << tokens.status().message();
    EXPECT_EQ(tokenizer->Decode(*tokens), text);
  }
}

TEST(Tokenizer, ThreadsGetTheSameTokens) {
  const auto tokenizer = MustLoad(Kind::kTekken, [](gguf_context* gguf) {
    gguf_set_val_str(gguf, "tokenizer.chat_template",
                     "{{ strftime_now('%Y') }}{% for m in messages %}{{ m.content }}{% endfor %}");
  });
  ASSERT_NE(tokenizer, nullptr);
  const std::vector<Token> expected = *tokenizer->Encode(Texts()[3], true, true);
  const ChatMessage message{"user", Texts()[3]};
  const std::vector<Token> rendered = *tokenizer->RenderChat({&message, 1}, true);
  std::vector<std::thread> threads;
  std::vector<int> n_same(4);
  for (int& same : n_same) {
    threads.emplace_back([&] {
      for (int i = 0; i < 50; ++i) {
        same += *tokenizer->Encode(Texts()[3], true, true) == expected &&
                *tokenizer->RenderChat({&message, 1}, true) == rendered;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(n_same, testing::Each(50));
}

void SetTexts(gguf_context* gguf, const char* key, const std::vector<std::string>& texts) {
  std::vector<const char*> pointers;
  for (const std::string& text : texts) pointers.push_back(text.c_str());
  gguf_set_arr_str(gguf, key, pointers.data(), pointers.size());
}

struct MetadataCase {
  const char* name;
  Kind kind;
  std::function<void(gguf_context*)> change;
  const char* words;
  StatusCode code = StatusCode::kCorruptData;
};

const char kModel[] = "tokenizer.ggml.model";
const char kTokens[] = "tokenizer.ggml.tokens";
const char kTypes[] = "tokenizer.ggml.token_type";
const char kScores[] = "tokenizer.ggml.scores";
const char kMerges[] = "tokenizer.ggml.merges";
const char kBos[] = "tokenizer.ggml.bos_token_id";

std::vector<MetadataCase> MissingAndWrongKeys() {
  const auto remove = [](const char* key) { return [key](gguf_context* g) { gguf_remove_key(g, key); }; };
  const auto text = [](const char* key) { return [key](gguf_context* g) { gguf_set_val_str(g, key, "x"); }; };
  return {
      {"no model", Kind::kBpe, remove(kModel), "tokenizer.ggml.model is missing"},
      {"model is a number", Kind::kBpe, [](gguf_context* g) { gguf_set_val_u32(g, kModel, 1); }, "must be a string"},
      {"unknown model", Kind::kBpe, text(kModel), "supported are", StatusCode::kUnsupported},
      {"another model of libllama's", Kind::kBpe, [](gguf_context* g) { gguf_set_val_str(g, kModel, "t5"); },
       "supported are", StatusCode::kUnsupported},
      {"model none", Kind::kBpe, [](gguf_context* g) { gguf_set_val_str(g, kModel, "none"); }, "supported are",
       StatusCode::kUnsupported},
      {"unknown pre", Kind::kBpe, [](gguf_context* g) { gguf_set_val_str(g, "tokenizer.ggml.pre", "nonsense"); },
       "nonsense", StatusCode::kUnsupported},
      {"pre that asserts", Kind::kBpe, [](gguf_context* g) { gguf_set_val_str(g, "tokenizer.ggml.pre", "whitespace"); },
       "whitespace", StatusCode::kUnsupported},
      {"pre is a number", Kind::kBpe, [](gguf_context* g) { gguf_set_val_u32(g, "tokenizer.ggml.pre", 1); },
       "must be a string"},
      {"no tokens", Kind::kBpe, remove(kTokens), "tokens is missing"},
      {"tokens are text", Kind::kBpe, text(kTokens), "must be an array of strings"},
      {"empty tokens", Kind::kBpe, [](gguf_context* g) { SetTexts(g, kTokens, {}); }, "is empty"},
      {"no merges", Kind::kBpe, remove(kMerges), "merges is missing"},
      {"merges are text", Kind::kBpe, text(kMerges), "must be an array of strings"},
      {"types are text", Kind::kBpe, text(kTypes), "must be an array of integers"},
      {"scores are text", Kind::kSpm, text(kScores), "must be an array of f32"},
      {"bos is text", Kind::kBpe, text(kBos), "must be an integer"},
      {"bos outside the vocabulary", Kind::kBpe, [](gguf_context* g) { gguf_set_val_u32(g, kBos, 1u << 30); },
       "but there are"},
      {"bos is negative", Kind::kBpe, [](gguf_context* g) { gguf_set_val_i32(g, kBos, -5); }, "must not be negative"},
      {"add_bos is a number", Kind::kBpe,
       [](gguf_context* g) { gguf_set_val_u32(g, "tokenizer.ggml.add_bos_token", 1); }, "must be a bool"},
      {"space prefix is a number", Kind::kSpm,
       [](gguf_context* g) { gguf_set_val_u32(g, "tokenizer.ggml.add_space_prefix", 1); }, "must be a bool"},
      {"template is a number", Kind::kBpe, [](gguf_context* g) { gguf_set_val_u32(g, "tokenizer.chat_template", 1); },
       "must be a string"},
  };
}

std::vector<MetadataCase> BadContents() {
  const auto types = [](int32_t type, size_t n) {
    return [type, n](gguf_context* g) {
      const std::vector<int32_t> values(n == 0 ? gguf_get_arr_n(g, gguf_find_key(g, kTokens)) : n, type);
      gguf_set_arr_data(g, kTypes, GGUF_TYPE_INT32, values.data(), values.size());
    };
  };
  const auto scores = [](float score, size_t n) {
    return [score, n](gguf_context* g) {
      const std::vector<float> values(n == 0 ? gguf_get_arr_n(g, gguf_find_key(g, kTokens)) : n, score);
      gguf_set_arr_data(g, kScores, GGUF_TYPE_FLOAT32, values.data(), values.size());
    };
  };
  const auto tokens_only = [](const std::vector<std::string>& texts) {
    return [texts](gguf_context* g) {
      gguf_remove_key(g, kTypes);
      gguf_remove_key(g, kScores);
      gguf_remove_key(g, kBos);
      gguf_remove_key(g, "tokenizer.ggml.eos_token_id");
      gguf_remove_key(g, "tokenizer.ggml.unknown_token_id");
      SetTexts(g, kTokens, texts);
    };
  };
  std::string long_foreign;
  for (int i = 0; i < 20000; ++i) long_foreign += "\xE4\xB8\xAD";
  return {
      {"the same token twice", Kind::kBpe, tokens_only({"a", "b", "a"}), "same text twice: token 2"},
      {"a name that an empty token gets", Kind::kBpe, tokens_only({"[EMPTY_1]", ""}), "same text twice"},
      {"an endless token", Kind::kBpe, tokens_only({std::string(70000, 'a')}), "token of 70000 bytes"},
      {"a token that decodes to gigabytes", Kind::kBpe, tokens_only({"a", long_foreign}), "byte alphabet"},
      {"too few types", Kind::kBpe, types(1, 5), "5 entries"},
      {"unknown type", Kind::kBpe, types(99, 0), "unknown type 99"},
      {"words that claim to be bytes", Kind::kBpe, types(6, 0), "not written as one"},
      {"too few scores", Kind::kSpm, scores(0, 5), "5 entries"},
      {"endless scores", Kind::kSpm, scores(std::numeric_limits<float>::infinity(), 0), "not finite"},
      {"SPM without bytes", Kind::kSpm, tokens_only({"a", "b"}), "no token for the byte <0x00>"},
  };
}

TEST(Tokenizer, BadMetadataIsRefusedWithAReason) {
  for (const auto& cases : {MissingAndWrongKeys(), BadContents()}) {
    for (const MetadataCase& bad : cases) {
      SCOPED_TRACE(bad.name);
      auto tokenizer = Load(VocabFile(bad.kind, bad.change));
      ASSERT_FALSE(tokenizer.ok());
      EXPECT_EQ(tokenizer.status().code(), bad.code) << tokenizer.status().message();
      EXPECT_THAT(tokenizer.status().message(), HasSubstr(bad.words));
    }
  }
}

TEST(Tokenizer, ToleratesWhatIsUnusualButHarmless) {
  const std::pair<const char*, std::function<void(gguf_context*)>> cases[] = {
      {"no id for begin-of-text", [](gguf_context* g) { gguf_set_val_u32(g, kBos, 0xffffffff); }},
      {"no types", [](gguf_context* g) { gguf_remove_key(g, kTypes); }},
      {"odd merges",
       [](gguf_context* g) {
         SetTexts(g, kMerges, {"", " ", "nospace", "a b c", "  "});
       }},
      {"no pre", [](gguf_context* g) { gguf_remove_key(g, "tokenizer.ggml.pre"); }},
      {"one token", [](gguf_context* g) {
         gguf_remove_key(g, kTypes);
         gguf_remove_key(g, kBos);
         gguf_remove_key(g, "tokenizer.ggml.eos_token_id");
         SetTexts(g, kTokens, {"a"});
       }}};
  for (const auto& [name, change] : cases) {
    SCOPED_TRACE(name);
    const auto tokenizer = MustLoad(Kind::kBpe, change);
    ASSERT_NE(tokenizer, nullptr);
    for (const std::string& text : Texts()) EXPECT_TRUE(tokenizer->Encode(text, true, true).ok());
  }
}

}  // namespace
}  // namespace loopserve
