"""The page's style sheet and script; both are inlined, the page loads nothing."""

CSS = """
:root { --ink: #1f2933; --muted: #667380; --line: #e1e6eb; --accent: #0b6e4f; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink); line-height: 1.45; font-size: 15px;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 2px; }
h2 { font-size: 18px; margin: 0 0 4px; }
p { margin: 4px 0 10px; }
.muted, .note { color: var(--muted); }
.note { font-size: 13.5px; margin-bottom: 12px; }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 18px 20px;
  margin-top: 18px; }
.call { border-left: 5px solid var(--accent); }
.call h2 { font-size: 20px; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, monospace; font-size: 12.5px; }
pre { background: #f4f6f8; border: 1px solid var(--line); border-radius: 6px; padding: 8px 12px;
  margin: 8px 0 0; overflow-x: auto; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(350px, 1fr)); gap: 2px 28px;
  margin: 10px 0 0; font-size: 13.5px; }
dl div { display: flex; gap: 10px; border-top: 1px solid var(--line); padding: 4px 0; }
dt { color: var(--muted); flex: 0 0 112px; }
dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: left; color: var(--muted); font-weight: 600; border-bottom: 2px solid var(--line);
  padding: 5px 6px; white-space: nowrap; }
td { border-bottom: 1px solid var(--line); padding: 4px 6px; vertical-align: top;
  font-variant-numeric: tabular-nums; }
table.front td { white-space: nowrap; }
table.front td:first-child { white-space: normal; width: 132px; }
table.front td:last-child { white-space: normal; min-width: 190px; }
tr.best td { background: #e9f5f0; }
tr.other td { color: var(--muted); background: #fafbfc; }
table.failures td:nth-child(3) { overflow-wrap: anywhere; }
.chip { display: inline-flex; align-items: center; gap: 4px; margin-right: 7px; white-space: nowrap; }
.chip i { width: 11px; height: 11px; border-radius: 2px; border: 1px solid rgba(0, 0, 0, .15); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; margin: 14px 0 0; }
.pair figcaption { grid-column: 1 / -1; font-size: 13px; color: var(--muted); }
.pair img { width: 100%; max-height: 380px; object-fit: contain; background: #f4f6f8;
  border-radius: 4px; border: 1px solid var(--line); display: block; }
figure { margin: 0; }
details { margin-top: 10px; }
summary { cursor: pointer; color: var(--accent); }
.plot { width: 100%; }
"""
