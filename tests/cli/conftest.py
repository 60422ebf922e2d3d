"""Running the command line as a user does, in this process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from fgtrac.cli.main import main
from fgtrac.store.trace_dir import TraceDir
from lives import Life, live


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`fgtrac ARGUMENTS...` by a user who has no key; wide, so that nothing is folded."""
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "no-key.pem"))
    monkeypatch.setenv("COLUMNS", "400")

    def command(*arguments: object) -> Done:
        monkeypatch.setattr("sys.argv", ["fgtrac", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        written = capsys.readouterr()
        return Done(int(stopped.value.code or 0), written.out, written.err)

    return command


@pytest.fixture(scope="session")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Life:
    return live(tmp_path_factory.mktemp("lived"), vault=True)


@pytest.fixture
def life(lived: Life, tmp_path: Path) -> Life:
    """A copy of a trace with its vault, to be tampered with."""
    shutil.copytree(lived.path.parent, tmp_path / "life")
    return replace(lived, made=replace(lived.made, trace=TraceDir(tmp_path / "life" / lived.path.name)))
