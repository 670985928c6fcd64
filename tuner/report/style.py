"""The page's style sheet and script; both are inlined, the page loads nothing."""

from __future__ import annotations

import json

from tuner.report import theme

CSS = """
:root { color-scheme: light dark; --ink: #1f2933; --muted: #5d6b78; --line: #e1e6eb; --accent: #0a64a4;
  --page: #f4f6f8; --box: #ffffff; --best: #e8f1f8; --other: #fafbfc; --warn: #b35900; }
@media (prefers-color-scheme: dark) { :root { --ink: #e3e8ed; --muted: #a3b0bc; --line: #333d47; --accent: #6db7e8;
  --page: #12171c; --box: #1b2229; --best: #1d3345; --other: #20282f; --warn: #f0a050; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.45; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 4px 0 10px; overflow-wrap: anywhere; }
.muted, .note { color: var(--muted); }
.note { font-size: 13.5px; margin-bottom: 12px; }
section { background: var(--box); border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px;
  margin-top: 18px; }
.call { border-left: 5px solid var(--accent); }
.call.unsure { border-left-color: var(--warn); }
.call h2 { font-size: 21px; }
.worth { font-weight: 600; margin-top: 12px; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 12.5px; }
code { overflow-wrap: anywhere; }
pre { background: var(--page); border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px;
  margin: 8px 0 0; overflow-x: auto; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(350px, 100%), 1fr)); gap: 2px 28px;
  margin: 10px 0 0; font-size: 13.5px; }
dl div { display: flex; gap: 10px; border-top: 1px solid var(--line); padding: 4px 0; }
dt { color: var(--muted); flex: 0 0 112px; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: left; color: var(--muted); font-weight: 600; border-bottom: 2px solid var(--line);
  padding: 5px 6px; vertical-align: bottom; }
td { border-bottom: 1px solid var(--line); padding: 4px 6px; vertical-align: top;
  font-variant-numeric: tabular-nums; }
table.choices { width: auto; min-width: 60%; font-size: 14px; }
table.choices th, table.choices td { padding: 5px 14px 5px 6px; }
table.choices td:first-child { min-width: 88px; overflow-wrap: break-word; }
table.choices tr.best td { font-weight: 600; }
table.front td { white-space: nowrap; }
table.front td:first-child { white-space: normal; min-width: 76px; }
table.front td:last-child { white-space: normal; min-width: 190px; }
tr.best td { background: var(--best); }
tr.other td { color: var(--muted); background: var(--other); }
tr.folded > td { padding: 0 6px 6px 22px; white-space: normal; }
tr.folded details { margin: 2px 0; font-size: 12.5px; }
table.failures td:nth-child(3) { overflow-wrap: anywhere; }
.chip { display: inline-flex; align-items: center; gap: 4px; margin-right: 7px; white-space: nowrap; }
.chip i { width: 11px; height: 11px; border-radius: 2px; border: 1px solid rgba(128, 128, 128, .4); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; margin: 14px 0 0; }
.pair figcaption { grid-column: 1 / -1; font-size: 13px; color: var(--muted); overflow-wrap: anywhere; }
.pair img { width: 100%; max-height: 380px; object-fit: contain; background: var(--page);
  border-radius: 4px; border: 1px solid var(--line); display: block; }
figure { margin: 0; }
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--accent); }
.plot.wide > div { min-width: 720px; }
@media (max-width: 640px) {
  main { padding: 14px 8px 40px; }
  section { padding: 12px 10px; margin-top: 12px; }
  h1 { font-size: 20px; } .call h2 { font-size: 18px; }
  table.choices { width: 100%; font-size: 12.5px; }
  table.choices th, table.choices td { padding: 4px 5px 4px 2px; }
  .pair { grid-template-columns: 1fr; }
  .plot.wide .modebar { display: none; }
  dl div { flex-direction: column; gap: 0; }
  dt { flex: none; }
}
"""

#: Draws each figure in the colours of the page, and on a narrow screen the Pareto figure as laid out for one and the
#: figures of layers with the ends of their names.
SCRIPT = """
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)"), small = matchMedia("(max-width: 640px)");
  const night = NIGHT;
  const painted = value => {
    if (typeof value === "string") {
      return value.replace(/#[0-9a-f]{6}/gi, colour => night[colour.toLowerCase()] || colour);
    }
    if (Array.isArray(value)) return value.map(painted);
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, painted(inner)]));
    }
    return value;
  };
  const copy = value => JSON.parse(JSON.stringify(value));
  const plots = [...document.querySelectorAll(".js-plotly-plot")].map(element => {
    const narrow = document.getElementById("narrow-" + element.id.replace("plot-", ""));
    return { element, data: copy(element.data), wide: copy(element.layout),
      narrow: narrow && JSON.parse(narrow.textContent) };
  });
  const slim = layout => {
    const names = layout.yaxis.ticktext, columns = layout.xaxis.ticktext || [];
    if (!small.matches || !names || columns.length > 5) return null;
    const ends = names.map(name => name.length > 20 ? "…" + name.slice(-19) : name);
    const yaxis = { ...layout.yaxis, ticktext: ends, tickfont: { ...layout.yaxis.tickfont, size: 9 } };
    const { text = "", ...style } = layout.xaxis.title || {};
    const xaxis = { ...layout.xaxis, title: { ...style, text: text.split(" (")[0] } };
    return { ...layout, xaxis, yaxis, margin: { ...layout.margin, l: 122, r: 8 } };
  };
  const draw = () => plots.forEach(plot => {
    const fits = slim(plot.wide);
    let data = plot.data, layout = small.matches && plot.narrow ? plot.narrow : fits || plot.wide;
    plot.element.parentElement.style.minWidth = fits ? 0 : "";
    if (dark.matches) [data, layout] = [painted(data), painted(layout)];
    plot.element.style.height = plot.element.parentElement.style.height = layout.height + "px";
    Plotly.react(plot.element, copy(data), copy(layout));
    if (fits) Plotly.Plots.resize(plot.element);
  });
  const needed = () => dark.matches || small.matches;
  if (needed()) draw();
  dark.addEventListener("change", draw);
  small.addEventListener("change", draw);
})();
""".replace("NIGHT", json.dumps(theme.NIGHT))
