#include "src/cli/attention_picture.h"

#include <png.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace loopserve {
namespace {

using Colour = std::array<uint8_t, 3>;

constexpr int kMarginPixels = 12;
constexpr int kTickPixels = 8;
/// Panels of small maps are enlarged up to about this size.
constexpr int kPanelPixels = 512;
constexpr double kDecades = 4;

constexpr Colour kNotComputed = {226, 226, 226};
constexpr Colour kComputed = {16, 62, 150};
constexpr Colour kColumnTick = {200, 40, 40};
constexpr Colour kSlashTick = {16, 62, 150};

/// From dark to light, as bright as they look.
constexpr Colour kHeat[] = {{0, 0, 4},     {40, 11, 84},   {101, 21, 110}, {159, 42, 99},
                            {212, 72, 66}, {245, 125, 21}, {250, 193, 39}, {252, 255, 164}};

/// from at 0, to at 1.
Colour Blend(const Colour& from, const Colour& to, double share) {
  Colour colour;
  for (size_t i = 0; i < 3; ++i) colour[i] = static_cast<uint8_t>(std::lround(from[i] + share * (to[i] - from[i])));
  return colour;
}

Colour Heat(double share) {
  const double at = std::clamp(share, 0.0, 1.0) * static_cast<double>(std::size(kHeat) - 1);
  const auto step = std::min(static_cast<size_t>(at), std::size(kHeat) - 2);
  return Blend(kHeat[step], kHeat[step + 1], at - static_cast<double>(step));
}

void Fill(Picture* picture, int left, int top, int width, int height, const Colour& colour) {
  for (int y = top; y < top + height; ++y) {
    for (int x = left; x < left + width; ++x) {
      std::ranges::copy(colour, picture->rgb.begin() + (ptrdiff_t{y} * picture->width + x) * 3);
    }
  }
}

/// The map's column that holds a key.
int ColumnOf(const AttentionMap& map, int64_t key) {
  int column = static_cast<int>(key * map.map_columns / map.n_keys());
  while (map.KeyEdge(column + 1) <= key) ++column;
  return column;
}

}  // namespace

Picture DrawAttention(const AttentionMap& map, const HeadAttention& head) {
  const int scale = std::max(1, kPanelPixels / std::max(map.map_rows, map.map_columns));
  const int panel_width = map.map_columns * scale, panel_height = map.map_rows * scale;
  const int left = kMarginPixels, right = 2 * kMarginPixels + panel_width, top = kMarginPixels + kTickPixels;
  Picture picture;
  picture.width = 3 * kMarginPixels + 2 * panel_width;
  picture.height = 2 * top + panel_height;
  picture.rgb.assign(static_cast<size_t>(picture.width) * static_cast<size_t>(picture.height) * 3, 255);
  const float heaviest = *std::ranges::max_element(map.weight);
  for (int i = 0; i < map.map_rows; ++i) {
    const int64_t last_position = map.first_position + map.RowEdge(i + 1) - 1;
    for (int c = 0; c < map.map_columns && map.KeyEdge(c) <= last_position; ++c) {
      const size_t cell = static_cast<size_t>(i) * static_cast<size_t>(map.map_columns) + static_cast<size_t>(c);
      const double weight = map.weight[cell] > 0 ? 1 + std::log10(map.weight[cell] / heaviest) / kDecades : 0;
      Fill(&picture, left + c * scale, top + i * scale, scale, scale, Heat(weight));
      // The square root lets a single line be seen among cells that it fills only in part.
      const double computed = std::sqrt(std::clamp(map.computed[cell], 0.0f, 1.0f));
      Fill(&picture, right + c * scale, top + i * scale, scale, scale, Blend(kNotComputed, kComputed, computed));
    }
  }
  for (const AttentionLine& line : head.columns) {
    Fill(&picture, left + ColumnOf(map, line.index) * scale, top - kTickPixels, scale, kTickPixels - 2, kColumnTick);
  }
  for (const AttentionLine& line : head.slashes) {
    const int column = ColumnOf(map, map.n_keys() - 1 - line.index);
    Fill(&picture, left + column * scale, top + panel_height + 2, scale, kTickPixels - 2, kSlashTick);
  }
  return picture;
}

Result<std::string> EncodePng(const Picture& picture) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width);
  image.height = static_cast<png_uint_32>(picture.height);
  image.format = PNG_FORMAT_RGB;
  png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
  std::string bytes(size, '\0');
  const int ok = png_image_write_to_memory(&image, bytes.data(), &size, 0, picture.rgb.data(), 0, nullptr);
  if (ok == 0) return Status(StatusCode::kInternal, std::string("libpng: ") + image.message);
  bytes.resize(size);
  return bytes;
}

}  // namespace loopserve
