"""The rules that charts, tables and verdict marks need, for a page's style sheet or a `<style>` of its own.

The colours are Okabe and Ito's for all kinds of colour vision, darkened on white and lightened on black until each
stands out by 3 to 1 (WCAG 2.2, 1.4.11), and the verdicts' by 4.5 to 1 (1.4.3).
"""

from __future__ import annotations

LIGHT = {
    "s0": "#0067a5", "s1": "#c04a00", "s2": "#00795b", "s3": "#a8417f", "s4": "#806400", "s5": "#5552c8",
    "s6": "#4d4d4d", "s7": "#0b7f94", "holds": "#0a6b3b", "refuted": "#b3151f", "unsure": "#7a5200",
    "unchecked": "#5c5f66",
}  # fmt: skip
DARK = {
    "s0": "#5bb4ee", "s1": "#f08a4b", "s2": "#3cc79a", "s3": "#e495c4", "s4": "#dcb53a", "s5": "#a9a6f5",
    "s6": "#bdbdbd", "s7": "#5cc8da", "holds": "#55d38f", "refuted": "#ff8a85", "unsure": "#f0b955",
    "unchecked": "#a9adb5",
}  # fmt: skip
SERIES = 8  # colours; series beyond them begin again


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--fg-{name}: {colour};" for name, colour in colours.items())


def _series() -> str:
    """The classes fg-s0 ... fg-s7: a line's stroke, a bar's fill."""
    lines = []
    for i in range(SERIES):
        lines.append(f".fg-chart .fg-line.fg-s{i} {{ stroke: var(--fg-s{i}); }}")
        lines.append(f".fg-chart .fg-fill.fg-s{i} {{ fill: var(--fg-s{i}); }}")
    return "\n".join(lines)


CSS = f""":root {{ {_variables(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}
@media print {{ :root {{ {_variables(LIGHT)} }} }}
.fg-chart {{ display: block; width: 100%; max-width: 45rem; height: auto; margin: 0 0 1rem; color: inherit;
  overflow: visible; font: 12px system-ui, sans-serif; font-variant-numeric: tabular-nums; break-inside: avoid; }}
.fg-chart text {{ fill: currentColor; }}
.fg-chart .fg-soft {{ fill-opacity: 0.72; }}
.fg-chart .fg-heading {{ font-weight: 600; font-size: 13px; }}
.fg-chart .fg-grid {{ stroke: currentColor; stroke-opacity: 0.14; stroke-width: 1; }}
.fg-chart .fg-axis {{ stroke: currentColor; stroke-opacity: 0.55; stroke-width: 1; }}
.fg-chart .fg-mark {{ stroke: currentColor; stroke-opacity: 0.45; stroke-width: 1; stroke-dasharray: 3 3; }}
.fg-chart .fg-line {{ fill: none; stroke-width: 1.75; stroke-linejoin: round; stroke-linecap: round; }}
.fg-chart .fg-end {{ text-anchor: end; }}
.fg-chart .fg-middle {{ text-anchor: middle; }}
.fg-chart a:focus-visible, .fg-chart a:hover {{ outline: 2px solid currentColor; }}
{_series()}
.fg-table {{ border-collapse: collapse; margin: 0 0 1rem; font-variant-numeric: tabular-nums; }}
.fg-table caption {{ text-align: left; font-weight: 600; padding: 0.25rem 0; }}
.fg-table th, .fg-table td {{ text-align: left; vertical-align: top; padding: 0.2rem 0.75rem 0.2rem 0;
  border-bottom: 1px solid color-mix(in srgb, currentColor 18%, transparent); overflow-wrap: anywhere;
  min-width: 3.5rem; }}
.fg-table thead th {{ font-weight: 600; border-bottom-color: currentColor; }}
.fg-table tbody th {{ font-weight: 400; min-width: 7rem; }}
.fg-table thead th {{ overflow-wrap: normal; }}
.fg-table td > .fg-verdict {{ overflow-wrap: normal; }}
.fg-table th.fg-number, .fg-table td.fg-number {{ text-align: right; overflow-wrap: normal; }}
.fg-verdict {{ white-space: normal; }}
.fg-verdict.fg-holds {{ color: var(--fg-holds); }}
.fg-verdict.fg-refuted {{ color: var(--fg-refuted); }}
.fg-verdict.fg-unsure {{ color: var(--fg-unsure); }}
.fg-verdict.fg-unchecked {{ color: var(--fg-unchecked); }}
"""
