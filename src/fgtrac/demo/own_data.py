"""The data of both demos, as `fgtrac ui TRACE --with FILE.py:FUNCTION` takes them: each demo ends with that command.

FGTRAC_DEMO_DATA names the folder of data that a demo was given with --data-dir.
"""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

FOLDER = "FGTRAC_DEMO_DATA"


def digits() -> dict[str, Any]:
    """The data sets of `fgtrac demo cnn`."""
    return _digits(small=False)


def small_digits() -> dict[str, Any]:
    """The data sets of `fgtrac demo cnn --small`."""
    return _digits(small=True)


def icons() -> dict[str, Any]:
    """The nodes of `fgtrac demo graph`, by name."""
    from fgtrac.demo.graph.fetch import cache_folder
    from fgtrac.demo.graph.icons import load_icons
    from fgtrac.demo.graph.prepare import NAME

    return {NAME: _Drawings(load_icons(_folder() or cache_folder(os.environ)))}


class _Drawings:
    """Icons by name: the drawing, and the source that was registered."""

    def __init__(self, icons: Any) -> None:
        self._icons = icons
        self._nodes = {name: node for node, name in enumerate(icons.names)}

    def __getitem__(self, name: str) -> tuple[Any, str]:
        from PIL import Image

        node = self._nodes[name]
        category: str = self._icons.categories[int(self._icons.labels[node])]
        return Image.open(self._icons.path(node)), category

    def source(self, name: str) -> bytes:
        """The bytes that the demo's `source=` gives."""
        octets: bytes = self._icons.source(self._nodes[name])
        return octets


def ui_command(trace: Path, function: str, data_dir: Path | None) -> str:
    """The command that shows a demo's trace with pictures."""
    words = shlex.join(["fgtrac", "ui", str(trace), "--with", f"{Path(__file__)}:{function}"])
    return words if data_dir is None else f"{FOLDER}={shlex.quote(str(data_dir.resolve()))} {words}"


def _digits(*, small: bool) -> dict[str, Any]:
    from fgtrac.demo.cnn import SEED
    from fgtrac.demo.data import load_images, plant
    from fgtrac.demo.prepare import data_sets

    return data_sets(plant(load_images(_folder(), small), SEED), SEED)


def _folder() -> Path | None:
    named = os.environ.get(FOLDER)
    return Path(named) if named else None
