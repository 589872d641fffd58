// A small dialogue's content for snapshot tests, and what a file says back. Thread rule: one thread at a time.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "src/kvcache/kv_cache.h"
#include "src/kvcache/snapshot_reader.h"
#include "src/kvcache/snapshot_writer.h"

namespace loopserve {

/// A dialogue whose rows and text follow from a list of numbers, one a token.
class TestDialogue {
 public:
  static KvLayout Layout() {
    KvLayout layout;
    layout.n_layers = 2;
    layout.n_kv_heads = 2;
    layout.head_dim = 16;
    layout.block_tokens = 32;
    return layout;
  }

  TestDialogue() : cache_(Layout(), nullptr) {}
  explicit TestDialogue(const std::vector<int>& tokens) : TestDialogue() { Append(tokens); }

  void Append(const std::vector<int>& tokens) {
    const KvLayout layout = Layout();
    const auto n = static_cast<int64_t>(tokens.size());
    ASSERT_TRUE(cache_.ReserveTokens(n).ok());
    const int width = layout.n_kv_heads * layout.head_dim;
    std::vector<float> rows(static_cast<size_t>(width));
    for (int64_t i = 0; i < n; ++i) {
      for (int layer = 0; layer < layout.n_layers; ++layer) {
        std::mt19937 random(static_cast<unsigned>(tokens[static_cast<size_t>(i)] * 64 + layer));
        for (float& x : rows) x = static_cast<float>(random() % 1000) / 100.0f;
        cache_.StoreRows(layer, cache_.n_tokens() + i, 1, rows.data(), rows.data(), width);
      }
    }
    cache_.CommitTokens(n);
    tokens_.insert(tokens_.end(), tokens.begin(), tokens.end());
  }
  void Truncate(int64_t n) {
    cache_.Truncate(n);
    tokens_.resize(static_cast<size_t>(n));
  }

  /// Valid while this does not change.
  SnapshotContent Content() const {
    SnapshotContent content;
    content.key.model[0] = 1;
    content.engine_version = "test";
    content.cache = &cache_;
    content.regions.push_back({RegionKind::kTokens, 0, 0, {std::as_bytes(std::span(tokens_))}});
    return content;
  }
  const std::vector<int>& tokens() const { return tokens_; }
  const KvCache& cache() const { return cache_; }

 private:
  KvCache cache_;
  std::vector<int> tokens_;
};

inline std::vector<int> Numbers(int first, int n) {
  std::vector<int> numbers;
  for (int i = 0; i < n; ++i) numbers.push_back(first + i);
  return numbers;
}

/// The tokens of a stored dialogue, after its rows were found to be those of these tokens. An error otherwise.
inline Result<std::vector<int>> ReadBack(const SnapshotReader& reader) {
  LS_ASSIGN_OR_RETURN(const Region region, reader.Find(RegionKind::kTokens));
  LS_ASSIGN_OR_RETURN(const std::vector<std::byte> bytes, reader.ReadBytes(region));
  std::vector<int> tokens(bytes.size() / sizeof(int));
  std::copy_n(reinterpret_cast<const int*>(bytes.data()), tokens.size(), tokens.begin());
  if (tokens.size() != reader.header().n_tokens) return Status(StatusCode::kCorruptData, "other tokens than counted");
  const TestDialogue expected(tokens);
  KvCache cache(TestDialogue::Layout(), nullptr);
  LS_RETURN_IF_ERROR(cache.ReserveTokens(static_cast<int64_t>(tokens.size())));
  size_t n = 0;
  for (const Region& piece : reader.regions()) {
    if (piece.kind != RegionKind::kKeysAndValues) continue;
    LS_RETURN_IF_ERROR(reader.ReadInto(
        piece, cache.ReservedRowRuns(static_cast<int64_t>(piece.first), static_cast<int64_t>(piece.count))));
    n += piece.count;
  }
  cache.CommitTokens(static_cast<int64_t>(tokens.size()));
  if (n != tokens.size()) return Status(StatusCode::kCorruptData, "rows are missing");
  for (int64_t token = 0; token < cache.n_tokens(); ++token) {
    const auto a = cache.RowRuns(token, 1), b = expected.cache().RowRuns(token, 1);
    for (size_t i = 0; i < a.size(); ++i) {
      if (!std::ranges::equal(a[i], b[i])) return Status(StatusCode::kCorruptData, "other rows than the tokens'");
    }
  }
  return tokens;
}

inline Result<std::vector<int>> ReadBack(const SnapshotFolder& folder, const std::string& name) {
  LS_ASSIGN_OR_RETURN(const SnapshotReader reader,
                      SnapshotReader::Open(FileOps::System(), folder.fd.get(), name, folder.Shown(name)));
  return ReadBack(reader);
}

}  // namespace loopserve
