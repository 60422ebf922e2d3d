"""The frame of a chart: an SVG of classes, with a name, a description, a heading, axes and a legend."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fgtrac.drawing.html import Html, escape, short
from fgtrac.drawing.scale import Axis
from fgtrac.drawing.style import SERIES

WIDTH = 720
LETTER = 7.6  # width of a digit of a wide font (DejaVu Sans), in the units of the drawing
LINE = 16  # height of a line of text


@dataclass(slots=True)
class Canvas:
    """A drawing that is being made, with the place (left, top, right, bottom) of what the axes enclose."""

    title: str
    height: float
    left: float = 8
    top: float = 32
    right: float = WIDTH - 8
    bottom: float = 0
    parts: list[str] = field(default_factory=list)

    def text(self, x: float, y: float, words: object, kind: str = "") -> None:
        """Words, cut where they are very long; `kind` are classes."""
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(short(words, 80))}</text>')

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line."""
        self.parts.append(f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>')

    def box(self, x1: float, y1: float, x2: float, y2: float, kind: str, says: str) -> None:
        """A filled rectangle between two corners in any order, at least one unit each way, which tells what it is."""
        x, y, width, height = min(x1, x2), min(y1, y2), max(1.0, abs(x2 - x1)), max(1.0, abs(y2 - y1))
        self.parts.append(
            f'<rect class="fg-fill {kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}">'
            f"{named(says)}</rect>"
        )

    def dot(self, x: float, y: float, kind: str, says: str, radius: float = 3) -> None:
        """A filled circle, which tells what it is."""
        self.parts.append(
            f'<circle class="fg-fill {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:g}">{named(says)}</circle>'
        )

    def upright_axis(self, axis: Axis, words: str) -> None:
        """Grid lines and labels at the left; the space that they need is taken from `left`."""
        self.left += max((len(word) for word in axis.words), default=0) * LETTER + 6
        for tick, label in zip(axis.ticks, axis.words, strict=True):
            y = self.y(axis, tick)
            self.line(self.left, y, self.right, y, "fg-axis" if tick == 0 else "fg-grid")
            self.text(self.left - 6, y + 4, label, "fg-end fg-soft")
        if words:
            self.text(8, self.top - 8, words, "fg-soft")

    def level_axis(self, axis: Axis, words: str) -> None:
        """The line, ticks and labels below."""
        self.line(self.left, self.bottom, self.right, self.bottom, "fg-axis")
        free = self.left - 8
        for tick, label in zip(axis.ticks, axis.words, strict=True):
            x, half = self.x(axis, tick), len(label) * LETTER / 2
            if x - half < free or x + half > WIDTH:
                continue
            self.line(x, self.bottom, x, self.bottom + 4, "fg-axis")
            self.text(x, self.bottom + LINE + 2, label, "fg-middle fg-soft")
            free = x + half + LETTER
        if words:
            self.text((self.left + self.right) / 2, self.bottom + 2 * LINE + 2, words, "fg-middle fg-soft")

    def legend(self, names: Sequence[tuple[str, str]]) -> None:
        """Names with their colours (classes), at the right of the heading's line."""
        x = WIDTH - 8 - sum(len(short(name, 40)) * LETTER + 26 for name, _ in names)
        for name, kind in names:
            self.box(x, 8, x + 10, 18, kind, name)
            self.text(x + 15, 17.5, short(name, 40))
            x += len(short(name, 40)) * LETTER + 26

    def x(self, axis: Axis, value: float) -> float:
        """Where a value lies from left to right."""
        return self.left + float(axis.share(value)) * (self.right - self.left)

    def y(self, axis: Axis, value: float) -> float:
        """Where a value lies from the bottom to the top."""
        return self.bottom - float(axis.share(value)) * (self.bottom - self.top)

    def done(self, says: Iterable[str]) -> Html:
        """The SVG. `says` are sentences that tell those who do not see it what it shows."""
        description = escape(" ".join(sentence for sentence in says if sentence))
        # In an image nothing has the focus.
        role = "group" if any(part.startswith("<a ") for part in self.parts) else "img"
        return Html(
            f'<svg class="fg-chart" role="{role}" viewBox="0 0 {WIDTH} {self.height:g}" xmlns="http://www.w3.org/2000/svg">'
            f"<title>{escape(short(self.title))}</title><desc>{description}</desc>"
            f'<text class="fg-heading" x="8" y="17.5">{escape(short(self.title, 80))}</text>{"".join(self.parts)}</svg>'
        )


def named(says: str) -> str:
    """The title of a part: what a browser shows beside the pointer."""
    return f"<title>{escape(short(says))}</title>"


def colour(i: int) -> str:
    """The class of the i-th series' colour."""
    return f"fg-s{i % SERIES}"
