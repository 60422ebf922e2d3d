"""What every benchmark shares: the --json contract, whose last line is one object with the figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def parse_arguments() -> argparse.Namespace:
    """The command line: `json` is True where only the JSON line is wanted, `data_dir` a folder of IDX files or None."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--data-dir", type=Path, help="MNIST or Fashion-MNIST as IDX files, where images are used")
    return parser.parse_args()


def report(name: str, figures: dict[str, float], note: str = "") -> None:
    """Print the figures: a table for people, or with --json one object."""
    as_json = parse_arguments().json
    if note:
        print(note)
    if as_json:
        print(json.dumps({"benchmark": name, "figures": figures}))
    else:
        for figure, value in figures.items():
            print(f"{name:>18}  {figure:<30} {value:,.4g}")
