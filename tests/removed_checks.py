"""Checks of a verification, taken out one at a time: lies that a check stops must then be believed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from fgtrac.errors import FgtracError, ProofError
from fgtrac.events.postings import PostingTable
from fgtrac.events.schema import decode_event
from fgtrac.verify import auditor
from fgtrac.verify.bundle import head_of
from fgtrac.verify.checks import CannotTell, Checks
from fgtrac.verify.facts import read_facts
from fgtrac.verify.report import Verdict
from fgtrac.verify.tree import check_entries, check_tiles, partials


def assert_believed_without(check: str, lies: Sequence[str], stage: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of these lies is stopped once the check is removed, and at least one of them is believed."""
    remove(check, monkeypatch)
    believed = []
    for name in lies:
        acts = [act for act in acts_of(name, stage) if check in act.checks]
        assert not any(act.is_kept for act in acts), f"{check} is removed, and {name} is still stopped by it"
        believed += [name for act in acts if act.answer.code == 0]
    assert believed, f"without the check {check} no lie is believed: another one does the same, or none needs it"


def acts_of(name: str, stage: Any) -> Iterator[Any]:
    """A script's acts, up to one in which a later check looks for what the removed one would have asked to be shown."""
    with suppress(KeyError):
        yield from importlib.import_module(name).tell(stage)


def remove(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the check hold whatever is examined; what later checks take over from it is taken as it is claimed."""
    make = Checks.make

    def without(self: Checks, check: str, examine: Callable[[], str], needs: Sequence[str] = ()) -> bool:
        if check != name:
            return make(self, check, examine, needs)
        believe = _BELIEVED.get(name)
        if believe is not None and hasattr(examine, "__self__"):  # a bundle's
            believe(examine.__self__)
        if all(f.verdict is Verdict.HOLDS for f in self.findings if f.check in needs):
            with suppress(CannotTell, FgtracError, OSError, ValueError):
                examine()
        return make(self, check, lambda: "removed")

    monkeypatch.setattr(Checks, "make", without)
    if name in ("entries", "tiles"):
        monkeypatch.setattr(auditor, "_check_log", _check_log)
    if name == "registered":
        monkeypatch.setattr(PostingTable, "add", _add_what_is_registered)


def _believe_seal(examination: Any) -> None:
    bundle = examination._bundle
    examination._head, examination._seal = head_of(bundle), decode_event(bundle.seal)


def _believe_entries(examination: Any) -> None:
    for shown in examination._bundle.entries:
        with suppress(FgtracError):
            examination._shown[shown.number] = decode_event(shown.entry)


_BELIEVED = {"seal": _believe_seal, "entries": _believe_entries}


def _check_log(audit: Any, log: Any, names: Any, reader: Any) -> None:
    """As the auditor's, but what entries say is read even where they do not lead to the root."""
    if not log.bad_bundle:
        audit.facts = read_facts(log, reader)
    older, left = partials(log, names, [size for size in audit.facts.full_seals if size < log.head.size])
    log.used.update(tile.path for tile in older + left)
    tiles_hold = audit.checks.make("tiles", lambda: check_tiles(log, older + left))
    audit.checks.make("entries", lambda: check_entries(log, older + left, tiles_hold=tiles_hold))


_ADD = PostingTable.add


def _add_what_is_registered(table: PostingTable, number: int, event: Any) -> None:
    try:
        _ADD(table, number, event)
    except ProofError:
        return
