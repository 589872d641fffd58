// Fuzz target for everything that reads a stored dialogue: header, table, regions, queries, codes, rows. Any input must
// give an error or a dialogue that goes on; never a crash or unbounded memory.
//
// Checksums would keep every change from getting further than them. So an input is what a file says behind its header:
// byte 0 chooses a region of a good file, bytes 1 to 8 change its numbers, the rest replaces the region's first bytes;
// checksums are made to fit. An input that begins like a file ("LSSNAP") is one.
//
// With libFuzzer as gguf_fuzz.cc says; with a plain main() (SNAPSHOT_FUZZ_MAIN) it runs over made-up inputs as a test.
#include <fcntl.h>
#include <unistd.h>

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
#include <string_view>
#include <vector>

#include "loopserve/session_store.h"
#include "src/base/check.h"
#include "src/base/temp_dir.h"
#include "src/kvcache/snapshot_format.h"
#include "tests/support/raw_gguf.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

/// One engine and one good file for all inputs.
struct World {
  TempDir dir;
  std::shared_ptr<Engine> engine;
  std::string good;  ///< its only header is in slot 1
  SnapshotHeader header;
  std::vector<Region> regions;

  World() {
    TinyGgufOptions tiny = TinyModel(TinyFamily::kGemma3);
    tiny.context_tokens = 1024;
    const std::string model = (dir.path() / "m.gguf").string();
    LS_CHECK(WriteTinyGguf(tiny, model).ok());
    EngineOptions options;
    options.model_path = model;
    options.threads = 1;
    options.kv_budget_bytes = size_t{64} << 20;
    auto opened = Engine::Open(options);
    LS_CHECK(opened.ok());
    engine = *opened;
    Session session =
        engine->NewSession(*Policy::Parse("loopserve:alpha=0.8,min_keys=0,budget=100,decode_min_keys=0,queries=3"));
    std::vector<Token> tokens(420);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<Token>(i * 31 % 250);
    LS_CHECK(session.Sync(tokens).ok());
    const std::string path = (dir.path() / "good").string();
    LS_CHECK(SaveSession(session, path, "metadata").ok());
    std::ifstream file(path, std::ios::binary);
    good.assign(std::istreambuf_iterator<char>(file), {});
    const auto bytes = std::as_bytes(std::span(good));
    header = *DecodeSlots(bytes.first(kSlotsBytes));
    regions = *DecodeTable(header, bytes.subspan(header.table_offset, header.n_regions * kRegionEntryBytes));
  }

  void Try(std::string_view bytes) const {
    const std::string path = (dir.path() / "input").string();
    {
      std::ofstream file(path, std::ios::binary | std::ios::trunc);
      file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }
    (void)ReadSessionText(path);
    auto restored = RestoreSession(*engine, path);
    if (!restored.ok()) {
      LS_CHECK(!restored.status().message().empty());
      return;
    }
    Session& session = restored->session;
    std::vector<Token> tokens(session.tokens().begin(), session.tokens().end());
    tokens.push_back(1);
    if (!session.Sync(tokens).ok()) return;
    SamplingParams params;
    params.max_tokens = 2;
    params.ignore_end_of_text = true;
    (void)session.Generate(params);
  }

  /// The good file with a change of one region, under new checksums.
  void TryChanged(std::span<const uint8_t> input) const {
    std::string bytes = good;
    std::vector<Region> changed = regions;
    SnapshotHeader new_header = header;
    Region& region = changed[input[0] % changed.size()];
    const auto small = [&](size_t i) {
      return static_cast<uint64_t>(static_cast<int64_t>(static_cast<int8_t>(input[i])));
    };
    region.first += small(1);
    region.count += small(2);
    region.bytes += small(3) * (input[4] % 3);
    region.offset += small(5);
    region.kind = static_cast<RegionKind>(static_cast<uint32_t>(region.kind) + (input[6] % 8 == 7 ? 1 : 0));
    new_header.n_tokens += small(7);
    new_header.n_regions -= input[8] % 4 == 3 ? 1 : 0;
    if (region.offset <= bytes.size() && region.bytes <= bytes.size() - region.offset) {
      const size_t n = std::min<size_t>(input.size() - 9, region.bytes);
      if (n > 0) std::memcpy(bytes.data() + region.offset, input.data() + 9, n);
      region.hash = HashOf(std::as_bytes(std::span(bytes)).subspan(region.offset, region.bytes));
    }
    changed.resize(new_header.n_regions);
    const std::vector<std::byte> table = EncodeTable(changed);
    std::memcpy(bytes.data() + header.table_offset, table.data(), table.size());
    new_header.table_hash = HashOf(table);
    const auto slot = EncodeSlot(new_header);
    std::memcpy(bytes.data() + new_header.generation % 2 * kSlotBytes, slot.data(), slot.size());
    Try(bytes);
  }
};

}  // namespace
}  // namespace loopserve

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const loopserve::World world;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (bytes.starts_with("LSSNAP") || size < 9) {
    world.Try(bytes);
  } else {
    world.TryChanged({data, size});
  }
  return 0;
}

#ifdef SNAPSHOT_FUZZ_MAIN
int main(int argc, char** argv) {
  const uint64_t iterations = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000;
  std::mt19937_64 random(argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1);
  for (uint64_t i = 0; i < iterations; ++i) {
    // Half of them leave the table's numbers alone, so that the regions' own bytes are reached.
    std::vector<uint8_t> input(9 + random() % 400);
    for (uint8_t& byte : input) byte = random() % 3 == 0 ? 0 : static_cast<uint8_t>(random());
    if (i % 2 == 0) std::fill(input.begin() + 1, input.begin() + 9, uint8_t{0});
    if (i % 4 == 3) input.resize(9);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%llu made-up inputs: no crash\n", static_cast<unsigned long long>(iterations));
  return 0;
}
#endif
