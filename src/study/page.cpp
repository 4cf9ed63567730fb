#include "study/page.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "formats/html.h"

namespace fathom::study {
namespace {

using formats::html_escape;

constexpr int64_t kAllBlocks = 24;

// As it is shown: a new line also as a sign, so that its colour is seen; an empty piece (part of a character) as a dot.
std::string shown(const std::string& text) {
  if (text.empty()) return "·";
  std::string out;
  for (const char c : text) {
    if (c == '\n') out += "↵\n";
    else if (c == '\t') out += "→\t";
    else if (c != '\r') out += c;
  }
  return html_escape(out);
}

std::string paths(const TokenView& t) {
  std::string out;
  for (const uint8_t path : t.run) out += static_cast<char>('0' + path);
  return out;
}

std::string routed_list(const std::vector<routing::RoutedUnit>& routed) {
  std::string out;
  for (const routing::RoutedUnit& unit : routed) out += (out.empty() ? "" : ",") + unit.label();
  return out;
}

const char* cell(const TokenView& t, size_t unit) {
  const auto path = unit < t.run.size() ? static_cast<routing::Path>(t.run[unit]) : routing::Path::skip;
  return path == routing::Path::full ? "<i class=\"r\"></i>" : path == routing::Path::light ? "<i class=\"l\"></i>" : "<i></i>";
}

}  // namespace

// The light scale goes down in lightness from L* 96 to 20, the dark one up from 22 to 85; letters keep a contrast of
// at least 4.5 on every step.
const std::string& depth_style() {
  static const std::string light =
      "--d0:#f1f5f8;--d1:#dcebf5;--d2:#bcdaec;--d3:#8fc1de;--d4:#3f8fc0;--d5:#17619c;--d6:#0a3161;"
      "--e0:#1b2733;--e1:#14202b;--e2:#0e1a24;--e3:#08131b;--e4:#000;--e5:#fff;--e6:#fff;--always:#b4bdc6;--skip:#e3e8ec";
  static const std::string dark =
      "--d0:#1d262e;--d1:#1f3b4d;--d2:#1d506c;--d3:#1f6a8f;--d4:#4a9ac2;--d5:#86c4e4;--d6:#c9e8f8;"
      "--e0:#d5dde4;--e1:#e2ebf1;--e2:#f0f6fa;--e3:#fff;--e4:#00090f;--e5:#00121c;--e6:#001a28;--always:#566370;--skip:#2a343d";
  static const std::string style =
      ":root{" + light + "}@media (prefers-color-scheme:dark){:root:not([data-theme=light]){" + dark + "}}:root[data-theme=dark]{" + dark + "}" + R"(
.legend{display:flex;flex-wrap:wrap;align-items:center;gap:.35rem .5rem;font-size:.85rem;margin:.4rem 0 .8rem}
.legend .scale{display:inline-flex;border-radius:4px;overflow:hidden}
.legend .scale span{padding:.1rem .55rem;font-variant-numeric:tabular-nums}
.tokens{white-space:break-spaces;overflow-wrap:anywhere;line-height:1.75;font-size:.95rem;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
.tokens>span{border-radius:2px;padding:.12em 0}
.tokens>.p{text-decoration:underline;text-decoration-thickness:1px;text-underline-offset:.3em}
.s0{background:var(--d0);color:var(--e0)}.s1{background:var(--d1);color:var(--e1)}.s2{background:var(--d2);color:var(--e2)}
.s3{background:var(--d3);color:var(--e3)}.s4{background:var(--d4);color:var(--e4)}.s5{background:var(--d5);color:var(--e5)}.s6{background:var(--d6);color:var(--e6)}
@media(min-width:50rem){.tiles{grid-template-columns:repeat(3,1fr)}}
.map{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85rem;line-height:1.4;max-height:36rem;overflow-y:auto;padding:6px;border:1px solid var(--skip);border-radius:6px}
.map .k{display:inline-block;vertical-align:top;margin:0 1px 12px 0;white-space:pre;min-width:.7em;cursor:default}
.map b{display:block;font-weight:400;border-radius:2px 2px 0 0}
.map .k>i{display:block;height:5px;margin-top:1px;background:var(--skip)}
.map .k>i.r{background:var(--d5)}.map .k>i.l{background:var(--d3)}.map .k>i.a{background:var(--always)}
.map .k.on,.tokens>span.on{outline:2px solid currentColor;outline-offset:1px;border-radius:2px}
.key{display:inline-block;width:1.1em;height:.6em;margin-right:.3em;vertical-align:baseline}
.key.r{background:var(--d5)}.key.l{background:var(--d3)}.key.a{background:var(--always)}.key.n{background:var(--skip)}
.readout{display:block;min-height:1.6em;font-size:.9rem;margin-top:.5rem}
.chip{display:inline-block;padding:.05rem .4rem;margin:.12rem .1rem;border-radius:4px;white-space:pre;max-width:100%;overflow:hidden;text-overflow:ellipsis;
font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85rem}
.examples{list-style:none;padding:0;margin:.5rem 0}
.examples li{padding:.4rem 0;border-top:1px solid var(--skip);white-space:pre-wrap;overflow-wrap:anywhere;font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.85rem;line-height:1.5}
.examples .chip{display:inline;overflow:visible;padding:.1em .05em;margin:0}
@media(max-width:36rem){table{font-size:.82rem}th,td{padding:.32rem .35rem}#comparison td.n,th.n{white-space:normal}}
.examples .near{opacity:.72}
.examples .depth{font-family:system-ui,sans-serif;font-size:.8rem;opacity:.72;margin-right:.5rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,22rem),1fr));gap:0 2rem;align-items:start}.pair svg.chart{min-width:0}.pair figure{min-width:0}
)";
  return style;
}

const std::string& depth_script() {
  static const std::string script = R"JS((()=>{
for(const box of document.querySelectorAll('[data-routed]')){
  const routed=box.dataset.routed?box.dataset.routed.split(','):[],readout=box.parentElement.querySelector('.readout');
  if(!readout)continue;
  let last=null;
  const show=e=>{
    const t=e.target.closest('[data-run]');
    if(!t||!box.contains(t)||t===last)return;
    if(last)last.classList.remove('on');
    last=t;t.classList.add('on');
    const ran=[],light=[],skipped=[];
    [...t.dataset.run].forEach((c,i)=>(c==='1'?ran:c==='2'?light:skipped).push(routed[i]));
    const word=(t.querySelector('b')||t).textContent.trim();
    readout.textContent='“'+word+'” depth '+t.dataset.depth+' of '+box.dataset.blocks+(ran.length?'; ran routed blocks '+ran.join(', '):'; ran no routed block')+(light.length?'; light path of '+light.join(', '):'')+(skipped.length?'; skipped '+skipped.join(', '):'');
  };
  box.addEventListener('pointerover',show);box.addEventListener('click',show);
}})();)JS";
  return script;
}

int depth_step(double depth, int64_t least, int64_t most) {
  if (most <= least || !std::isfinite(depth)) return 0;
  const double share = (depth - static_cast<double>(least)) / static_cast<double>(most - least);
  return static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * 6));
}

std::string depth_legend(int64_t least, int64_t most) {
  std::string out = "<div class=\"legend\"><span>depth: blocks run in full</span><span class=\"scale\">";
  const int64_t steps = std::min<int64_t>(most - least, 6);
  for (int64_t i = 0; i <= steps; ++i) {
    const int64_t depth = steps == 0 ? least : least + i * (most - least) / steps;
    out += str("<span class=\"s", depth_step(static_cast<double>(depth), least, most), "\">", depth, "</span>");
  }
  return out + "</span></div>";
}

std::string token_text(const std::vector<TokenView>& tokens, int64_t least, int64_t most, size_t given) {
  std::string out = "<div class=\"tokens\">";
  size_t i = 0;
  for (const TokenView& t : tokens)
    out += str("<span class=\"s", depth_step(static_cast<double>(t.depth), least, most), i++ < given ? " p" : "", "\" title=\"depth ", t.depth, "\">", shown(t.text), "</span>");
  return out + "</div>";
}

std::string token_map(const std::vector<TokenView>& tokens, const std::vector<routing::RoutedUnit>& routed, int64_t least, int64_t most, int64_t blocks) {
  std::string out = str("<div class=\"map\" tabindex=\"0\" role=\"group\" aria-label=\"tokens and the blocks that they ran\" data-blocks=\"", blocks,
                        "\" data-routed=\"", routed_list(routed), "\">");
  for (const TokenView& t : tokens) {
    std::string text = shown(t.text);
    const bool line_ends = text.ends_with('\n');
    std::erase(text, '\n');
    out += str("<span class=\"k\" data-depth=\"", t.depth, "\" data-run=\"", paths(t), "\"><b class=\"s", depth_step(static_cast<double>(t.depth), least, most), "\">", text, "</b>");
    size_t u = 0;
    for (int64_t b = 0; b < blocks; ++b) {
      if (u < routed.size() && routed[u].block == b)
        while (u < routed.size() && routed[u].block == b) out += cell(t, u++);
      else if (blocks <= kAllBlocks) out += "<i class=\"a\"></i>";
    }
    out += line_ends ? "</span><br>" : "</span>";
  }
  out += "</div><output class=\"readout\" aria-live=\"polite\">Point at a token to see its blocks.</output><div class=\"legend\"><span><i class=\"key r\"></i>ran a routed block</span>"
         "<span><i class=\"key n\"></i>skipped it</span>";
  if (std::any_of(routed.begin(), routed.end(), [](const routing::RoutedUnit& unit) { return unit.paths.light; })) out += "<span><i class=\"key l\"></i>took its light path</span>";
  if (blocks <= kAllBlocks && least > 0) out += "<span><i class=\"key a\"></i>block that every token runs</span>";
  return out + "<span>first block on top</span></div>";
}

std::string token_chip(const std::string& text, double depth, int64_t least, int64_t most, const std::string& title) {
  std::string word = shown(text);
  std::erase(word, '\n');
  // A leading space is part of the token and would not be seen.
  if (word.starts_with(' ')) word = "␣" + word.substr(1);
  return str("<span class=\"chip s", depth_step(depth, least, most), "\" title=\"", html_escape(title), "\">", word, "</span>");
}

}  // namespace fathom::study
