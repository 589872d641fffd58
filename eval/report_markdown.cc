#include "eval/report.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

/// Text of files within a line of Markdown: nothing in it is markup, and a table keeps its cells.
std::string Escape(const std::string& text) {
  std::string escaped;
  for (const char c : OnOneLine(text)) {
    if (std::string_view("\\`*_{}[]<>#|!~&").find(c) != std::string_view::npos) escaped += '\\';
    escaped += c;
  }
  return escaped;
}

void AppendRow(const std::vector<std::string>& cells, std::string* text) {
  *text += "|";
  for (const std::string& cell : cells) *text += " " + Escape(cell) + " |";
  *text += "\n";
}

void Append(const ReportTable& table, std::string* text) {
  if (!table.title.empty()) *text += "\n## " + Escape(table.title) + "\n";
  if (!table.note.empty()) *text += Escape(table.note) + "\n";
  *text += "\n";
  AppendRow(table.columns, text);
  *text += "|";
  for (size_t i = 0; i < table.columns.size(); ++i) *text += i == 0 ? " --- |" : " ---: |";
  *text += "\n";
  for (const auto& row : table.rows) AppendRow(row, text);
}

void Append(const ReportPlot& plot, std::string* text) {
  *text += "\n## " + Escape(plot.title) + "\n\n![" + Escape(plot.title) + "](" + FileNameOf(plot) + ")\n";
  ReportTable table{"", "", {"policy", plot.x_title, plot.y_title}, {}};
  for (const PlotPoint& point : plot.points) {
    table.rows.push_back(
        {point.label, FormatFixed(point.x, 0),
         FormatFixed(point.y, 1) + " [" + FormatFixed(point.y_low, 1) + ", " + FormatFixed(point.y_high, 1) + "]"});
  }
  Append(table, text);
}

void Append(const ReportList& list, std::string* text) {
  *text += "\n## " + Escape(list.title) + "\n\n";
  for (const std::string& item : list.items) *text += "- " + Escape(item) + "\n";
}

}  // namespace

std::string ToMarkdown(const Report& report) {
  std::string text = "# " + Escape(report.title) + "\n";
  for (const ReportPart& part : report.parts) {
    std::visit([&](const auto& one) { Append(one, &text); }, part);
  }
  return text;
}

}  // namespace loopserve::eval
