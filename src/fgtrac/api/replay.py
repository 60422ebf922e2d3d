"""The check `samplers`: the order of every announced epoch, drawn again and held against the batches in the log.

What was announced binds whoever signs only if a head with the `sampler` entry was out of their hands before the epoch
began.
"""

from __future__ import annotations

from pathlib import Path

from fgtrac.api.announced_orders import AnnouncedOrders, read_parameters, vault_beside
from fgtrac.api.audit import REPLAY, Demand
from fgtrac.errors import ProofError
from fgtrac.store.vault import Vault
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.passes import Comparison, Pass, compare, read_passes
from fgtrac.verify.updates import counted, read_updates

NAMED = 3  # epochs named in one sentence; the others are counted
BINDING = (
    "it binds whoever signs only where a head with those entries was anchored or handed out before the epoch began"
)
UNEXPLAINED = "whether the loop did so, entries were lost, or somebody wrote it, nobody can tell"


def replay_demand(trace_path: Path, trace_id: bytes, vault_path: Path | None = None) -> Demand:
    """The check, to be made with `verify`. The vault opens the commitments of traces whose ids are not public: the one
    at `vault_path`, which must be of this trace (errors as `Vault.open`), by default the one beside the trace."""
    vault, no_vault = (
        vault_beside(trace_path, trace_id) if vault_path is None else (Vault.open(vault_path, trace_id), "")
    )

    def examine(trace: TraceFiles, audit: Audit) -> str:
        return _Replay(trace, audit, vault, no_vault).examine()

    return Demand(REPLAY, examine, ("entries", "registered"))


class _Replay:
    def __init__(self, trace: TraceFiles, audit: Audit, vault: Vault | None, no_vault: str) -> None:
        assert audit.log is not None
        self._log = audit.log
        self._facts = audit.facts
        self._orders = AnnouncedOrders(trace, [(a.sha256, a.path) for a in audit.facts.artifacts], vault, no_vault)

    def examine(self) -> str:
        """Why it holds, in words; raises where it does not."""
        passes = read_passes(self._log.entries())
        announced = [one for one in passes if one.number >= 0]
        if not announced:
            raise CannotTell("no sampler entry announces the order of an epoch: there is nothing to draw again")
        updates = read_updates(self._log.entries())
        refuted, unknown = list(updates.wrong), list[str]()
        held = batches = 0
        for one in passes:
            try:
                result, order_batches = self._replay(one)
            except CannotTell as reason:
                unknown.append(f"{one.words}: {reason}")
                continue
            wrong, doubts = _judge(one, result, order_batches)
            refuted += wrong
            unknown += doubts
            if not wrong and not doubts:
                held, batches = held + 1, batches + order_batches
        if refuted:
            raise ProofError(_some(refuted))
        epochs, size = counted(len(passes), "epoch"), counted(batches, "batch", "es")
        told = f"{held} of {epochs} ({size}) have the order that their sampler entries announced"
        doubts = [f"of the others nobody can tell: {_some(unknown)}"] if unknown else []
        if updates.doubtful:
            doubts.append(f"the log has {', '.join(updates.doubtful)}: {UNEXPLAINED}")
        if doubts:
            raise CannotTell("; ".join([told, *doubts]))
        return f"{told}, drawn again with torch, and {updates.words}; {BINDING}"

    def _replay(self, one: Pass) -> tuple[Comparison, int]:
        """Draw the order of a pass and compare; also its number of batches. CannotTell where it cannot be drawn."""
        if one.number < 0 and not one.uses:
            raise CannotTell("no entry is about it, and later epochs have some: nothing was read, or it was left out")
        if one.number < 0:
            raise CannotTell(f"no sampler entry announces it, and entry {one.uses[0]} has batches of it")
        said = read_parameters(one.event)
        if not one.uses and not said.get("drop_last"):
            raise CannotTell("none of its batches is in the log: none was delivered, or they were left out")
        order = self._orders.draw(one)
        return compare(one, order, self._log.entries(one.uses), self._name), len(order)

    def _name(self, block: bytes, ordinal: int) -> str:
        ids = self._facts.ids_of(block)
        if ordinal >= len(ids):
            return f"ordinal {ordinal} of block {block.hex()}, which is not registered"
        return f"sample {ids[ordinal].tobytes().hex()}"


def _judge(one: Pass, result: Comparison, batches: int) -> tuple[list[str], list[str]]:
    """What is wrong with a pass, and what nobody can tell of it, in words."""
    wrong, doubts = list(result.differs), []
    which = f"{one.words}, announced by entry {one.number}"
    if result.missing:
        first, more = result.missing[0], len(result.missing) - 1
        words = f"batch {first}{f' and {more} more' if more else ''} of its order is in no entry, and later ones are"
        if one.may_be_cut:
            doubts.append(f"{which}: {words}: {one.may_be_cut}")
        else:
            wrong.append(f"{which}: {words}")
    doubts += result.doubtful
    if result.tail:
        last = f"batch of {batches} was" if result.tail == 1 else f"{result.tail} of {batches} batches were"
        doubts.append(f"{which}: its last {last} never delivered, or left out")
    if one.unread:
        batch, number = next(iter(one.unread.items()))
        doubts.append(f"{one.words}: entry {number} says that batch {batch} of its order never reached the loop")
    return wrong, doubts


def _some(words: list[str]) -> str:
    more = f"; and {len(words) - NAMED} more" if len(words) > NAMED else ""
    return "; ".join(words[:NAMED]) + more
