"""Icons for tests: those that `make test` fetched, and a made-up set in the same layout."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fgtrac.demo.graph.icons import LIST, PNG, VERSION

FETCHED = Path(__file__).parents[1] / ".venv/icons"


def fetched() -> Path:
    """The real icons; the test is left out where `make test` found no npm to fetch them with."""
    if not (FETCHED / "node_modules" / PNG / "package.json").is_file():
        pytest.skip(f"{FETCHED} holds no icons; make .venv/icons-ready fetches them, with npm")
    return FETCHED


def drawing(pixels: np.ndarray) -> bytes:
    """A PNG file (height, width) whose alpha channel these are, as Tabler's have it."""
    file = io.BytesIO()
    Image.merge("LA", (Image.new("L", pixels.shape[::-1]), Image.fromarray(pixels))).convert("RGBA").save(file, "PNG")
    return file.getvalue()


def made_up(folder: Path, icons: dict[str, dict[str, Any]], version: str = VERSION) -> Path:
    """A folder as npm fills it, with these icons, each drawn as a square."""
    modules = folder / "node_modules"
    drawings = modules / PNG / "icons" / "outline"
    drawings.mkdir(parents=True)
    (modules / LIST).mkdir(parents=True)
    for package in (LIST, PNG):
        (modules / package / "package.json").write_text(json.dumps({"version": version}))
    (modules / LIST / "icons.json").write_text(json.dumps(icons))
    square = np.zeros((240, 240), np.uint8)
    square[60:180, 60:180] = 255
    for name in icons:
        (drawings / f"{name}.png").write_bytes(drawing(square))
    return folder
