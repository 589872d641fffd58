#include "src/cli/attention_picture.h"

#include <gtest/gtest.h>
#include <png.h>

#include <array>

namespace loopserve {
namespace {

/// Rows 4..7 over 8 keys, unpooled: every row attends its own key, and key 2 is a chosen column, slash 1 a chosen
/// slash.
AttentionMap SmallMap() {
  AttentionMap map;
  map.first_position = 4;
  map.n_rows = 4;
  map.map_rows = 4;
  map.map_columns = 8;
  map.weight.assign(32, 0.0f);
  map.computed.assign(32, 0.0f);
  for (size_t i = 0; i < 4; ++i) {
    map.weight[i * 8 + i + 4] = 1;
    map.computed[i * 8 + 2] = map.computed[i * 8 + i + 3] = 1;
  }
  return map;
}

std::array<int, 3> At(const Picture& picture, int x, int y) {
  const size_t pixel = (static_cast<size_t>(y) * static_cast<size_t>(picture.width) + static_cast<size_t>(x)) * 3;
  return {picture.rgb[pixel], picture.rgb[pixel + 1], picture.rgb[pixel + 2]};
}

TEST(DrawAttentionTest, WeightLeftComputedRightTicksAboveAndBelow) {
  HeadAttention head;
  head.columns = {{2, 0.1f}};
  head.slashes = {{1, 0.2f}};
  const Picture picture = DrawAttention(SmallMap(), head);
  constexpr int kScale = 64;  // 8 columns enlarged to 512
  ASSERT_EQ(picture.width, 3 * 12 + 2 * 8 * kScale);
  ASSERT_EQ(picture.height, 2 * 20 + 4 * kScale);
  ASSERT_EQ(picture.rgb.size(), static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height) * 3);
  const auto left = [&](int row, int column) {
    return At(picture, 12 + column * kScale + kScale / 2, 20 + row * kScale + kScale / 2);
  };
  const auto right = [&](int row, int column) {
    return At(picture, 24 + (8 + column) * kScale + kScale / 2, 20 + row * kScale + kScale / 2);
  };
  const std::array<int, 3> white = {255, 255, 255}, darkest = {0, 0, 4}, brightest = {252, 255, 164};
  EXPECT_EQ(left(0, 4), brightest);
  EXPECT_EQ(left(3, 7), brightest);
  EXPECT_EQ(left(3, 0), darkest);
  EXPECT_EQ(left(0, 5), white);  // after the row's position
  EXPECT_EQ(right(0, 5), white);
  EXPECT_EQ(right(1, 2), right(1, 4));  // the column and the slash
  EXPECT_NE(right(1, 2), right(1, 3));
  EXPECT_NE(At(picture, 12 + 2 * kScale + 1, 14), white);
  EXPECT_EQ(At(picture, 12 + 3 * kScale + 1, 14), white);
  EXPECT_NE(At(picture, 12 + 6 * kScale + 1, 20 + 4 * kScale + 4), white);  // the last row is 7: slash 1 meets key 6
  EXPECT_EQ(At(picture, 12 + 7 * kScale + 1, 20 + 4 * kScale + 4), white);
}

TEST(DrawAttentionTest, AMapWithoutWeightIsDark) {
  AttentionMap map = SmallMap();
  map.weight.assign(32, 0.0f);
  const Picture picture = DrawAttention(map, {});
  EXPECT_EQ(At(picture, 12 + 32, 20 + 32), (std::array<int, 3>{0, 0, 4}));
}

TEST(EncodePngTest, DecodesToTheSamePixels) {
  Picture picture;
  picture.width = 37;
  picture.height = 5;
  for (size_t i = 0; i < size_t{37 * 5 * 3}; ++i) picture.rgb.push_back(static_cast<uint8_t>(i * 31 % 256));
  const auto png = EncodePng(picture);
  ASSERT_TRUE(png.ok()) << png.status().message();
  EXPECT_EQ(png->substr(0, 8), "\x89PNG\r\n\x1a\n");
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  ASSERT_TRUE(png_image_begin_read_from_memory(&image, png->data(), png->size()));
  EXPECT_EQ(image.width, 37u);
  EXPECT_EQ(image.height, 5u);
  image.format = PNG_FORMAT_RGB;
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(image));
  ASSERT_TRUE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr));
  EXPECT_EQ(pixels, picture.rgb);
}

}  // namespace
}  // namespace loopserve
