"""The Tabler icons as they are published: 4,947 drawings with tags, in the 30 categories of at least 40 icons.

From the npm packages `@tabler/icons` (names, categories, tags) and `@tabler/icons-png` (240 x 240 RGBA), MIT licence.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VERSION = "3.48.0"
LIST, PNG = "@tabler/icons", "@tabler/icons-png"
LEAST = 40  # icons in a category
SMALL_CATEGORIES = 6


@dataclass(frozen=True, slots=True, eq=False)
class Icons:
    """Icons in order of their names; `labels` (n,) int64 count `categories`, and `all_categories` are those of the
    whole set, also the ones that are left out. `tags` are lower-case texts, sorted, each once."""

    names: tuple[str, ...]
    labels: NDArray[np.int64]
    categories: tuple[str, ...]
    all_categories: tuple[str, ...]
    tags: tuple[tuple[str, ...], ...]
    drawings: Path

    def __len__(self) -> int:
        return len(self.names)

    def path(self, node: int) -> Path:
        """Where the drawing of one icon is."""
        return self.drawings / f"{self.names[node]}.png"

    def drawing(self, node: int) -> bytes:
        """The PNG file of one icon."""
        return self.path(node).read_bytes()

    def source(self, node: int) -> bytes:
        """What is known of one icon before any preprocessing: its tags and its PNG file."""
        return "\n".join(self.tags[node]).encode() + b"\n\n" + self.drawing(node)


def load_icons(folder: Path, small: bool = False) -> Icons:
    """The icons in a folder that `npm install` filled (it holds `node_modules`), or in its `node_modules`.

    With `small`, only those of the six smallest categories. FileNotFoundError for a missing file, ValueError for
    another version and for what is no such list or no folder. Drawings are looked for, and not opened.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder; name the one that npm installed the icons in")
    modules = folder / "node_modules" if (folder / "node_modules").is_dir() else folder
    for package in (LIST, PNG):
        check_version(modules / package)
    drawings = modules / PNG / "icons" / "outline"
    known = read_list(modules / LIST / "icons.json")
    counts = Counter(icon["category"] for icon in known.values())
    categories = sorted(category for category, count in counts.items() if count >= LEAST)
    if not categories:
        raise ValueError(
            f"{modules / LIST / 'icons.json'} has no category of {LEAST} icons; fetch {LIST}@{VERSION} again"
        )
    if small:
        categories = sorted(sorted(categories, key=lambda category: (counts[category], category))[:SMALL_CATEGORIES])
    names = sorted(name for name, icon in known.items() if icon["category"] in categories)
    number = {category: n for n, category in enumerate(categories)}
    for name in names:
        if not (drawings / f"{name}.png").is_file():
            raise FileNotFoundError(f"{drawings} has no {name}.png; fetch {PNG}@{VERSION} again")
    return Icons(
        names=tuple(names),
        labels=np.array([number[known[name]["category"]] for name in names], dtype=np.int64),
        categories=tuple(categories),
        all_categories=tuple(sorted(counts)),
        tags=tuple(read_tags(known[name]["tags"]) for name in names),
        drawings=drawings,
    )


def check_version(package: Path) -> None:
    """FileNotFoundError where a package is missing, ValueError where it has another version."""
    try:
        found = json.loads((package / "package.json").read_bytes())["version"]
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"{package} is missing; fetch both with: npm install --prefix DIR {LIST}@{VERSION} {PNG}@{VERSION}, "
            "and name DIR with --data-dir"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{package / 'package.json'} tells no version: {error}; fetch the package again") from error
    if found != VERSION:
        raise ValueError(f"{package} has version {found!r}, and the demo needs {VERSION}; fetch that one")


def read_list(path: Path) -> dict[str, Any]:
    """The list of icons by name. ValueError for what is none."""
    try:
        known = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is no JSON: {error}; fetch {LIST}@{VERSION} again") from error
    icons = known.values() if isinstance(known, dict) else [None]
    if not all(isinstance(icon, dict) and is_described(icon) for icon in icons):
        raise ValueError(f"{path} does not give each icon a category and tags; fetch {LIST}@{VERSION} again")
    return dict(known)


def is_described(icon: dict[str, Any]) -> bool:
    """Whether an icon has a category, and a list of tags."""
    return isinstance(icon.get("category"), str) and isinstance(icon.get("tags"), list)


def read_tags(tags: list[Any]) -> tuple[str, ...]:
    """Tags as lower-case texts, sorted, each once: some are numbers in the list, and some null."""
    return tuple(sorted({str(tag).strip().lower() for tag in tags if tag is not None}))
