"""How the report looks on a screen and on paper."""

STYLE = """
:root { --ink: #1d232b; --soft: #5b6672; --line: #d9dee4; --wash: #f5f7f9; --accent: #1f5a94; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
       color: var(--ink); background: #fff; max-width: 70rem; margin: 3rem auto;
       padding: 0 1.5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .6rem; padding-bottom: .3rem;
     border-bottom: 2px solid var(--accent); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
.lead { color: var(--soft); margin: 0 0 1.2rem; }
nav { font-size: .9rem; } nav a { margin-right: 1rem; color: var(--accent); text-decoration: none; }
.found { background: var(--wash); border-left: 4px solid var(--accent); padding: .8rem 1.1rem;
         margin: 1.2rem 0; }
.found p { margin: .3rem 0; }
p, li { max-width: 52rem; }
.wide { overflow-x: auto; margin: 1rem 0 1.8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
caption { text-align: left; color: var(--soft); font-size: .86rem; padding-bottom: .5rem;
          max-width: 52rem; }
th, td { padding: .32rem .75rem; text-align: right; vertical-align: top;
         border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; }
tbody th { font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 1.5px solid var(--ink); }
thead th[scope="colgroup"] { text-align: center; border-bottom: 1px solid var(--line); }
tbody tr:hover { background: var(--wash); }
td small { display: block; color: var(--soft); font-size: .78rem; }
figure { margin: 1.6rem 0 2.4rem; } img { max-width: 100%; display: block; }
figcaption { color: var(--soft); font-size: .9rem; margin-top: .5rem; max-width: 52rem; }
pre { background: var(--wash); padding: .8rem 1rem; overflow-x: auto; font-size: .88rem;
      white-space: pre-wrap; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.4rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } nav { display: none; }
               figure, table { break-inside: avoid; } .wide { overflow: visible; } }
"""
