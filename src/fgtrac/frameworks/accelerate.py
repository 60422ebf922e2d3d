"""Accelerate: the loaders that it has prepared are watched, and batches count as the loop gets them.

    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    loader = watch(run, loader, role="train")

`run.watch` does the same; here a loader that was not prepared, and a version that nobody knows, are said.
"""

from __future__ import annotations

from typing import TypeVar

import accelerate
from accelerate.data_loader import DataLoaderDispatcher, DataLoaderShard

from fgtrac.api.run import Run
from fgtrac.frameworks.lasting_run import LastingRun

FIRST, LAST = (1, 1), (1, 15)
Prepared = TypeVar("Prepared")


def watch(run: Run, loader: Prepared, role: str | None = None) -> Prepared:
    """Watch a loader that `prepare` gave back; the same loader. In a training of several processes each of them does
    so, in the run that it has joined.

    Raises ValueError for what was not prepared, and errors of `Run.watch`. Of a version that is not known a `gap` entry
    and a RuntimeWarning say so, CaptureError in a strict run.
    """
    if not isinstance(loader, DataLoaderShard | DataLoaderDispatcher):
        raise ValueError(
            f"Accelerate has not prepared this {type(loader).__name__}; call accelerator.prepare(...) first, and watch "
            "the loader that it gives back"
        )
    LastingRun(run, {}).check_version("Accelerate", accelerate.__version__, FIRST, LAST)
    run.watch(loader, role=role)
    return loader
