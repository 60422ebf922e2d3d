"""Whose samples are: every subject that can be registered can be audited, proved and erased; nobody's stay."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.data import TensorDataset

import fgtrac
from erasable import files_with, trace_id
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.run import start_run
from fgtrac.api.vault_audit import vault_demand
from fgtrac.verify.report import Finding, Verdict

SUBJECTS = ["ann", -1, 7, "7", "-1", (1 << 64) - 1, -(1 << 63), None, "", "007", None, "ann"]
KEYS = [f"scan-{row:02}" for row in range(len(SUBJECTS))]


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Samples of all kinds of subjects; of a stage one child of ann's alone, one of nobody's, one of several."""
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    people = TensorDataset(torch.arange(len(SUBJECTS)))
    with start_run(tmp_path / "run") as run:
        run.register(people, name="people", key=KEYS, subject=SUBJECTS, role="train")
        run.transform("crops", people).record(TensorDataset(torch.arange(3) + 100), parents=[[0, 11], 7, [0, 1]])
    return tmp_path / "run.trace"


def audited(trace: Path) -> Finding:
    report = fgtrac.open(trace).verify(demands=[vault_demand(trace.with_suffix(".vault"), trace_id(trace))])
    assert {f.check for f in report.failures()} <= {"vault"}
    (found,) = [f for f in report.findings if f.check == "vault"]
    return found


def test_the_vault_gives_every_id(trace: Path) -> None:
    found = audited(trace)
    assert found.verdict is Verdict.HOLDS
    assert f"all {len(SUBJECTS) + 3} registered ids" in found.words


def test_each_sample_is_proved_and_named(trace: Path, tmp_path: Path) -> None:
    opened = fgtrac.open(trace)
    for key in KEYS:
        bundle = tmp_path / "bundle.json"
        bundle.write_bytes(opened.prove(f'people:key:"{key}"'))
        assert opened.find(f'key:"{key}"').opening is not None
        report = verify_bundle(bundle, key=str(tmp_path / "key.pem"), about=f'people:key:"{key}"')
        assert report.verdict is Verdict.HOLDS


@pytest.mark.parametrize("subject", [s for s in dict.fromkeys(SUBJECTS) if s is not None])
def test_each_subject_is_erased_and_nobody_else(trace: Path, subject: int | str) -> None:
    mine = [key for key, whose in zip(KEYS, SUBJECTS, strict=True) if (type(whose), whose) == (type(subject), subject)]
    (done,) = fgtrac.erase(trace, subject=subject)
    crops = 1 if subject == "ann" else 0  # of both her scans: the one that is mixed with another's is nobody's
    assert (done.samples, done.names) == (len(mine) + crops, len(mine) + crops)
    assert files_with(trace.parent, *(key.encode() for key in mine)) == set()
    opened = fgtrac.open(trace)
    for key in set(KEYS) - set(mine):
        assert opened.find(f'key:"{key}"').opening is not None
    found = audited(trace)
    assert found.verdict is Verdict.CANNOT_TELL
    assert f"{len(mine) + crops} are of erased subjects" in found.words
    assert "no name or no secret" not in found.words
