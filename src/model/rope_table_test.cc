#include "src/model/rope_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <numeric>
#include <vector>

#include "src/base/temp_dir.h"
#include "src/gguf/gguf_file.h"
#include "tests/support/tiny_gguf.h"

namespace loopserve {
namespace {

std::unique_ptr<Model> LoadTiny(const TempDir& dir, TinyFamily family) {
  const std::string path = (dir.path() / "tiny.gguf").string();
  EXPECT_TRUE(WriteTinyGguf(TinyModel(family), path).ok());
  auto file = GgufFile::Open(path);
  EXPECT_TRUE(file.ok());
  auto model = Model::Load(std::move(*file));
  EXPECT_TRUE(model.ok());
  return std::move(*model);
}

/// Rows of more than one of its chunks, sliding and global layers, by the formula of RoFormer:
/// pair i at position t turns by t * base^(-2 i / n_dims).
TEST(RopeTable, HoldsCosinesAndSinesOfEveryPosition) {
  for (const TinyFamily family : {TinyFamily::kLlama, TinyFamily::kQwen2, TinyFamily::kGemma3}) {
    const TempDir dir;
    const std::unique_ptr<Model> model = LoadTiny(dir, family);
    auto threads = ComputeThreads::Create(2);
    ASSERT_TRUE(threads.ok());
    std::vector<int32_t> positions(1500);
    std::iota(positions.begin(), positions.end(), 900);
    RopeTable table(*model);
    ASSERT_TRUE(table.Fill(positions, **threads).ok());
    const RopeParams& rope = model->params().rope;
    const int64_t n_pairs = rope.n_dims / 2;
    for (const bool is_sliding : {false, true}) {
      if (is_sliding && family != TinyFamily::kGemma3) continue;
      const double base = is_sliding ? rope.freq_base_sliding : rope.freq_base;
      for (const int64_t row : {0, 1, 1023, 1024, 1499}) {
        for (int64_t i = 0; i < n_pairs; ++i) {
          const double turn = static_cast<double>(positions[static_cast<size_t>(row)]) *
                              std::pow(base, -2.0 * static_cast<double>(i) / rope.n_dims) * rope.freq_scale;
          // ggml multiplies angles of up to 2,400 up in f32: an error of some units in the last place of the angle.
          EXPECT_NEAR(table.Row(is_sliding, row)[i], std::cos(turn), 3e-3) << row << " " << i;
          EXPECT_NEAR(table.Row(is_sliding, row)[n_pairs + i], std::sin(turn), 3e-3) << row << " " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace loopserve
