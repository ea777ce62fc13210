#include "eval/report_page.h"

#include <fmt/format.h>

#include "eval/svg.h"

namespace dspark {
namespace {

constexpr char kStyleSheet[] =
    R"(:root{--ink:#1b1f24;--soft:#6b7280;--rule:#e2e5ea;--page:#ffffff;--mark:#eef4fb;--bad:#b3261e}
@media (prefers-color-scheme:dark){:root{--ink:#e6e8eb;--soft:#9aa3ad;--rule:#333a42;--page:#15181c;--mark:#1e2a36;--bad:#ff8a80}}
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:1120px;margin:2em auto;padding:0 1.2em}
h1{font-size:1.6em;margin-bottom:.2em}h2{font-size:1.2em;margin-top:2.2em}h3{font-size:1em;margin:1.2em 0 .3em}
.caption,dt,.note{color:var(--soft)}.bad{color:var(--bad);font-weight:600}
.wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;margin:.6em 0}
th,td{font-size:13px;padding:.25em .5em;text-align:right;border-bottom:1px solid var(--rule);white-space:nowrap}
th{color:var(--soft);font-weight:600}.t{text-align:left}summary{cursor:pointer;color:var(--soft)}
td.best{background:var(--mark);font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;margin:.8em 0}dd{margin:0}
.charts{display:flex;flex-wrap:wrap;gap:10px}.charts svg{max-width:100%;height:auto}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:.2em 1.4em;padding:0;margin:.5em 0}
.legend .sample{margin-right:.5em;vertical-align:middle}
)";

}  // namespace

std::string PageHead(const std::string& title, const std::string& heading) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/>"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>"
      "<meta name=\"color-scheme\" content=\"light dark\"/>"
      "<title>{}</title><style>{}{}</style></head><body>\n"
      "<h1>{}</h1>\n",
      EscapeXml(title), kStyleSheet, ChartStyleSheet(), EscapeXml(heading));
}

std::string Legend(const std::vector<std::string>& names) {
  std::string html = "<ul class=\"legend\">";
  for (size_t i = 0; i < names.size(); ++i)
    html += fmt::format("<li>{}{}</li>", RenderLineSample(int(i)), EscapeXml(names[i]));
  return html + "</ul>\n";
}

}  // namespace dspark
