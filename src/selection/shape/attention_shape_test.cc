#include "src/selection/shape/attention_shape.h"

#include <gtest/gtest.h>

namespace loopserve {
namespace {

PrefillSettings Settings(int64_t sinks, int64_t local, int64_t last_rows, int64_t reference_keys) {
  PrefillSettings settings;
  settings.method = PrefillSettings::Method::kShape;
  settings.sinks = sinks;
  settings.local = local;
  settings.last_rows = last_rows;
  settings.reference_keys = reference_keys;
  return settings;
}

bool Attends(const AttentionShape& shape, int64_t position, int64_t key) {
  return key < shape.SinkEnd(position) || (key >= shape.LocalBegin(position) && key <= position);
}

// The published kernel: a window of n_local keys, the row's own among them, and of the first n_init keys those that the
// window does not reach; if the keys are no more than the window, the window alone. Rows of the tail attend everything.
bool AttendsAsPublished(int64_t n_init, int64_t n_local, int64_t n_last, int64_t n_keys, int64_t position,
                        int64_t key) {
  if (key > position) return false;
  if (position >= n_keys - n_last) return true;
  const int64_t distance = position - key;
  if (distance < n_local) return true;
  return n_keys > n_local && key < n_init && distance >= n_local;
}

TEST(AttentionShapeTest, IsThePublishedOnePositionByPosition) {
  for (const int64_t n_keys : {1, 2, 5, 11, 12, 13, 40}) {
    for (const int64_t sinks : {0, 1, 4, 50}) {
      for (const int64_t local : {1, 3, 12, 60}) {
        for (const int64_t last : {0, 1, 6, 60}) {
          for (const int64_t n_rows : {n_keys, (n_keys + 1) / 2}) {
            const AttentionShape shape = MakeAttentionShape(Settings(sinks, local, last, 0), n_rows, n_keys);
            bool leaves_out = false;
            for (int64_t position = n_keys - n_rows; position < n_keys; ++position) {
              int64_t pairs = 0;
              for (int64_t key = 0; key < n_keys; ++key) {
                const bool expected = AttendsAsPublished(sinks, local, std::min(last, n_rows), n_keys, position, key);
                EXPECT_EQ(Attends(shape, position, key), expected) << position << " " << key;
                pairs += expected;
              }
              EXPECT_EQ(shape.Pairs(position), pairs);
              leaves_out = leaves_out || pairs < position + 1;
            }
            EXPECT_EQ(shape.LeavesSomethingOut(), leaves_out)
                << n_keys << " " << sinks << " " << local << " " << last << " " << n_rows;
          }
        }
      }
    }
  }
}

TEST(AttentionShapeTest, SizesShrinkWithTheContext) {
  const PrefillSettings settings = Settings(128, 3968, 0, 16384);
  const struct {
    int64_t n_keys, sinks, local;
  } kCases[] = {{1, 1, 1},          {128, 1, 31},       {1024, 8, 248},     {4096, 32, 992},     {4097, 33, 993},
                {16383, 128, 3968}, {16384, 128, 3968}, {16385, 128, 3968}, {1000000, 128, 3968}};
  for (const auto& c : kCases) {
    const AttentionShape shape = MakeAttentionShape(settings, c.n_keys, c.n_keys);
    EXPECT_EQ(shape.sinks, c.sinks) << c.n_keys;
    EXPECT_EQ(shape.local, c.local) << c.n_keys;
  }
  EXPECT_EQ(MakeAttentionShape(Settings(0, 1, 0, 1 << 20), 5, 5).sinks, 0) << "none stay none";
  EXPECT_EQ(MakeAttentionShape(Settings(4, 8, 0, 0), 5, 5).local, 8) << "never scaled";
  const int64_t most = int64_t{1} << 31;
  EXPECT_EQ(MakeAttentionShape(Settings(most, most, most, most), 5, 100).sinks, 100) << "no overflow";
}

TEST(AttentionShapeTest, DensityIsThatOfTheReferenceAtEveryLength) {
  const auto density = [](int64_t n_keys) {
    const AttentionShape shape = MakeAttentionShape(Settings(128, 3968, 0, 16384), n_keys, n_keys);
    double pairs = 0;
    for (int64_t position = 0; position < n_keys; ++position) pairs += static_cast<double>(shape.Pairs(position));
    return pairs / (0.5 * static_cast<double>(n_keys) * static_cast<double>(n_keys + 1));
  };
  // A quarter of the keys, fewer for the rows that have fewer: 1 - (1 - 1/4)^2.
  for (const int64_t n_keys : {1000, 2048, 5000, 16384}) EXPECT_NEAR(density(n_keys), 0.4375, 0.003) << n_keys;
  EXPECT_LT(density(32768), 0.25);
}

}  // namespace
}  // namespace loopserve
