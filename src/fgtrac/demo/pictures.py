"""Grey images for people: as characters in a terminal, and on one HTML page with what is said of them."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fgtrac.api.explanation import Explanation, Scored

HALVES = np.array([" ", "▄", "▀", "█"])  # by (upper pixel is bright, lower pixel is bright)
MARGIN = 4  # MNIST's digits lie in the inner 20 x 20 of 28 x 28 (http://yann.lecun.com/exdb/mnist/)

NARROWEST = 20  # characters for the words below a picture

STYLE = """body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem}
figure{display:inline-block;margin:.5rem;text-align:center;width:8.5rem;vertical-align:top}
img{width:7rem;image-rendering:pixelated;border:.2rem solid #8884}
.for img{border-color:#2a7}.against img{border-color:#c43}figcaption{font-size:.8rem}
svg{display:block;margin:.2rem auto}"""


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """An image (height, width) uint8 with words under it; `trace` is a contribution trace, drawn as bars."""

    image: NDArray[np.uint8]
    words: tuple[str, ...]
    trace: tuple[float, ...] = ()


def in_characters(image: NDArray[np.uint8]) -> list[str]:
    """The inner part of an image, two pixels a character, bright ones where they are above the middle."""
    inner = image[MARGIN:-MARGIN, MARGIN:-MARGIN] if min(image.shape) > 4 * MARGIN else image
    bright = inner[: len(inner) // 2 * 2] > 127
    codes = 2 * bright[0::2].astype(int) + bright[1::2]
    return ["".join(row) for row in HALVES[codes]]


def side_by_side(pictures: Sequence[Picture], gap: int = 4) -> list[str]:
    """Pictures as lines of text, each with its words below it, broken where they are wider."""
    drawn = []
    for picture in pictures:
        lines = in_characters(picture.image)
        width = max(len(lines[0]), NARROWEST)
        drawn.append([*lines, *(line for words in picture.words for line in textwrap.wrap(words, width))])
    widths = [max(map(len, lines)) for lines in drawn]
    height = max(map(len, drawn))
    rows = [
        [(lines[i] if i < len(lines) else "").ljust(w) for lines, w in zip(drawn, widths, strict=True)]
        for i in range(height)
    ]
    return [(" " * gap).join(row).rstrip() for row in rows]


def page(title: str, sections: Sequence[tuple[str, str, Sequence[Picture]]], note: str) -> str:
    """An HTML page that stands alone: sections of (heading, class, pictures)."""
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for heading, kind, pictures in sections:
        figures = "".join(map(_figure, pictures))
        parts.append(f'<h2>{html.escape(heading)}</h2><div class="{kind}">{figures}</div>')
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{STYLE}</style>'
    return f"<!doctype html><html lang=en>{head}{''.join(parts)}<p>{html.escape(note)}</p></html>\n"


def _figure(picture: Picture) -> str:
    file = io.BytesIO()
    Image.fromarray(picture.image).save(file, "PNG")
    data = base64.b64encode(file.getvalue()).decode()
    words = "<br>".join(map(html.escape, picture.words))
    alt = html.escape(picture.words[0], quote=True)
    image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}{_bars(picture.trace)}<figcaption>{words}</figcaption></figure>"


def _bars(trace: Sequence[float]) -> str:
    """A contribution trace: one bar for each checkpoint, up where it lowered the loss."""
    largest = max((abs(v) for v in trace), default=0.0)
    if not largest:
        return ""
    bars = ""
    for i, share in enumerate(trace):
        height, color = abs(share) / largest * 18, "#2a7" if share > 0 else "#c43"
        top = 20 - height if share > 0 else 20
        bars += f'<rect x="{12 * i + 1}" y="{top:.1f}" width="10" height="{height:.1f}" fill="{color}"/>'
    return f'<svg width="{12 * len(trace)}" height="40" role="img" aria-label="share of each checkpoint">{bars}</svg>'


def teachers(
    answer: Explanation, target: Picture, draw: Callable[[Scored], Picture], question: str, out: Path | None
) -> dict[str, Any]:
    """Who taught a wrong answer: the explanation of a target with pictures, also as a page at `out`."""
    (toward,) = answer.toward
    sides = [[draw(scored) for scored in side] for side in (toward.proponents, toward.opponents)]
    if out is not None:
        sections = [
            ("The wrong prediction", "", [target]),
            ("Proponents: they lowered its loss", "for", sides[0]),
            ("Opponents: they raised its loss", "against", sides[1]),
        ]
        note = f"{answer.basis}. Bars: the share of each checkpoint, at steps {', '.join(map(str, answer.steps))}."
        out.write_text(page(question, sections, note), encoding="utf-8")
    return {
        "answer": answer.as_json(),
        "basis": answer.basis,
        "steps": list(answer.steps),
        "pictures": [target, *(side[0] for side in sides if side)],
        "page": None if out is None else str(out),
        "adds_up": all(np.isclose(sum(s.trace), s.score, rtol=1e-4) for s in (*toward.proponents, *toward.opponents)),
    }
