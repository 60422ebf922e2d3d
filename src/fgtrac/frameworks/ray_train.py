"""Ray Train: the workers of a trainer record one trace, each as a rank of it.

    def loop(config):                                            # on each worker
        with ray_train.start_run("/shared/runs/cnn") as run:
            loader = prepare_data_loader(run.watch(loader, role="train"))
            ...
    ray_train.fit(TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=2)), "/shared/runs/cnn")

All else is what docs/distributed.md says of ranks. A worker that is lost is a `gap`, also where Ray then ends rank 0.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray.train
import torch.distributed as dist
from ray.train.v2._internal.execution.context import get_train_context  # no public one tells a run from its namesake

from fgtrac.api import prior
from fgtrac.api.lost_ranks import say_lost
from fgtrac.api.rank_group import see_one_folder
from fgtrac.api.recording import Run
from fgtrac.api.run import start_run as _start_run
from fgtrac.api.sealing import NotPushedError
from fgtrac.errors import FgtracError
from fgtrac.store.trace_dir import TraceDir

STARTED_BY = "ray train run"  # in the config that the log keeps: by it a restart of Ray's is recognised


def start_run(
    path: str | os.PathLike[str],
    *,
    config: Mapping[str, Any] | None = None,
    gather: bool | None = None,
    resume: bool | None = None,
    **options: Any,
) -> Run:
    """`fgtrac.start_run` on one worker of Ray Train; every worker calls it, with the same arguments.

    `path` is absolute, since each worker has a working folder of its own. By default the workers look whether they see
    one folder there, and where they do not, gather: rank 0 has the trace, on its host. By default, too, a trace at the
    path is gone on with exactly where this call of `fit` began it, so that `FailureConfig(max_failures=...)` needs no
    word more; give `step=` where the state that training goes on from is not that of the trace's last checkpoint. One
    that another `fit` began, also one of the same name, is gone on with only where `resume=True` asks for it.

    Raises ValueError for a relative path, and for several workers without a torch process group where `gather` is
    asked for; otherwise as `fgtrac.start_run`.
    """
    folder = _trace_path(path)
    context = ray.train.get_context()
    count, rank = context.get_world_size(), context.get_world_rank()
    me = f"{context.get_experiment_name()} {_run_id()}"
    before = _config_of(folder) if rank == 0 and resume is not False else None
    known = dict(config or {}) | {STARTED_BY: me} if before is None else _as_before(config, before)
    goes_on = before is not None and before.get(STARTED_BY) == me if resume is None else resume
    if count > 1 and not (dist.is_available() and dist.is_initialized()):
        options |= {"rank": rank, "world_size": count}
        return _start_run(folder, config=known, resume=goes_on, gather=bool(gather), **options)
    if count == 1:
        return _start_run(folder, config=known, resume=goes_on, world_size=1, **options)
    if gather is None:
        gather = not see_one_folder(folder.parent)
    return _start_run(folder, config=known, resume=goes_on, gather=gather, **options)


def fit(trainer: Any, path: str | os.PathLike[str], *, key: str | os.PathLike[str] | None = None) -> Any:
    """`trainer.fit()`, and what it gives; however it ends, the trace at `path` is then sealed, and says of each worker
    that was lost that it was, where Ray ended rank 0 before that could.

    Where a training fails whose trace is on another host than this one, a RuntimeWarning says what to do there, and so
    it does where it cannot be sealed, or not pushed (FGTRAC_PUSH); the training's own error stands. ValueError for a
    relative path.
    """
    folder = _trace_path(path)
    before, has_failed = _written(folder), True
    try:
        result = trainer.fit()
        has_failed = False
        return result
    finally:
        try:
            if _written(folder) != before:
                say_lost(folder, key)
            elif has_failed:
                raise FileNotFoundError(f"nothing of it is in {folder} on this host")
        except NotPushedError as error:
            warnings.warn(f"fgtrac: the trace of this training is {error}", RuntimeWarning, stacklevel=2)
        except (FgtracError, OSError, ValueError) as error:
            words = f"the trace of this training is not closed: {error}; run fgtrac seal on the host where it lies"
            warnings.warn(f"fgtrac: {words}", RuntimeWarning, stacklevel=2)


def _trace_path(path: str | os.PathLike[str]) -> Path:
    base = Path(path)
    if not base.is_absolute():
        raise ValueError(
            f"{str(path)!r} is relative, and each Ray worker has a working folder of its own; give an absolute path, "
            "in a folder that all hosts share if there is one"
        )
    return base if base.suffix == ".trace" else base.with_name(base.name + ".trace")


def _run_id() -> str:
    """Ray's id of this call of `fit`: a name may be given to several. It stays where Ray starts workers anew."""
    return str(get_train_context().train_run_context.run_id)


def _written(folder: Path) -> list[int]:
    """When a trace was last written into, ns; nothing where there is none."""
    return [path.stat().st_mtime_ns for path in (folder / "journal", folder / "checkpoint") if path.exists()]


def _config_of(folder: Path) -> dict[str, Any] | None:
    """What the log of a trace there says of its config; None where there is no trace."""
    return dict(prior.run_entry(TraceDir.open(folder)).get("config") or {}) if folder.is_dir() else None


def _as_before(config: Mapping[str, Any] | None, before: Mapping[str, Any]) -> dict[str, Any] | None:
    """The caller's config, with whatever run of Ray Train began the trace: another one may go on with it."""
    return None if config is None else dict(config) | {k: v for k, v in before.items() if k == STARTED_BY}
