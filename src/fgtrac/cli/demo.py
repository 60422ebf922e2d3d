"""`fgtrac demo cnn`: the main job on real images, from source data to proofs and caught lies."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from fgtrac.cli.console import AsJson, answers, print_json


def demo(
    name: Annotated[Literal["cnn"], typer.Argument(help="which demo")],
    out: Annotated[Path | None, typer.Option(help="keep the trace as OUT.trace")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="a folder with MNIST or Fashion-MNIST IDX files")] = None,
    small: Annotated[bool, typer.Option("--small", help="scikit-learn's 1,797 digits in place of MNIST")] = False,
    anchor: Annotated[
        Literal["evm"] | None,
        typer.Option(help="also anchor the trace in a contract, on a chain in this process (needs fgtrac[evm])"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a real CNN with and without fgtrac, and show, prove and attack what was recorded."""
    try:
        module = importlib.import_module(f"fgtrac.demo.{name}")
    except ModuleNotFoundError as error:
        raise ValueError(f"the demo needs {error.name}: pip install 'fgtrac[demo]'") from error
    console = Console(quiet=True) if as_json else answers()
    progress = Console(stderr=True)
    figures = module.run_demo(
        out=out, data_dir=data_dir, small=small, anchor=anchor, console=console, progress=progress
    )
    if as_json:
        print_json(figures)
    if figures["failures"]:
        raise typer.Exit(1)
