"""Colours and type of the report: every colour is a custom property with a light and a dark value."""

from __future__ import annotations

from .svg import FONT_SIZE

LIGHT = """--paper:#fff;--panel:#f6f7f8;--ink:#16191d;--soft:#4a525c;--faint:#68717c;--rule:#dfe3e7;--grid:#eaedf0;
--rung:#0a5fb4;--base:#8a5a00;--both:#0b7a75;--ready:#7a3fb0;--target:#b3261e;
--ok:#17693b;--ok-bg:#e4f3e9;--no:#a3261d;--no-bg:#fbe9e7;--maybe:#7d5200;--maybe-bg:#fbf0d9;--none-bg:#eceff2;
--r0:#c96a00;--r1:#c4424a;--r2:#a12d83;--r3:#6a35a8;--r4:#2f55b8;--r5:#0f2a66;"""

DARK = """--paper:#101317;--panel:#181c22;--ink:#e8eaed;--soft:#b4bcc6;--faint:#929ca8;--rule:#2c333b;--grid:#222830;
--rung:#6fb3ff;--base:#dfae5a;--both:#4fcdc4;--ready:#c59bf0;--target:#ff8b80;
--ok:#7fd6a0;--ok-bg:#14301f;--no:#ff9c92;--no-bg:#3a1b19;--maybe:#efc26b;--maybe-bg:#352812;--none-bg:#252b33;
--r0:#ffc46b;--r1:#ff9370;--r2:#f97fa5;--r3:#d591f0;--r4:#92a7ff;--r5:#7fd0ff;"""

SANS = 'system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue","Noto Sans",Arial,sans-serif'
SERIF = 'Charter,"Bitstream Charter","Iowan Old Style","Palatino Linotype",Georgia,"Noto Serif",serif'
MONO = 'ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace'

CHART = f"""
.sf-chart text{{font-family:{SANS};font-size:{FONT_SIZE}px;fill:var(--soft);font-variant-numeric:tabular-nums}}
.sf-chart .sf-paper{{fill:var(--paper)}}
.sf-chart .sf-name{{fill:var(--ink);font-weight:600}}
.sf-chart .sf-label{{paint-order:stroke;stroke:var(--paper);stroke-width:3px;stroke-linejoin:round}}
.sf-chart .sf-grid{{stroke:var(--grid);stroke-width:1}}
.sf-chart .sf-axis{{stroke:var(--faint);stroke-width:1}}
.sf-chart .sf-edge{{stroke:var(--rule);stroke-width:1;stroke-dasharray:2 4}}
.sf-chart .sf-leader{{stroke:var(--faint);stroke-width:1}}
.sf-chart .sf-target{{stroke:var(--target);stroke-width:1.5;stroke-dasharray:7 4}}
.sf-chart .sf-target-text{{fill:var(--target);font-weight:600}}
.sf-chart .sf-bar{{fill:none;stroke-width:2}}
.sf-chart .sf-dash{{stroke-dasharray:3 3}}
.sf-chart .sf-trend{{fill:none;stroke:var(--rung);stroke-width:1.25;opacity:.45}}
.sf-chart .sf-seed{{fill:var(--rung);opacity:.6}}
.sf-chart .sf-point{{stroke:var(--paper);stroke-width:1.5}}
.sf-chart .sf-curve{{fill:none;stroke-width:1.6;stroke-linejoin:round}}
.sf-chart .sf-lm{{--c:var(--rung)}}.sf-chart .sf-baseline{{--c:var(--base)}}
.sf-chart .sf-combined{{--c:var(--both)}}.sf-chart .sf-pretrained{{--c:var(--ready)}}
.sf-chart .sf-point{{fill:var(--c)}}.sf-chart .sf-bar{{stroke:var(--c)}}.sf-chart text.sf-tinted{{fill:var(--c)}}
.sf-chart .sf-hollow{{fill:var(--paper);stroke:var(--c);stroke-width:2}}
.sf-chart .sf-r0{{--c:var(--r0)}}.sf-chart .sf-r1{{--c:var(--r1)}}.sf-chart .sf-r2{{--c:var(--r2)}}
.sf-chart .sf-r3{{--c:var(--r3)}}.sf-chart .sf-r4{{--c:var(--r4)}}.sf-chart .sf-r5{{--c:var(--r5)}}
.sf-chart .sf-curve{{stroke:var(--c)}}
"""

TOKENS = f":root{{color-scheme:light dark;{LIGHT}}}\n@media (prefers-color-scheme:dark){{:root{{{DARK}}}}}\n"
# A figure that stands alone carries its own colours; its root is the svg element.
FIGURE = TOKENS + CHART

PAGE = f"""
*{{box-sizing:border-box}}
html{{-webkit-text-size-adjust:100%;background:var(--paper)}}
body{{margin:0;color:var(--ink);background:var(--paper);font:16px/1.6 {SANS};font-variant-numeric:tabular-nums}}
main{{max-width:1048px;margin:0 auto;padding:40px 24px 72px}}
p,li,figcaption{{max-width:46rem}}
a{{color:var(--rung)}}
.eyebrow{{margin:0 0 14px;color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}}
h1{{margin:0 0 18px;font:600 clamp(1.65rem,4.4vw,2.5rem)/1.18 {SERIF};letter-spacing:-.012em;max-width:24em;
overflow-wrap:anywhere;text-wrap:balance}}
h2{{margin:56px 0 12px;padding-top:16px;border-top:1px solid var(--rule);font:600 1.35rem/1.3 {SERIF}}}
h3{{margin:28px 0 6px;font-size:1rem;font-weight:650}}
.lead{{margin:0 0 12px;font-size:1.08rem;overflow-wrap:anywhere}}
.advice{{margin:22px 0 0;padding:12px 18px;border-left:3px solid var(--rung);background:var(--panel);font-size:1.08rem;
overflow-wrap:anywhere}}
.advice b,.warn b{{display:block;font-size:.82rem;font-weight:600;color:var(--soft)}}
.soft,figcaption,.sub{{color:var(--soft);font-size:.9rem;overflow-wrap:anywhere}}
.sub{{display:block;font-size:.84rem;font-weight:400;line-height:1.4}}
.facts{{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:0 28px;margin:30px 0 0;padding:0}}
.facts div{{padding:10px 0 12px;border-top:1px solid var(--rule)}}
.facts dt{{color:var(--soft);font-size:.86rem}}
.facts dd{{margin:0;font-size:1.4rem;line-height:1.35;font-weight:600;overflow-wrap:anywhere}}
.facts dd small{{display:block;font-size:.84rem;font-weight:400;color:var(--soft)}}
figure{{margin:20px 0 8px}}
figcaption{{margin-top:6px}}
.sf-chart{{display:block;width:100%;height:auto}}
.narrow{{display:none;max-width:460px}}
.scroll{{overflow-x:auto}}
table{{width:100%;border-collapse:collapse;font-size:.94rem;line-height:1.45}}
th,td{{padding:9px 14px 9px 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--rule);
overflow-wrap:anywhere}}
th:last-child,td:last-child{{padding-right:0}}
thead th{{color:var(--soft);font-size:.84rem;font-weight:600;vertical-align:bottom;border-bottom-color:var(--faint);
overflow-wrap:normal}}
tbody th{{font-weight:600}}
.long tbody th{{font-weight:400}}
.long th{{width:24%}}.long th:first-child{{width:auto}}.long th.num{{width:7rem}}
.nowrap{{white-space:nowrap}}
td.num{{white-space:nowrap}}
tr.chosen>*{{background:var(--panel)}}
tr.chosen>th{{box-shadow:-10px 0 0 var(--panel),inset 0 0 0 0}}
.group th{{padding:22px 0 5px;color:var(--soft);font-size:.84rem;border-bottom-color:var(--faint)}}
.badge{{display:inline-block;padding:1px 9px;border-radius:3px;font-size:.84rem;font-weight:600;white-space:nowrap;
color:var(--soft);background:var(--none-bg)}}
.badge.workable{{color:var(--ok);background:var(--ok-bg)}}
.badge.not{{color:var(--no);background:var(--no-bg)}}
.badge.undecided{{color:var(--maybe);background:var(--maybe-bg)}}
.better{{color:var(--ok);font-weight:600}}.worse{{color:var(--no);font-weight:600}}
.strip{{display:block;width:132px;height:22px}}
.warn{{margin:14px 0;padding:10px 18px;border-left:3px solid var(--maybe);background:var(--maybe-bg);
overflow-wrap:anywhere}}
.warn ul{{margin:4px 0;padding-left:18px}}
dl.pairs{{display:grid;grid-template-columns:minmax(110px,max-content) 1fr;gap:4px 22px;margin:8px 0;font-size:.94rem}}
dl.pairs dt{{color:var(--soft);overflow-wrap:anywhere;max-width:240px}}
dl.pairs dd{{margin:0;min-width:0;overflow-wrap:anywhere}}
dl.pairs dl.pairs{{margin:0}}
pre,code,.text{{font-family:{MONO};font-size:.86rem}}
pre{{margin:4px 0 14px;padding:11px 14px;background:var(--panel);overflow-x:auto;line-height:1.5}}
.text{{white-space:pre-wrap;overflow-wrap:anywhere;unicode-bidi:isolate;line-height:1.5}}
.text mark{{color:inherit;background:var(--no-bg);border-bottom:2px solid var(--no)}}
.text.expected mark{{background:var(--ok-bg);border-bottom-color:var(--ok)}}
.empty{{color:var(--faint)}}
details{{margin:14px 0}}
summary{{cursor:pointer;color:var(--soft);font-weight:600;font-size:.94rem}}
summary:focus-visible{{outline:2px solid var(--rung);outline-offset:3px}}
.columns{{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:0 48px}}
.columns>*{{min-width:0}}
.hash{{font-family:{MONO};font-size:.8rem}}
footer{{margin-top:56px;padding-top:14px;border-top:1px solid var(--rule);color:var(--soft);font-size:.86rem}}
@media (max-width:700px){{
main{{padding:26px 18px 56px}}
h2{{margin-top:44px}}
.wide{{display:none}}.narrow{{display:block}}
.stack thead{{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
.stack,.stack tbody{{display:block}}
.stack tr{{padding:12px 0 12px;border-bottom:1px solid var(--rule)}}
.stack tr.chosen{{background:var(--panel);margin:0 -18px;padding:12px 18px}}
.stack tr.chosen>th{{box-shadow:none}}
.stack tr{{display:grid;grid-template-columns:1fr 1fr;gap:8px 18px}}
.stack th,.stack td,.long th:first-child{{display:block;width:auto;min-width:0;padding:0;border:0;white-space:normal}}
.stack tbody th{{grid-column:1/-1;font-size:1.05rem}}
.stack td::before{{display:block;content:attr(data-label);color:var(--soft);font-size:.84rem}}
.stack td.span{{grid-column:1/-1}}.stack td.span .sub{{display:inline;margin-left:8px}}
.scroll{{overflow:visible}}
.stack.long tr{{grid-template-columns:1fr}}
.stack.long tbody th{{font-size:1rem}}
.stack td.blank{{display:none}}
.stack tr.group{{padding:20px 0 0;border:0}}
.stack tr.group th{{padding:0;font-size:.9rem}}
dl.pairs{{grid-template-columns:1fr;gap:0}}dl.pairs dd{{margin-bottom:8px}}
dl.pairs dl.pairs{{padding-left:14px}}
.facts{{grid-template-columns:1fr 1fr}}.facts div:last-child:nth-child(odd){{grid-column:1/-1}}
}}
@media print{{main{{max-width:none;padding:0}}h2{{break-after:avoid}}tr,figure{{break-inside:avoid}}}}
"""
