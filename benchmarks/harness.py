"""What benchmarks share: the --json contract, whose last line is one object with the figures, and an epoch of uses."""

from __future__ import annotations

import argparse
import json
import sys
from array import array
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from fgtrac.capture.recorder import Recorder
from fgtrac.capture.use_entries import Placement
from fgtrac.events.schema import ATTRIBUTION, STATUS


def parse_arguments() -> argparse.Namespace:
    """The command line: `json` where only the JSON line is wanted, `data_dir` a folder with the data or None."""
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="a folder with the data: IDX files of MNIST or Fashion-MNIST; of the graph, the icons",
    )
    return parser.parse_args()


def report(name: str, figures: Mapping[str, float | None], note: str = "") -> None:
    """Print the figures: a table for people, or with --json one object. None is what was not measured."""
    as_json = parse_arguments().json
    if note:
        print(note)
    if as_json:
        print(json.dumps({"benchmark": name, "figures": figures}))
    else:
        for figure, value in figures.items():
            print(f"{name:>18}  {figure:<30} " + ("not measured" if value is None else f"{value:,.4g}"))


def use_all(recorder: Recorder, placement: Placement, epoch: int, batch: int, generator: np.random.Generator) -> int:
    """Record an epoch that uses every sample once, in an order of its own; returns the step of its last update."""
    samples = len(placement.ordinals)
    order = array("I", generator.permutation(samples).astype(np.uint32).tobytes())
    step = epoch * -(-samples // batch)
    for number, start in enumerate(range(0, samples, batch)):
        step += 1
        row = (epoch, number, step, STATUS["applied"], ATTRIBUTION["exact"])
        recorder.use(placement, 1, 1, row, order[start : start + batch])
    recorder.flush()
    return step
