"""How the page looks: on a desk, on a phone, in the dark, and on paper."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2733; --soft: #5c6b7a; --line: #dfe5ea; --paper: #ffffff;
  --card: #f6f8fa; --bar: #2f7f86; --bar-soft: #cfe3e4; --warn: #b3541e; --warn-soft: #fdf1e7; --ok: #2d7a46; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4eaf0; --soft: #9aa8b5; --line: #2c3743; --paper: #12181f;
  --card: #1a222b; --bar: #58b5bb; --bar-soft: #24434a; --warn: #f0a36b; --warn-soft: #33261b; --ok: #74c48d; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.25rem; margin: 2.8rem 0 .2rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; } p { margin: .3rem 0; }
.soft { color: var(--soft); } .small { font-size: .85rem; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8.5rem, 1fr)); gap: .7rem; margin: 1.2rem 0; }
.tile { background: var(--card); border-radius: .5rem; padding: .7rem .9rem; }
.tile b { display: block; font-size: 1.35rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.attention { border-left: 4px solid var(--warn); background: var(--warn-soft); border-radius: .3rem; padding: .6rem 1rem; }
.attention ul { margin: .3rem 0; padding-left: 1.1rem; } .fine { color: var(--ok); }
.big { font-size: 1.9rem; font-weight: 600; font-variant-numeric: tabular-nums; line-height: 1.2; }
.chart { margin: .8rem 0; } .chart svg { display: block; width: 100%; height: 7.5rem; }
.chart rect { fill: var(--bar); } .chart .base { stroke: var(--line); }
.ends { display: flex; justify-content: space-between; gap: 1rem; color: var(--soft); font-size: .8rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 17rem), 1fr)); gap: 0 2.2rem; }
.columns > div { min-width: 0; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; } caption { text-align: left; font-weight: 600; }
th { text-align: left; font-weight: 500; color: var(--soft); } th, td { padding: .22rem .5rem .22rem 0; vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; padding-right: 0; padding-left: .6rem;
  overflow-wrap: normal; white-space: nowrap; }
.scroll { overflow-x: auto; } tbody tr { border-top: 1px solid var(--line); }
.meter { display: block; height: .38rem; border-radius: .2rem; background: var(--bar-soft); margin: .1rem 0 .2rem; }
.meter i { display: block; height: 100%; border-radius: .2rem; background: var(--bar); }
.failed { color: var(--warn); font-weight: 600; } details { margin: .5rem 0; } summary { cursor: pointer; color: var(--soft); }
@media print { body { max-width: none; padding: 0; font-size: 10.5pt; } section, .chart, table, .tile { break-inside: avoid; }
  section.long { break-inside: auto; } h2, h3 { break-after: avoid; } details { display: none; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } @page { size: A4; margin: 16mm; } }
"""
