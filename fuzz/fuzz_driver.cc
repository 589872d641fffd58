// Runs a fuzz target without libFuzzer: over its seeds, over mutations of them, or over files that once made trouble.
// usage: gguf_fuzz_regression [--iterations N] [--seed S] | --write-corpus DIR | FILE...
// The same numbers give the same inputs. A crash leaves its input in loopserve_fuzz_input.bin in the temporary folder.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gguf.h"
#include "src/base/check.h"
#include "tests/support/raw_gguf.h"
#include "tests/support/tiny_gguf.h"
#include "tests/support/tiny_vocab.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace loopserve {
namespace {

constexpr char kTemplate[] =
    "{%- macro show(m) -%}<|im_start|>{{ m.role }}\n{{ m['content'] | trim }}<|im_end|>\n{%- endmacro -%}"
    "{%- set ns = namespace(n=0) -%}{%- for m in messages -%}{%- if m.role not in ['system', 'user'] -%}"
    "{{ raise_exception('No ' ~ m.role) }}{%- endif -%}{%- set ns.n = ns.n + 1 -%}{{ show(m) }}{%- endfor -%}"
    "{% if add_generation_prompt %}<|im_start|>assistant {{ ns.n }}{{ range(3) | join(',') }}{% endif %}";

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

std::string TinyModelBytes(TinyFamily family) {
  TinyGgufOptions options = TinyModel(family);
  options.n_layers = 1;
  options.n_embd = options.n_ff = options.family == TinyFamily::kQwen2 ? 64 : 32;
  options.chat_template = kTemplate;
  options.weight_type = GGML_TYPE_Q4_0;
  const MemoryFile file("");
  LS_CHECK(WriteTinyGguf(options, file.path()).ok());
  return ReadFile(file.path());
}

std::string VocabBytes(bool spm, const char* pre) {
  const std::unique_ptr<gguf_context, decltype(&gguf_free)> gguf(gguf_init_empty(), gguf_free);
  gguf_set_val_str(gguf.get(), "general.architecture", "llama");
  if (spm) {
    WriteTinySpmVocab(gguf.get(), true);
  } else {
    WriteTinyBpeVocab(gguf.get(), pre, true);
  }
  gguf_set_val_str(gguf.get(), "tokenizer.chat_template", kTemplate);
  const MemoryFile file("");
  LS_CHECK(gguf_write_to_file(gguf.get(), file.path().c_str(), true));
  return ReadFile(file.path());
}

std::vector<std::string> Seeds() {
  return {kTemplate,
          VocabBytes(false, "llama-bpe"),
          VocabBytes(false, "tekken"),
          VocabBytes(true, ""),
          TinyModelBytes(TinyFamily::kLlama),
          TinyModelBytes(TinyFamily::kGemma3),
          RawGguf(0, 0).bytes(),
          RawGguf(1, 1).Uint32("general.alignment", 32).Tensor("t", {32, 2}, 0, 0).PadTo(32).Zeros(256).bytes()};
}

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string Mutate(std::string bytes) {
    for (int n = 1 + Below(4); n > 0 && !bytes.empty(); --n) MutateOnce(&bytes);
    return bytes;
  }
  size_t Below(size_t limit) { return static_cast<size_t>(random_() % limit); }

 private:
  void MutateOnce(std::string* bytes) {
    static constexpr uint64_t kInteresting[] = {0,          1,          2,          4,          8,          9,
                                                127,        255,        4096,       65535,      65536,      0x7fffffff,
                                                0x80000000, 0xffffffff, 1ull << 32, 1ull << 62, ~0ull >> 1, ~0ull};
    // Half of the changes hit the first bytes, where the counts and the shortest keys are.
    const size_t at = Below(Below(2) == 0 ? std::min<size_t>(bytes->size(), 512) : bytes->size());
    const size_t length = std::min(bytes->size() - at, 1 + Below(24));
    switch (Below(8)) {
      case 0:
        (*bytes)[at] = static_cast<char>((*bytes)[at] ^ (1 << Below(8)));
        break;
      case 1:
        (*bytes)[at] = static_cast<char>(Below(256));
        break;
      case 2:
      case 3: {
        const uint64_t value = kInteresting[Below(std::size(kInteresting))] + Below(3) - 1;
        std::memcpy(bytes->data() + at, &value, std::min<size_t>(bytes->size() - at, Below(2) == 0 ? 4 : 8));
        break;
      }
      case 4:
        bytes->resize(at);
        break;
      case 5:
        bytes->erase(at, length);
        break;
      case 6:
        bytes->insert(Below(bytes->size()), bytes->substr(at, length));
        break;
      default:
        bytes->replace(at, length, bytes->substr(Below(bytes->size()), length));
        break;
    }
  }

  std::mt19937_64 random_;
};

void Run(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

void WriteFile(const std::filesystem::path& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary) << bytes;
}

int RunMutations(uint64_t iterations, uint64_t seed) {
  const std::vector<std::string> seeds = Seeds();
  for (const std::string& bytes : seeds) Run(bytes);
  const auto path = std::filesystem::temp_directory_path() / "loopserve_fuzz_input.bin";
  Mutator mutator(seed);
  for (uint64_t i = 0; i < iterations; ++i) {
    const std::string input = mutator.Mutate(seeds[mutator.Below(seeds.size())]);
    WriteFile(path, input);
    Run(input);
  }
  std::filesystem::remove(path);
  std::printf("%zu seeds and %llu mutated inputs: no crash\n", seeds.size(),
              static_cast<unsigned long long>(iterations));
  return 0;
}

int Main(int argc, char** argv) {
  uint64_t iterations = 2000, seed = 1;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument.rfind("--", 0) != 0) {
      files.push_back(argument);
    } else if (i + 1 == argc) {
      std::fprintf(stderr, "%s needs a value\n", argv[i]);
      return 2;
    } else if (argument == "--iterations") {
      iterations = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--seed") {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--write-corpus") {
      const std::filesystem::path folder = argv[++i];
      std::filesystem::create_directories(folder);
      size_t n = 0;
      for (const std::string& bytes : Seeds()) WriteFile(folder / ("seed" + std::to_string(n++) + ".gguf"), bytes);
      return 0;
    } else {
      std::fprintf(stderr, "unknown option %s\n", argv[i]);
      return 2;
    }
  }
  for (const std::string& file : files) Run(ReadFile(file));
  return files.empty() ? RunMutations(iterations, seed) : 0;
}

}  // namespace
}  // namespace loopserve

int main(int argc, char** argv) { return loopserve::Main(argc, argv); }
