#include <algorithm>
#include <cmath>

#include "eval/html_text.h"
#include "eval/report.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

constexpr double kWidth = 860, kHeight = 440;
constexpr double kLeft = 60, kRight = 20, kTop = 16, kBottom = 52;
constexpr double kLabelHeight = 14, kLetterWidth = 7.2;

struct Colors {
  const char *ink, *paper, *ruler, *soft, *ours;
};
constexpr Colors kColorsOfPage = {"var(--ink)", "var(--paper)", "var(--line)", "var(--soft)", "var(--ours)"};
constexpr Colors kColorsOfFile = {"#1b1f24", "#ffffff", "#d0d7de", "#57606a", "#0969da"};

/// A range of values over a range of pixels.
struct Axis {
  double low, high, from, to;

  double At(double value) const { return from + (value - low) / (high - low) * (to - from); }
  /// A round number that cuts the range in about five.
  double Step() const {
    const double rough = (high - low) / 5;
    const double unit = std::pow(10.0, std::floor(std::log10(rough)));
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor * unit >= rough) return factor * unit;
    }
    return 10 * unit;
  }
};

/// A little more than what the values take; never empty.
Axis AxisOver(double low, double high, double from, double to) {
  if (!std::isfinite(low) || !std::isfinite(high)) low = high = 0;
  const double room = std::max({0.06 * (high - low), 1e-6 * std::abs(high), 1e-9});
  return {low - room, high + room, from, to};
}

std::string Pixels(double value) { return FormatFixed(value, 1); }

std::string Line(double x1, double y1, double x2, double y2, const char* color) {
  return "<line x1=\"" + Pixels(x1) + "\" y1=\"" + Pixels(y1) + "\" x2=\"" + Pixels(x2) + "\" y2=\"" + Pixels(y2) +
         "\" stroke=\"" + color + "\"/>\n";
}

std::string Text(double x, double y, const char* anchor, const char* color, const std::string& text) {
  return "<text x=\"" + Pixels(x) + "\" y=\"" + Pixels(y) + "\" text-anchor=\"" + anchor + "\" fill=\"" + color +
         "\">" + EscapeHtml(text) + "</text>\n";
}

std::string Grid(const ReportPlot& plot, const Axis& x, const Axis& y, const Colors& colors) {
  std::string svg;
  for (double value = std::ceil(x.low / x.Step()) * x.Step(); value <= x.high; value += x.Step()) {
    svg += Line(x.At(value), kTop, x.At(value), kHeight - kBottom, colors.ruler) +
           Text(x.At(value), kHeight - kBottom + 18, "middle", colors.soft,
                x.Step() < 1 ? FormatFixed(value, 1) : FormatCount(std::llround(value)));
  }
  const int digits = y.Step() < 1 ? 1 : 0;
  for (double value = std::ceil(y.low / y.Step()) * y.Step(); value <= y.high; value += y.Step()) {
    svg += Line(kLeft, y.At(value), kWidth - kRight, y.At(value), colors.ruler) +
           Text(kLeft - 8, y.At(value) + 4, "end", colors.soft, FormatFixed(value, digits));
  }
  return svg + Text((kLeft + kWidth - kRight) / 2, kHeight - 10, "middle", colors.ink, plot.x_title) +
         "<text transform=\"translate(16 " + Pixels((kTop + kHeight - kBottom) / 2) +
         ") rotate(-90)\" text-anchor=\"middle\" fill=\"" + colors.ink + "\">" + EscapeHtml(plot.y_title) + "</text>\n";
}

struct Box {
  double left, right, top, bottom;
  bool Meets(const Box& other) const {
    return left < other.right && other.left < right && top < other.bottom && other.top < bottom;
  }
};

/// A place for a label beside its point that no other label has: to the right or left of it, then further down or up.
Box PlaceLabel(double x, double y, size_t letters, const std::vector<Box>& taken) {
  const double width = kLetterWidth * static_cast<double>(letters);
  Box box = {};
  for (int row = 0; row < 40; ++row) {
    const int steps = (row % 2 == 0 ? 1 : -1) * ((row + 1) / 2);
    const double shift = steps * kLabelHeight;
    for (const bool on_right : {true, false}) {
      const double left = on_right ? x + 9 : x - 9 - width;
      box = {left, left + width, y + shift - kLabelHeight / 2, y + shift + kLabelHeight / 2};
      const bool inside = box.left > kLeft && box.right < kWidth && box.top > 0 && box.bottom < kHeight - kBottom;
      if (inside && std::ranges::none_of(taken, [&](const Box& other) { return box.Meets(other); })) return box;
    }
  }
  return box;
}

std::string Draw(const ReportPlot& plot, const Colors& colors) {
  double x_low = HUGE_VAL, x_high = 0, y_low = HUGE_VAL, y_high = -HUGE_VAL;
  for (const PlotPoint& point : plot.points) {
    x_low = std::min(x_low, point.x);
    x_high = std::max(x_high, point.x);
    y_low = std::min(y_low, point.y_low);
    y_high = std::max(y_high, point.y_high);
  }
  // From zero, unless all points would stand together at the far end.
  const Axis x = AxisOver(x_low > x_high / 2 ? x_low : 0, x_high, kLeft, kWidth - kRight);
  const Axis y = AxisOver(y_low, y_high, kHeight - kBottom, kTop);
  const std::string width = FormatFixed(kWidth, 0), height = FormatFixed(kHeight, 0);
  std::string svg =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + width + " " + height + "\" width=\"" + width +
      "\" height=\"" + height + "\" role=\"img\" aria-label=\"" + EscapeHtml(plot.title) +
      "\" font-size=\"12\" font-family=\"system-ui, sans-serif\">\n<rect width=\"100%\" height=\"100%\" fill=\"" +
      colors.paper + "\"/>\n" + Grid(plot, x, y, colors);
  std::vector<Box> taken;
  for (const PlotPoint& point : plot.points) {
    const double px = x.At(point.x), py = y.At(point.y);
    taken.push_back({px - 6, px + 6, py - 6, py + 6});
  }
  for (const PlotPoint& point : plot.points) {
    const char* color = point.is_ours ? colors.ours : colors.soft;
    const double px = x.At(point.x), py = y.At(point.y);
    const Box label = PlaceLabel(px, py, point.label.size(), taken);
    taken.push_back(label);
    svg += Line(px, y.At(point.y_low), px, y.At(point.y_high), color) + "<circle cx=\"" + Pixels(px) + "\" cy=\"" +
           Pixels(py) + "\" r=\"5\" fill=\"" + color + "\"/>\n" +
           Text(label.left, (label.top + label.bottom) / 2 + 4, "start", color, point.label);
  }
  return svg + "</svg>\n";
}

}  // namespace

std::string FileNameOf(const ReportPlot& plot) {
  std::string name;
  for (const char c : plot.title) {
    const char lower = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    if ((lower >= 'a' && lower <= 'z') || (lower >= '0' && lower <= '9')) {
      name += lower;
    } else if (c == ' ' && !name.empty()) {
      name += '-';
    }
  }
  return name + ".svg";
}

std::string ToSvg(const ReportPlot& plot) { return Draw(plot, kColorsOfPage); }

std::string ToSvgFile(const ReportPlot& plot) { return Draw(plot, kColorsOfFile); }

}  // namespace loopserve::eval
