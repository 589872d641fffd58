// Runs a fuzz target of the server without libFuzzer: over its seeds and mutations of them, or over given files.
// usage: server_fuzz_regression [--iterations N] [--seed S] | --write-corpus DIR | FILE...
// The same numbers give the same inputs. A crash leaves its input in loopserve_fuzz_input.bin in the temporary folder.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace loopserve::server {

/// Inputs to begin with; each target has its own.
std::vector<std::string> FuzzSeeds();

namespace {

constexpr std::string_view kParts[] = {"\"",
                                       "\\u0000",
                                       "\\",
                                       "{",
                                       "}",
                                       "[",
                                       "]",
                                       ",",
                                       ":",
                                       "null",
                                       "true",
                                       "-1",
                                       "1e999",
                                       "NaN",
                                       "9223372036854775808",
                                       "0.5",
                                       "\"\"",
                                       "\r\n",
                                       "\r\n\r\n",
                                       "%00",
                                       "\xff",
                                       "\xe2\x82",
                                       "chunked",
                                       "Content-Length: 7\r\n",
                                       "stream",
                                       "\"n\": 16",
                                       "\"enum\"",
                                       "\"$ref\": \"#\"",
                                       "(",
                                       ")*",
                                       "{2,}",
                                       "|"};

std::string Mutated(std::string bytes, std::mt19937_64& random) {
  const auto below = [&](size_t limit) { return limit == 0 ? size_t{0} : static_cast<size_t>(random() % limit); };
  for (size_t n = 1 + below(4); n > 0; --n) {
    const size_t at = below(bytes.size() + 1), length = std::min(bytes.size() - at, 1 + below(16));
    switch (below(6)) {
      case 0:
        if (at < bytes.size()) bytes[at] = static_cast<char>(random());
        break;
      case 1:
        bytes.erase(at, length);
        break;
      case 2:
        bytes.insert(below(bytes.size() + 1), bytes.substr(at, length));
        break;
      case 3:
        bytes.resize(at);
        break;
      default:
        bytes.replace(at, below(2) == 0 ? length : 0, kParts[below(std::size(kParts))]);
    }
  }
  return bytes;
}

void Run(const std::string& bytes) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
}

int Main(int argc, char** argv) {
  uint64_t iterations = 2000, seed = 1;
  std::vector<std::string> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const char* value = i + 1 < argc ? argv[i + 1] : "";
    if (!argument.starts_with("--")) {
      files.push_back(argument);
      continue;
    }
    ++i;
    if (argument == "--iterations") {
      iterations = std::strtoull(value, nullptr, 10);
    } else if (argument == "--seed") {
      seed = std::strtoull(value, nullptr, 10);
    } else if (argument == "--write-corpus" && *value != '\0') {
      std::filesystem::create_directories(value);
      size_t n = 0;
      for (const std::string& bytes : FuzzSeeds()) {
        std::ofstream(std::filesystem::path(value) / ("seed" + std::to_string(n++)), std::ios::binary) << bytes;
      }
      return 0;
    } else {
      std::fprintf(stderr, "unknown option %s\n", argument.c_str());
      return 2;
    }
  }
  for (const std::string& file : files) {
    std::ifstream in(file, std::ios::binary);
    Run(std::string(std::istreambuf_iterator<char>(in), {}));
  }
  if (!files.empty()) return 0;
  const std::vector<std::string> seeds = FuzzSeeds();
  for (const std::string& bytes : seeds) Run(bytes);
  const auto path = std::filesystem::temp_directory_path() / "loopserve_fuzz_input.bin";
  std::mt19937_64 random(seed);
  for (uint64_t i = 0; i < iterations; ++i) {
    const std::string input = Mutated(seeds[random() % seeds.size()], random);
    std::ofstream(path, std::ios::binary) << input;
    Run(input);
  }
  std::filesystem::remove(path);
  std::printf("%zu seeds and %llu mutated inputs: no crash\n", seeds.size(),
              static_cast<unsigned long long>(iterations));
  return 0;
}

}  // namespace
}  // namespace loopserve::server

int main(int argc, char** argv) { return loopserve::server::Main(argc, argv); }
