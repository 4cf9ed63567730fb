#include "formats/html.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "core/error.h"
#include "core/utf8.h"

namespace fathom::formats {
namespace {

struct Rgb {
  double r, g, b;
};

// 16 steps from the surface to the strongest colour, so that more is always more contrast, in both themes.
std::string heat_steps(const std::vector<Rgb>& stops) {
  std::string out;
  for (int i = 0; i < 16; ++i) {
    const double at = i / 15.0 * static_cast<double>(stops.size() - 1);
    const size_t k = std::min(static_cast<size_t>(at), stops.size() - 2);
    const double t = at - static_cast<double>(k);
    const auto mix = [t](double a, double b) { return static_cast<int>(std::lround(a + (b - a) * t)); };
    char text[32];
    std::snprintf(text, sizeof text, "--h%d:#%02x%02x%02x;", i, mix(stops[k].r, stops[k + 1].r), mix(stops[k].g, stops[k + 1].g), mix(stops[k].b, stops[k + 1].b));
    out += text;
  }
  return out;
}

std::string theme(bool dark) {
  return dark ? "--surface:#14171c;--card:#1b1f26;--line:#2f353f;--text:#e8eaed;--quiet:#9aa3af;--accent:#7cb0ff;--strong:#22303f;"
                "--c0:#6ea8fe;--c1:#ff9f45;--c2:#63d58b;--c3:#d493f5;--c4:#ff8fab;--c5:#3cc8d8;--c6:#e6cf4f;--c7:#a9b2bd;color-scheme:dark;" +
                    heat_steps({{30, 36, 46}, {29, 66, 120}, {37, 115, 200}, {106, 173, 255}, {205, 228, 255}})
              : "--surface:#ffffff;--card:#f7f8fa;--line:#dfe3e8;--text:#1b1f24;--quiet:#5f6b7a;--accent:#1f5fd0;--strong:#eaf1fe;"
                "--c0:#2368d8;--c1:#d9640c;--c2:#22894a;--c3:#8f3fc0;--c4:#cc3366;--c5:#0d7f92;--c6:#917500;--c7:#69737f;color-scheme:light;" +
                    heat_steps({{240, 244, 250}, {186, 213, 250}, {103, 163, 240}, {35, 104, 216}, {10, 44, 120}});
}

std::string themes() {
  return ":root{" + theme(false) + "}\n@media (prefers-color-scheme:dark){:root:not([data-theme=light]){" + theme(true) + "}}\n:root[data-theme=dark]{" + theme(true) + "}\n";
}

std::string chart_rules() {
  std::string out =
      ".chart text{font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif;fill:var(--text)}"
      ".chart text.title{font-size:14px;font-weight:600}"
      ".chart text.quiet,.chart text.tick{fill:var(--quiet)}"
      ".chart text.tick,.chart text.value{font-variant-numeric:tabular-nums}"
      ".chart text.value{font-size:11px}"
      ".chart line.grid{stroke:var(--line);stroke-width:1}"
      ".chart line.axis{stroke:var(--quiet);stroke-width:1}"
      ".chart line.reference{stroke:var(--quiet);stroke-width:1.2;stroke-dasharray:5 4}"
      ".chart .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}"
      ".chart .dashed{stroke-dasharray:6 5}"
      ".chart .band{fill-opacity:.16;stroke:none}"
      ".chart .dot{stroke:var(--surface);stroke-width:1}"
      ".chart .see-through{fill-opacity:.75}"
      ".chart .empty{fill:var(--card)}";
  for (int i = 0; i < 8; ++i) {
    const std::string c = str(".c", i), v = str("{stroke:var(--c", i, ")}"), f = str("{fill:var(--c", i, ")}");
    out += ".chart .line" + c + v + ".chart .fill" + c + f + ".chart .band" + c + f;
  }
  for (int i = 0; i < 16; ++i) out += str(".chart .h", i, "{fill:var(--h", i, ")}");
  return out + "\n";
}

constexpr const char* kPageRules = R"CSS(
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--surface);color:var(--text);font:16px/1.55 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main,header,footer{max-width:60rem;margin:0 auto;padding:0 1.25rem}
header{padding-top:2rem;position:relative}
h1{font-size:1.75rem;line-height:1.2;margin:0 5.5rem .5rem 0;letter-spacing:-.01em}
h2{font-size:1.25rem;margin:0 0 .6rem;letter-spacing:-.005em}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
h2 a{color:inherit;text-decoration:none}
p{margin:.5rem 0}
a{color:var(--accent)}
.lead{font-size:1.06rem;color:var(--quiet);max-width:46rem;margin:0}
section{margin:2.4rem 0}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.875em}
code{background:var(--card);border:1px solid var(--line);border-radius:4px;padding:.05em .3em}
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:.8rem 1rem;overflow-x:auto}
pre code{border:0;padding:0;background:none}
figure{margin:1.2rem 0}
figcaption{color:var(--quiet);font-size:.9rem;margin-top:.35rem}
.scroll{overflow-x:auto;-webkit-overflow-scrolling:touch}
svg.chart{display:block;width:100%;min-width:33rem;height:auto}
table{border-collapse:collapse;width:100%;font-size:.93rem}
th,td{padding:.42rem .7rem;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--quiet);vertical-align:bottom}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.strong td{background:var(--strong);font-weight:600}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(10.5rem,1fr));gap:.8rem;margin:1.2rem 0}
.tile{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:.8rem 1rem}
.tile b{display:block;font-size:1.55rem;line-height:1.25;font-variant-numeric:tabular-nums;letter-spacing:-.01em}
.tile span{display:block;font-size:.9rem}
.tile small{display:block;color:var(--quiet);font-size:.82rem}
footer{color:var(--quiet);font-size:.88rem;border-top:1px solid var(--line);margin-top:3rem;padding-top:1rem;padding-bottom:2.5rem}
#theme{position:absolute;right:1.25rem;top:2rem;font:inherit;font-size:.85rem;color:var(--text);background:var(--card);border:1px solid var(--line);border-radius:999px;padding:.25rem .8rem;cursor:pointer}
#theme:focus-visible,a:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
@media (max-width:36rem){h1{font-size:1.4rem}header{padding-top:1.2rem}#theme{top:1.2rem}th,td{padding:.38rem .5rem}}
@media print{#theme{display:none}section{break-inside:avoid-page}}
)CSS";

// The theme: #theme=dark in the address wins, then the reader's earlier choice, then the system (no attribute at all).
constexpr const char* kThemeScript = R"JS(
(function(){var r=document.documentElement,b=document.getElementById('theme'),k='fathom-theme';
function get(){try{return localStorage.getItem(k)}catch(e){return null}}
function dark(){var t=r.getAttribute('data-theme');return t?t==='dark':matchMedia('(prefers-color-scheme:dark)').matches}
function show(){b.textContent=dark()?'Light':'Dark'}
var m=/theme=(dark|light)/.exec(location.hash),t=m?m[1]:get();
if(t==='dark'||t==='light')r.setAttribute('data-theme',t);
b.hidden=false;show();
b.onclick=function(){var n=dark()?'light':'dark';r.setAttribute('data-theme',n);try{localStorage.setItem(k,n)}catch(e){}show()};
matchMedia('(prefers-color-scheme:dark)').addEventListener('change',show)})();
)JS";

bool is_figure(std::string_view cell) {
  for (const std::string_view sign : {"+", "-", "\xe2\x88\x92", "±", "~", "≈", "<", ">"})
    if (cell.starts_with(sign)) cell.remove_prefix(sign.size());
  return (!cell.empty() && cell[0] >= '0' && cell[0] <= '9') || cell == "\xe2\x80\x93";
}

}  // namespace

std::string html_escape(std::string_view text) {
  std::string repaired;
  if (!is_utf8(text)) text = repaired = utf8_repair(text);
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    const unsigned char u = static_cast<unsigned char>(c);
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: if ((u < 0x20 && c != '\n' && c != '\t') || u == 0x7f) out += "\xef\xbf\xbd"; else out += c;
    }
  }
  return out;
}

const std::string& html_chart_style() {
  static const std::string style = themes() + chart_rules();
  return style;
}

std::string html_page(const HtmlPage& page) {
  const std::string title = html_escape(page.title);
  std::string out = "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n";
  out += "<title>" + title + "</title>\n<style>" + html_chart_style() + kPageRules + page.style + "</style>\n</head>\n<body>\n<header>\n<h1>" + title + "</h1>\n";
  out += "<button id=\"theme\" type=\"button\" hidden>Dark</button>\n";
  if (!page.lead.empty()) out += "<p class=\"lead\">" + page.lead + "</p>\n";
  out += "</header>\n<main>\n" + page.body + "\n</main>\n";
  if (!page.footer.empty()) out += "<footer>" + page.footer + "</footer>\n";
  out += std::string("<script>") + kThemeScript + "</script>\n";
  if (!page.script.empty()) out += "<script>" + page.script + "</script>\n";
  return out + "</body>\n</html>\n";
}

std::string html_section(std::string_view id, std::string_view heading, std::string_view html) {
  const std::string i = html_escape(id);
  return "<section id=\"" + i + "\">\n<h2><a href=\"#" + i + "\">" + html_escape(heading) + "</a></h2>\n" + std::string(html) + "\n</section>\n";
}

std::string html_table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows, int strong_row) {
  std::vector<size_t> figures(head.size(), 0);
  for (const auto& row : rows) {
    FATHOM_ASSERT(row.size() == head.size(), row.size(), " cells under ", head.size(), " heads");
    for (size_t j = 0; j < row.size(); ++j) figures[j] += is_figure(row[j]);
  }
  const auto open = [&](const char* element, size_t j, bool figure) { return str("<", element, j > 0 && figure ? " class=\"n\">" : ">"); };
  std::string out = "<div class=\"scroll\"><table>\n<thead><tr>";
  for (size_t j = 0; j < head.size(); ++j) out += open("th", j, figures[j] * 2 > rows.size()) + html_escape(head[j]) + "</th>";
  out += "</tr></thead>\n<tbody>\n";
  for (size_t i = 0; i < rows.size(); ++i) {
    out += static_cast<int>(i) == strong_row ? "<tr class=\"strong\">" : "<tr>";
    for (size_t j = 0; j < head.size(); ++j) out += open("td", j, is_figure(rows[i][j]) || figures[j] * 2 > rows.size()) + html_escape(rows[i][j]) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string html_figure(std::string_view svg, std::string_view caption) {
  std::string out = "<figure><div class=\"scroll\">" + std::string(svg) + "</div>";
  if (!caption.empty()) out += "<figcaption>" + std::string(caption) + "</figcaption>";
  return out + "</figure>\n";
}

std::string html_tiles(const std::vector<HtmlTile>& tiles) {
  std::string out = "<div class=\"tiles\">\n";
  for (const HtmlTile& t : tiles) {
    out += "<div class=\"tile\"><b>" + html_escape(t.value) + "</b><span>" + html_escape(t.label) + "</span>";
    if (!t.note.empty()) out += "<small>" + html_escape(t.note) + "</small>";
    out += "</div>\n";
  }
  return out + "</div>\n";
}

}  // namespace fathom::formats
