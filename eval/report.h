// The report of a run, as a document of tables and plots, and its two forms. Everything in it comes from stored
// results; texts from files are escaped. Thread rule: pure functions.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "eval/played_dialogue.h"
#include "eval/result_store.h"

namespace loopserve::eval {

struct ReportTable {
  std::string title;  ///< empty: it belongs to what stands before it
  std::string note;   ///< what the figures are; may be empty
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  ///< the first cell names the row
};

struct PlotPoint {
  std::string label;
  double x = 0;
  double y = 0, y_low = 0, y_high = 0;
  bool is_ours = false;
};

struct ReportPlot {
  std::string title;
  std::string x_title, y_title;
  std::vector<PlotPoint> points;
};

/// A list of sentences.
struct ReportList {
  std::string title;
  std::vector<std::string> items;
};

using ReportPart = std::variant<ReportTable, ReportPlot, ReportList>;

struct Report {
  std::string title;
  std::vector<ReportPart> parts;
};

/// Everything that the results can say: parts without any figure are left out.
Report MakeReport(const StoredResults& results);

/// GitHub-flavoured Markdown; a plot becomes a picture, FileNameOf(plot) beside it, and the table of its points.
std::string ToMarkdown(const Report& report);
/// One file that needs no other: styles and plots (SVG) inside.
std::string ToHtml(const Report& report);
/// The file that a plot is written to: its title in small letters, words joined by hyphens, .svg.
std::string FileNameOf(const ReportPlot& plot);
/// An <svg> element in the colours of the page, and one for a file of its own.
std::string ToSvg(const ReportPlot& plot);
std::string ToSvgFile(const ReportPlot& plot);

}  // namespace loopserve::eval
