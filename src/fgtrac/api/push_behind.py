"""Pushes behind seals: where FGTRAC_PUSH says that a trace goes, and what is told where it does not get there."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from fgtrac.api.push import push_trace
from fgtrac.store.file_digests import FileDigests
from fgtrac.store.object_storage import parse_url

SETTING = "FGTRAC_PUSH"


def pushed_to(path: Path, environment: Mapping[str, str] | None = None) -> str | None:
    """Where a trace goes after each of its seals, as FGTRAC_PUSH=s3://BUCKET/PREFIX says; None where it says nothing.
    ValueError where it is no such place."""
    said = (os.environ if environment is None else environment).get(SETTING)
    if not said:
        return None
    name = Path(os.path.abspath(path)).name
    url = f"{said.rstrip('/')}/{name}"
    try:
        parse_url(url)
    except ValueError as error:
        raise ValueError(
            f"{SETTING} names no place on object storage for {name}: set it to s3://BUCKET/PREFIX, or unset it"
        ) from error
    return url


class PushBehind:
    """Pushes a run's trace behind its seals, where FGTRAC_PUSH says so (`is_wanted`); what has not changed since the
    last time is not read again. ValueError, at once, where that is no place."""

    def __init__(self, path: Path) -> None:
        self._path, self._url = path, pushed_to(path)
        self._digests = FileDigests()
        self.is_wanted = self._url is not None

    def __call__(self) -> None:
        """Push. Where that fails nothing is lost: a RuntimeWarning says so, and the next push sends all."""
        if self._url is None:
            return
        try:
            push_trace(self._path, self._url, digests=self._digests)
        except Exception as error:  # noqa: BLE001 -- whatever a server answers, the run goes on
            words = not_pushed(self._path, self._url, error)
            warnings.warn(f"fgtrac: {self._path.name} was sealed and {words}", RuntimeWarning, stacklevel=3)


def not_pushed(path: Path, url: str, error: Exception) -> str:
    """Why a push behind a seal failed, and what to do."""
    why = str(error) or type(error).__name__
    return f"not pushed, as {SETTING} asks: {why}; later: fgtrac push {path} {url}"
