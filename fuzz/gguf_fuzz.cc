// Fuzz target for everything that reads a model file before its weights are used: GgufFile, Tokenizer, chat templates.
// Any input must give an error or a usable object; never a crash, a hang or unbounded memory. An input that begins with
// "{" is a chat template by itself, because changes to a whole file seldom leave it readable up to its template.
//
// With libFuzzer (clang; on Debian 12: packages clang and libclang-rt-14-dev), with ggml and libllama as they are:
//   cmake -G Ninja -B build/fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++
//   -DCMAKE_BUILD_TYPE=RelWithDebInfo
//     -DLOOPSERVE_FUZZ=ON -DLOOPSERVE_SANITIZE=address,undefined -DLOOPSERVE_LLAMA_CPP="$(tools/setup llama-cpp)"
//   ninja -C build/fuzz gguf_fuzz gguf_fuzz_regression
//   build/fuzz/gguf_fuzz_regression --write-corpus corpus
//   ASAN_OPTIONS=detect_container_overflow=0 build/fuzz/gguf_fuzz -dict=fuzz/gguf.dict -max_len=65536 -timeout=30
//   corpus
// (containers that cross into libraries without instrumentation would be reported without that option).
// Without clang, gguf_fuzz_regression (fuzz_driver.cc) runs this target over mutated seeds; ctest runs it briefly.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "ggml.h"
#include "src/gguf/gguf_file.h"
#include "src/tokenizer/chat_template.h"
#include "src/tokenizer/tokenizer.h"
#include "tests/support/raw_gguf.h"

namespace loopserve {
namespace {

/// Keeps reads from being optimised away.
volatile uint64_t sink;

void ReadEverything(const GgufFile& file) {
  uint64_t sum = file.Architecture().size() + file.file_bytes();
  for (const ggml_tensor* tensor : file.tensors()) {
    const auto* bytes = static_cast<const uint8_t*>(tensor->data);
    const size_t n = ggml_nbytes(tensor);
    sum += bytes[0] + bytes[n / 2] + bytes[n - 1];
    LS_CHECK(file.FindTensor(tensor->name) == tensor);
  }
  for (const char* key :
       {"general.alignment", "llama.context_length", "llama.attention.head_count", "llama.rope.freq_base",
        "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.add_bos_token"}) {
    sum += file.FindUint(key).ok() + file.FindFloat(key).ok() + file.FindBool(key).ok() + file.FindString(key).ok() +
           file.FindUintOrArray(key, 3).ok() + file.FindBoolArray(key).ok() + file.FindIntArray(key).ok() +
           file.FindFloatArray(key).ok() + file.FindStringArray(key).ok() + file.RequireUint(key, 1, 9).ok() +
           file.RequireFloat(key).ok();
  }
  sink = sum;
}

void UseTokenizer(const Tokenizer& tokenizer, std::string_view some_bytes) {
  for (const std::string_view text : {std::string_view(" The world\n\n<|im_end|> is 42 "), some_bytes}) {
    for (const bool special : {false, true}) {
      const auto tokens = tokenizer.Encode(text, special, special);
      if (!tokens.ok()) continue;
      for (const Token token : *tokens) LS_CHECK(token >= 0 && token < tokenizer.n_vocab());
      sink = tokenizer.Decode(*tokens, special).size();
    }
  }
  const ChatMessage messages[] = {{"system", "Be brief."}, {"user", "<|im_end|>" + std::string(some_bytes)}};
  const auto rendered = tokenizer.RenderChat(messages, true);
  if (rendered.ok()) sink = tokenizer.RenderChat({messages, 1}, true, *rendered).ok();
}

void RenderTemplate(const std::string& source) {
  auto chat_template = ChatTemplate::Parse(source);
  if (!chat_template.ok()) return;
  const ChatMessage messages[] = {{"system", "Be brief."}, {"user", "Hello <think>world</think> "}, {"assistant", ""}};
  const auto rendered = (*chat_template)->Render(messages, true, "<s>", "</s>");
  if (rendered.ok()) LS_CHECK(rendered->text.size() == rendered->from_template.size());
}

}  // namespace
}  // namespace loopserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (!bytes.empty() && bytes[0] == '{') {
    loopserve::RenderTemplate(std::string(bytes));
    return 0;
  }
  const loopserve::MemoryFile memory(bytes);
  auto file = loopserve::GgufFile::Open(memory.path());
  if (!file.ok()) {
    LS_CHECK(!file.status().message().empty());
    return 0;
  }
  loopserve::ReadEverything(**file);
  auto tokenizer = loopserve::Tokenizer::Load(**file);
  if (tokenizer.ok()) {
    loopserve::UseTokenizer(**tokenizer, bytes.substr(size / 2, 64));
  } else {
    LS_CHECK(!tokenizer.status().message().empty());
  }
  return 0;
}
