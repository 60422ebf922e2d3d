"""Entries of a kind in a log of many bundles: those that are looked through, and no others, must be there."""

from __future__ import annotations

import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.capture.recorder import Recorder
from fgtrac.commit.sequencer import seal
from fgtrac.commit.signer import Signer
from fgtrac.errors import TamperError
from fgtrac.query.log import SealedLog
from fgtrac.store.journal import JournalWriter
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import ENTRIES, Tile

TRACE_ID, WRITER = bytes(16), bytes(range(16))
ENTRIES_A_BUNDLE, BUNDLES = 256, 12
CHECKPOINTS = [300, 301, 1500, 3071]


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> TraceDir:
    folder = tmp_path_factory.mktemp("many-bundles")
    trace = TraceDir.create(folder / "run.trace")
    recorder = Recorder(JournalWriter(trace.journal, WRITER), WRITER, flush_interval_s=0)
    for number in range(ENTRIES_A_BUNDLE * BUNDLES):
        if number in CHECKPOINTS:
            recorder.record("checkpoint", {"step": number, "kept": False, "rule": "every:0"})
        else:
            recorder.record("metrics", {"step": number, "values": {"loss": 0.5}})
    recorder.close()
    seal(trace, Signer(TRACE_ID, Ed25519PrivateKey.generate(), folder / "head"), full=False, clock=time.time_ns)
    return trace


def log_of(trace: TraceDir) -> SealedLog:
    head = trace.head()
    assert head is not None
    return SealedLog(trace, head)


@pytest.mark.parametrize("is_located", [False, True])
def test_entries_of_a_kind_are_found_in_every_bundle_in_order(sealed: TraceDir, is_located: bool) -> None:
    log = log_of(sealed)
    if is_located:
        log.locate()
    assert log.find_kind("checkpoint", len(CHECKPOINTS)) == CHECKPOINTS


def test_bundles_behind_the_last_one_that_is_wanted_may_be_gone(sealed: TraceDir) -> None:
    gone = sealed.path / Tile(ENTRIES, 3, ENTRIES_A_BUNDLE).path  # walked beside the second, and not asked for
    kept = gone.rename(gone.with_name("kept"))
    try:
        assert log_of(sealed).find_kind("checkpoint", 2) == CHECKPOINTS[:2]
        with pytest.raises(TamperError, match="bundle 3 needs it"):
            log_of(sealed).find_kind("checkpoint", 3)
    finally:
        kept.rename(gone)
