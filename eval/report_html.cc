#include "eval/html_text.h"
#include "eval/report.h"
#include "src/base/format.h"

namespace loopserve::eval {
namespace {

constexpr char kHead[] = R"(<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --line: #d0d7de; --soft: #57606a; --ours: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --line: #30363d; --soft: #8b949e; --ours: #58a6ff; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1100px;
  margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.2rem; }
p { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid var(--line); padding: 0.3rem 0.7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
table.text td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; }
</style>
)";

void AppendCells(const std::vector<std::string>& cells, const char* tag, std::string* html) {
  *html += "<tr>";
  for (const std::string& cell : cells) {
    *html += std::string("<") + tag + ">" + EscapeHtml(cell) + "</" + tag + ">";
  }
  *html += "</tr>\n";
}

void Append(const ReportTable& table, std::string* html) {
  *html += "<h2>" + EscapeHtml(table.title) + "</h2>\n";
  if (!table.note.empty()) *html += "<p>" + EscapeHtml(table.note) + "</p>\n";
  // Two columns are names and texts, more are figures.
  *html += table.columns.size() == 2 ? "<div class=\"wide\"><table class=\"text\">\n" : "<div class=\"wide\"><table>\n";
  AppendCells(table.columns, "th", html);
  for (const auto& row : table.rows) AppendCells(row, "td", html);
  *html += "</table></div>\n";
}

void Append(const ReportPlot& plot, std::string* html) {
  *html += "<h2>" + EscapeHtml(plot.title) + "</h2>\n" + ToSvg(plot);
}

void Append(const ReportList& list, std::string* html) {
  *html += "<h2>" + EscapeHtml(list.title) + "</h2>\n<ul>\n";
  for (const std::string& item : list.items) *html += "<li>" + EscapeHtml(item) + "</li>\n";
  *html += "</ul>\n";
}

}  // namespace

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (const char c : OnOneLine(text)) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

std::string ToHtml(const Report& report) {
  std::string html = kHead;
  html +=
      "<title>" + EscapeHtml(report.title) + "</title>\n</head>\n<body>\n<h1>" + EscapeHtml(report.title) + "</h1>\n";
  for (const ReportPart& part : report.parts) {
    std::visit([&](const auto& one) { Append(one, &html); }, part);
  }
  return html + "</body>\n</html>\n";
}

}  // namespace loopserve::eval
