"""`fgtrac demo`: the main job on real images or on a real graph, from source data to proofs and caught lies."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from fgtrac.cli.console import AsJson, answers, print_json
from fgtrac.demo.graph.fetch import FetchError
from fgtrac.errors import not_installed

DEMOS = {"cnn": ("fgtrac.demo.cnn", "demo"), "graph": ("fgtrac.demo.graph.story", "graph")}  # module, extra


def demo(
    name: Annotated[
        Literal["cnn", "graph"], typer.Argument(help="a CNN on digits, or a graph network on icons with two modalities")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="keep the trace as OUT.trace, a page of pictures as OUT.html (and of graph its policies)"),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="a folder with MNIST or Fashion-MNIST IDX files, or with the icons' npm packages"),
    ] = None,
    small: Annotated[
        bool, typer.Option("--small", help="1,797 digits in place of MNIST, 274 icons in place of 4,947")
    ] = False,
    anchor: Annotated[
        Literal["evm"] | None,
        typer.Option(help="also anchor the trace in a contract, on a chain in this process (needs fgtrac[evm])"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a real network with and without fgtrac, and show, prove and attack what was recorded."""
    where, extra = DEMOS[name]
    try:
        module = importlib.import_module(where)
    except ModuleNotFoundError as error:
        raise not_installed("the demo needs", error.name, extra) from error
    console = Console(quiet=True) if as_json else answers()
    progress = Console(stderr=True)
    try:
        figures = module.run_demo(
            out=out, data_dir=data_dir, small=small, anchor=anchor, console=console, progress=progress
        )
    except FetchError as error:
        print(f"fgtrac: {error}", file=sys.stderr)
        raise typer.Exit(4) from error
    if as_json:
        print_json(figures)
    if figures["failures"]:
        raise typer.Exit(1)
