"""A run's log is new to a witness: its owner is given `run.vkey` while the training goes on, and it is asked again."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from fgtrac.anchor import background
from fgtrac.api.anchoring import complete_pending
from fgtrac.api.run import start_run
from fgtrac.api.summary import summarize
from fgtrac.errors import RefusedError
from loopback_witness import LoopbackWitness


def test_a_witness_that_learns_of_the_log_later_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.01)
    witness, key = LoopbackWitness(), tmp_path / "key.pem"
    witness.mode = "new"
    with (
        witness.running(),
        warnings.catch_warnings(record=True) as said,
        start_run(tmp_path / "run", key=key, anchors=[witness.service()]) as run,
    ):
        warnings.simplefilter("always")
        assert run.vkey == summarize(run.path).vkey
        run.log(0, loss=0.5)
        (unknown,) = run.anchor(wait_s=0.2)
        assert unknown.reason.startswith(f"{unknown.name} answers 404: it does not know the log")
        assert not isinstance(unknown.error, RefusedError)
        witness.mode = "well"
        (known,) = run.anchor()
        assert known.receipt
    (warning,) = said
    assert str(warning.message).count(unknown.name) == 1
    assert len(witness.sizes) == 2  # the later head, and the one at the end
    assert complete_pending(run.path, key=key) == ()


def test_a_log_that_nobody_has_added_by_the_end_stays_pending(tmp_path: Path) -> None:
    witness, key = LoopbackWitness(), tmp_path / "key.pem"
    witness.mode = "new"
    with witness.running():
        with (
            pytest.warns(RuntimeWarning, match="has to add that log with its vkey"),
            start_run(tmp_path / "run", key=key, anchors=[witness.service()]) as run,
        ):
            run.log(0, loss=0.5)
        witness.mode = "well"
        (done,) = complete_pending(run.path, key=key)
    assert done.receipt
