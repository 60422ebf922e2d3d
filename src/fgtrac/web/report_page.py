"""A report as one HTML page: its style stands in it, under a hash that its content policy names; no script, no outside
resource. What a section says is in fgtrac.web.report_sections."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime

from fgtrac.api.report import TraceReport
from fgtrac.drawing.html import Html, escape, verdict_mark
from fgtrac.drawing.style import CSS
from fgtrac.verify.report import Verdict
from fgtrac.web.ai_act import draft
from fgtrac.web.ai_act_page import ai_act_html
from fgtrac.web.report_sections import SECTIONS, Said, section_html

STYLE = f"""{CSS}
:root {{ color-scheme: light dark; --paper: #fff; --ink: #1b1d21; --link: #0b57a4; }}
@media (prefers-color-scheme: dark) {{ :root {{ --paper: #15171a; --ink: #e6e7ea; --link: #7db8f5; }} }}
@media print {{ :root {{ --paper: #fff; --ink: #000; --link: #000; }} }}
a {{ color: var(--link); }}
body {{ background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; max-width: 54rem;
  margin: 0 auto; padding: 1rem 1.25rem 4rem; }}
h1 {{ font-size: 1.6rem; margin: 0.5rem 0 0; overflow-wrap: anywhere; }}
h2 {{ font-size: 1.25rem; margin: 2.5rem 0 0.5rem; border-bottom: 1px solid; padding-bottom: 0.2rem; }}
h3 {{ font-size: 1.05rem; margin: 1.5rem 0 0.25rem; }}
h4 {{ font-size: 1rem; margin: 1rem 0 0.25rem; }}
p, li {{ overflow-wrap: anywhere; }}
code, .mono {{ font: 0.9em ui-monospace, monospace; overflow-wrap: anywhere; }}
.verdict {{ border: 2px solid; border-radius: 6px; padding: 0.6rem 1rem; margin: 1rem 0; font-size: 1.15rem; }}
.verdict p {{ margin: 0.25rem 0; font-size: 0.95rem; }}
.soft {{ opacity: 0.8; }}
table {{ max-width: 100%; }}
@media screen and (max-width: 56rem) {{  /* what is wider scrolls, with a shadow where it goes on */
  table {{ display: block; overflow-x: auto; background:
    linear-gradient(to left, var(--paper) 40%, transparent) right / 2rem 100% no-repeat local,
    linear-gradient(to left, gray, transparent) right / 0.5rem 100% no-repeat; }}
  caption {{ display: block; }}
}}
nav ul {{ columns: 2; padding-left: 1.2rem; }}
@media print {{
  body {{ max-width: none; font-size: 10.5pt; padding: 0; }}
  nav {{ display: none; }}
  h2, h3, h4 {{ break-after: avoid; }}
  tr, .fg-chart, .verdict {{ break-inside: avoid; }}
  a {{ color: inherit; text-decoration: none; }}
}}
"""


def report_page(report: TraceReport, *, made: datetime, names: bool = False) -> str:
    """The report. With `names` samples are called by what the vault calls them, otherwise by their ids."""
    said = Said(report, names)
    told = ((name, title, Html("".join(say(said)))) for name, title, say in SECTIONS)
    sections = [one for one in told if one[2]]
    summary = draft(report)
    if summary is not None:
        sections.append(("ai-act", "EU AI Act: summary of training content (draft)", ai_act_html(summary)))
    links = "".join(f'<li><a href="#{name}">{escape(title)}</a></li>' for name, title, _ in sections)
    about = f'trace <span class="mono">{report.trace_id}</span>; made {made:%Y-%m-%d %H:%M} UTC'
    body = [
        f'<header><h1>Report on {escape(report.name)}</h1><p class="soft">{about}</p></header>',
        _verdict(report),
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        *(section_html(name, title, inner) for name, title, inner in sections),
    ]
    return page(f"Report on {report.name}", body)


def page(title: str, body: Sequence[str]) -> str:
    """A whole page that stands by itself."""
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    head = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="referrer" content="no-referrer">\n<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>'
    )
    return f"{head}\n<body>\n<main>\n" + "\n".join(body) + "\n</main>\n</body>\n</html>\n"


def _verdict(report: TraceReport) -> Html:
    """The verdict first, with every check that does not hold."""
    verified = report.verified
    counts = {v: sum(f.verdict is v for f in verified.findings) for v in Verdict}
    said = ", ".join(f"{n} {'hold' if v is Verdict.HOLDS else v}" for v, n in counts.items() if n)
    failures = "".join(
        f"<p>{verdict_mark(f.verdict)}: {escape(f.check)}: {escape(f.words)}</p>" for f in verified.failures()
    )
    kind = {Verdict.HOLDS: "holds", Verdict.REFUTED: "refuted"}.get(verified.verdict, "unsure")
    warning = "<p>What follows is what the files say. Do not rely on it.</p>" if kind == "refuted" else ""
    return Html(
        f'<section class="verdict fg-verdict fg-{kind}" aria-label="Verdict">{verdict_mark(verified.verdict)}'
        f"<p>Every file was read again as this report was made: of {len(verified.findings)} checks {said}.</p>"
        f"{failures}{warning}</section>"
    )
