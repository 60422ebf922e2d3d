"""What the verbs of an opened trace share: its newest full seal, vault and names, each read when first needed."""

from __future__ import annotations

from functools import cached_property

from fgtrac.api.explain import Explainer
from fgtrac.api.naming import Named, Namer
from fgtrac.api.prior import trace_id_of
from fgtrac.api.trust import trusted_verifier
from fgtrac.commit.state import count_unsealed
from fgtrac.errors import ProofError, TamperError
from fgtrac.query.attention import AttentionReader
from fgtrac.query.blocks import Blocks
from fgtrac.query.history import Historian
from fgtrac.query.prove import Prover
from fgtrac.query.seals import FullSeal, open_full_seal
from fgtrac.query.subject import SubjectReader
from fgtrac.store.trace_dir import ORIGIN_PREFIX, TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.note import parse_note
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.keys import follow, rotations_of

EAGER_ENTRIES = 1 << 14  # up to here `open` looks for the data sets and checkpoints, so that the first answer is fast


class OpenedTrace:
    """A trace whose answers rest on its newest full seal; `key` names the public key whose signature counts."""

    def __init__(self, directory: TraceDir, key: str | None) -> None:
        self.path = directory.path
        self.id = trace_id_of(directory)
        self._directory = directory
        self._key = key

    def find(self, sample: str) -> Named:
        """The id behind a sample's name, registered or not. ValueError for a name that says nothing here."""
        return self._namer.find(sample)

    def remark(self, sample: str) -> str:
        """What the name may be mistaken for: `NAME:ROW` where keys were given is a key, and no row. Mostly empty."""
        return self._namer.remark(sample)

    @cached_property
    def pending(self) -> int:
        """How many entries are in no index yet: sealed after the newest full seal, or still in the journal."""
        head = self._directory.head()
        plain = head.size - self._seal.head.size if head is not None else 0
        return plain + count_unsealed(self._directory)

    @cached_property
    def _seal(self) -> FullSeal:
        seal = open_full_seal(self._directory)
        if seal.head.origin != ORIGIN_PREFIX + self.id.hex():
            raise TamperError(
                f"index/{seal.head.size}/checkpoint is a head of {seal.head.origin!r:.80}, not of this trace"
            )
        return seal

    @cached_property
    def _rests_on(self) -> str:
        """What stands behind the root. ProofError where a signature by the trusted key is wrong, or, where the key was
        named, missing."""
        verifier, whose = trusted_verifier(self._key, self.id, note=self._seal.note)
        if verifier is None:
            return f"as its log says, whose signature was not checked: {whose}"
        log, count = self._seal.log, self._seal.event["counts"].get("key", 0)
        rotations = rotations_of((n, log.event(n)) for n in log.find_kind("key", count))
        try:
            follow(verifier, self._seal.note, rotations)
        except ProofError as error:
            lines = parse_note(self._seal.note).signatures
            if self._key is None and not any((s.name, s.key_id) == (verifier.name, verifier.key_id) for s in lines):
                return "as its log says, whose signature was not checked: it is not by your own; name the one it is by"
            raise ProofError(f"index/{self._seal.head.size}/checkpoint: {error}") from error
        except CannotTell as reason:
            return f"as its log says, whose signature says nothing here: {reason}"
        return f"as signed with {whose}"

    @cached_property
    def _historian(self) -> Historian:
        return Historian(self._seal, self._namer.name_of)

    @cached_property
    def _attention(self) -> AttentionReader:
        return AttentionReader(self._seal, self._historian.timeline)

    @cached_property
    def _subjects(self) -> SubjectReader:
        return SubjectReader(self._seal, self._blocks, self._historian, self._namer.name_of)

    @cached_property
    def _prover(self) -> Prover:
        return Prover(self._seal, self._historian.timeline)

    @cached_property
    def _explainer(self) -> Explainer:
        return Explainer(self._directory, self._seal, self._blocks, self._namer, self._attention)

    @cached_property
    def _blocks(self) -> Blocks:
        return Blocks(self._seal.log, self._seal.event["counts"].get("samples", 0))

    @cached_property
    def _namer(self) -> Namer:
        log, count = self._seal.log, self._seal.event["counts"].get("dataset", 0)
        events = [log.event(n) for n in log.find_kind("dataset", count)]
        keys = {e["name"]: e.get("keys") for e in events}
        return Namer({e["name"]: e["id_scheme"] for e in events}, self._vault, keys)

    @cached_property
    def _vault(self) -> Vault | None:
        path = self._directory.vault_path
        return Vault.open(path, self.id) if path.exists() else None

    def _warm(self) -> None:
        if self._seal.head.size <= EAGER_ENTRIES and not self._directory.is_far:
            self._seal.warm()
            self._historian.kept_checkpoints()
            _ = self._namer
