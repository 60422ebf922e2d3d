"""`fgtrac seal` on a Ray cluster that goes away: one line, and it goes on elsewhere, to the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fgtrac.api.sealing import seal_trace
from fgtrac.cli.main import main
from fgtrac.commit.indexer import UNFINISHED
from fgtrac.store import index_build
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.npy import COLUMNS, column_path
from traces import make_trace

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))  # of traces.py
PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def columns(trace: TraceDir) -> dict[str, bytes]:
    return {name: trace.read(column_path(trace.full_seals()[-1], name)) for name in COLUMNS}


def test_a_seal_goes_on_after_its_cluster_went_away(
    passing_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(index_build, "FEWEST", 8)  # postings of a unit
    made = make_trace(tmp_path, uses=300)
    before = columns(made.trace)
    (made.trace.path / column_path(made.trace.full_seals()[-1], "values")).unlink()  # so that it is built again
    (tmp_path / "key.pem").write_bytes(PEM)
    (tmp_path / "key.pem").chmod(0o600)
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    stages = []

    def hear(stage: str, done: int, total: int) -> None:
        if total > 3 and done == 2:
            stages.append(stage)
            passing_cluster.kill()

    here = {"progress": hear, "memory_bytes": 1}
    monkeypatch.setattr("fgtrac.cli.seal.seal_trace", lambda path, **how: seal_trace(path, **how | here))
    monkeypatch.setattr("sys.argv", ["fgtrac", "seal", str(made.trace.path), "--engine", passing_cluster.client])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4
    assert len(stages) == 1
    out, said = capfd.readouterr()
    assert (out, said.count("\n")) == ("", 1)
    assert said.endswith("went away; what is done so far stays, and the same command goes on\n")
    unfinished = made.trace.path / UNFINISHED
    assert any(path.is_file() for path in unfinished.rglob("*"))
    seal_trace(made.trace.path, engine="local:2", memory_bytes=1)
    assert columns(made.trace) == before
    assert not unfinished.exists()
