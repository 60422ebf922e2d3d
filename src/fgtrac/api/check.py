"""The verb `check`: the auditor's checks of the log, and policies over what it says."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fgtrac.api.bundles import read_id_key
from fgtrac.api.naming import Namer, TypedSubject, find_scope
from fgtrac.api.prior import trace_id_of
from fgtrac.api.read_by_workers import MEMORY, ByWorkers
from fgtrac.api.trust import trusted_verifier
from fgtrac.commit.state import count_unsealed
from fgtrac.drawing.html import table
from fgtrac.drawing.notebook import shown
from fgtrac.engine.opening import open_engine
from fgtrac.errors import FormatError
from fgtrac.events.identity import key_commitment, subject_commitment
from fgtrac.store.places import open_to_read
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.verify.auditor import Audit, audit_log
from fgtrac.verify.checks import CannotTell, no_verdict
from fgtrac.verify.one_moment import OneMoment
from fgtrac.verify.opt_outs import AtHand
from fgtrac.verify.policies import NEEDS, Ruling, judge
from fgtrac.verify.policy_file import BUILT_IN, MAX_BYTES, Policies, parse_policies
from fgtrac.verify.receipts import anchored_sizes
from fgtrac.verify.report import Report, Verdict
from fgtrac.verify.report_html import report_pieces
from fgtrac.verify.roster import Progress, Roster
from fgtrac.verify.sample_lists import parse_digests
from fgtrac.verify.uses import NONE

PIECE_BYTES = 1 << 18
FILES_AT_ONCE = 256
ROWS_AT_ONCE = 4096
SHOWN = 20  # violations of a policy that a notebook shows
COLUMNS = ("policy", "sample", "id", "step", "epoch", "entry", "hop", "out_of_reach", "superseded", "same_content_as")


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """The report of a check, with one finding a policy, and every violation behind it."""

    report: Report
    _roster: Roster
    _rulings: tuple[Ruling, ...]
    _name_of: Callable[[bytes], str | None]

    def _repr_html_(self) -> str:
        """For notebooks: the report, and the first violations of each broken policy."""
        rows = [[row.get(name) for name in COLUMNS] for row in self.violations(SHOWN)]
        more = sum(self.counts().values()) - len(rows)
        return shown(*report_pieces(self.report), table(COLUMNS, rows, caption="violations", more=more) if rows else "")

    def counts(self) -> dict[str, int]:
        """How many violations each broken policy has."""
        return {ruling.name: len(ruling.violations) for ruling in self._rulings if len(ruling.violations)}

    def violations(self, most: int | None = None) -> Iterator[dict[str, Any]]:
        """Every violation (of each policy at most so many) as plain data under the names of COLUMNS, in the order of
        the log: `sample` is its name where a vault knows it; fields that say nothing are left out."""
        for ruling in self._rulings:
            yield from itertools.islice(self._violations(ruling), most)

    def _violations(self, ruling: Ruling) -> Iterator[dict[str, Any]]:
        found, known = ruling.violations, dict[int, dict[str, Any]]()
        columns = found.places, found.steps, found.epochs, found.entries, found.superseded, found.hops, found.far
        for start in range(0, len(found), ROWS_AT_ONCE):
            rows = zip(*(column[start : start + ROWS_AT_ONCE].tolist() for column in columns), strict=True)
            for place, step, epoch, entry, superseded, hop, is_far in rows:
                if place not in known:
                    known[place] = self._sample(ruling, place)
                use = {} if entry == NONE else {"step": step, "epoch": epoch, "entry": entry, "superseded": superseded}
                beside = {"hop": hop} | ({"out_of_reach": True} if is_far else {}) if hop else {}
                yield {"policy": ruling.name} | known[place] | use | beside

    def _sample(self, ruling: Ruling, place: int) -> dict[str, Any]:
        twin = -1 if ruling.twins is None else int(ruling.twins[place])
        sample = self._roster.id(place)
        name = self._name_of(sample)
        said = {} if name is None else {"sample": name}
        same = {} if twin < 0 else {"same_content_as": self._roster.id(twin).hex()}
        return said | {"id": sample.hex()} | same

    def csv(self) -> Iterator[bytes]:
        """All violations as CSV, piece by piece."""
        yield _lines([COLUMNS])
        for rows in _many(self.violations()):
            yield _lines([tuple(row.get(name, "") for name in COLUMNS) for row in rows])

    def json(self) -> Iterator[str]:
        """One JSON object, piece by piece: the report, how many violations there are, and each of them."""
        report = self.report.as_json() | {"counts": self.counts()}
        yield json.dumps(report, ensure_ascii=False)[:-1] + ', "violations": ['
        for number, rows in enumerate(_many(self.violations())):
            yield (", " if number else "") + json.dumps(rows, ensure_ascii=False)[1:-1]
        yield "]}"


def _many(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while some := list(itertools.islice(rows, ROWS_AT_ONCE)):
        yield some


def _lines(rows: list[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


@no_verdict()
def check_trace(
    path: str | os.PathLike[str],
    key: str | None = None,
    *,
    policy: str | os.PathLike[str] | None = None,
    id_key: str | None = None,
    progress: Progress | None = None,
    engine: str | None = None,
    memory_bytes: int = MEMORY,
) -> Checked:
    """Verify a trace's log, then hold it to the policies of a file, or to those that are built in.

    `key` names the public key that the head must be signed with, as for `verify`; `id_key` is the run's secret id key
    for those who were given it, 64 hex digits or a vault: by default that of the vault beside the trace. `progress` is
    called with what is done and what there is, once for the log and then for each pass of the policies. `engine` and
    `memory_bytes` are for verifying the log, as in `Trace.verify`.
    FileNotFoundError and FormatError for a policy file or a list that is missing or malformed, ValueError for an id key
    that is none or another than the run committed to.
    """
    directory = open_to_read(path)
    trace_id = trace_id_of(directory)
    policies, folder = (Policies(), Path()) if policy is None else (read_policies(Path(policy)), Path(policy).parent)
    verifier, whose = trusted_verifier(key, trace_id, note=directory.head_note())
    vault = Vault.open(directory.vault_path, trace_id) if directory.vault_path.exists() else None
    try:
        secret = None if id_key is None else read_id_key(id_key, trace_id)
        with open_engine(engine) as workers:
            files = OneMoment(directory)
            reader = ByWorkers(files, directory, workers, memory_bytes, progress=progress)
            audit = audit_log(files, verifier, progress=progress, is_new=True, reader=reader)
        audit.checks.make("journal", lambda: _check_journal(directory))
        name_of = Namer({}, vault).name_of
        roster, rulings = Roster(), list[Ruling]()
        if _is_read(audit):
            at_hand = _at_hand(audit, folder, vault, secret)
            assert audit.log is not None
            roster, rulings = judge(audit.log, audit.facts, policies, at_hand, name_of, progress)
        answers = {ruling.name: ruling.answer for ruling in rulings}
        for name in policies.names():
            audit.checks.make(name, answers.get(name, _not_read), NEEDS)
        names = {} if vault is None else _names(roster, rulings, name_of)
    finally:
        if vault is not None:
            vault.close()
    remarks = [f"the policy {name} is switched off by {policy}" for name in BUILT_IN if name not in policies.built_in]
    if anchored_sizes(directory.names()):
        remarks.append("what outside witnesses said of the log's heads was not looked at; fgtrac verify does that")
    notes = (*audit.checks.notes, *remarks, f"the signature was checked with {whose}" if verifier else whose)
    return Checked(Report(tuple(map(files.excuse, audit.checks.findings)), notes), roster, tuple(rulings), names.get)


def _is_read(audit: Audit) -> bool:
    """Whether the log holds in what policies need."""
    holding = {finding.check for finding in audit.checks.findings if finding.verdict is Verdict.HOLDS}
    return holding.issuperset(NEEDS)


def _not_read() -> str:
    raise CannotTell("not checked, since the log does not hold")


def _names(roster: Roster, rulings: list[Ruling], name_of: Callable[[bytes], str | None]) -> dict[bytes, str | None]:
    """What the samples that break a policy are called."""
    places = [ruling.violations.places for ruling in rulings]
    samples = [roster.id(place) for place in np.unique(np.concatenate(places))] if places else []
    return {sample: name_of(sample) for sample in samples}


def _check_journal(directory: TraceDir) -> str:
    """Whether there is more than the log says: CannotTell of what is not sealed."""
    if waiting := count_unsealed(directory):
        raise CannotTell(f"{waiting:,} entries are not sealed yet, and may be uses; run fgtrac seal")
    return "nothing waits to be sealed"


# -- what is beside the log -----------------------------------------------------------------------------------------


def read_policies(path: Path) -> Policies:
    """The policies of a file. FormatError naming it where it is no policy file, FileNotFoundError where it or one of
    its lists is missing."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no policy file {path}")
    with path.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    try:
        policies = parse_policies(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    for opt_out in policies.opt_outs:
        listed = opt_out.samples or opt_out.contents
        there = listed is None or (path.parent / listed).is_file()
        if not there and not (opt_out.contents is not None and (path.parent / opt_out.contents).is_dir()):
            what = "no plain file" if opt_out.samples is not None else "neither a plain file nor a folder"
            raise FileNotFoundError(f"{path}: opt-out {opt_out.name}: {listed} is {what} beside the policy file")
    return policies


def _at_hand(audit: Audit, folder: Path, vault: Vault | None, secret: bytes | None) -> AtHand:
    """What the lists of a policy file in `folder` are matched with."""
    nobody = secret if vault is None or secret is not None else vault.find_secret("run")
    return AtHand(
        id_key=_id_key(audit, vault, secret),
        names=None if vault is None else lambda: ((n.id, n.dataset, n.key) for n in vault.names()),
        nobody=None if nobody is None else subject_commitment(nobody),
        pseudonym=lambda name: None if vault is None else _pseudonym(vault, name),
        read=lambda path: _pieces(folder / path),
        digests=lambda path: _digests(folder / path),
    )


def _id_key(audit: Audit, vault: Vault | None, secret: bytes | None) -> bytes | None:
    """K, from who was given it or the vault; only the one that the run committed to says anything."""
    committed = audit.facts.runs[0][1].get("key_commitment") if audit.facts.runs else None
    if committed is None and secret is not None:
        raise ValueError("the run committed to no id key, since its ids are public; leave --id-key out")
    if committed is None:
        return None
    found = vault.find_secret("run") if secret is None and vault is not None else secret
    if found is None or key_commitment(found) == committed:
        return found
    whose = "the vault beside the trace" if secret is None else "--id-key"
    raise ValueError(f"{whose} holds another id key than the run committed to; name the right one with --id-key")


def _pseudonym(vault: Vault, name: str) -> bytes | None:
    """What the log calls a subject that the vault knows by this name; ValueError where that is a text and a number."""
    scope, _others = find_scope(vault, TypedSubject(name))
    secret = None if scope is None else vault.find_secret(scope)
    return None if secret is None else subject_commitment(secret)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece


def _digests(path: Path) -> Iterator[list[bytes]]:
    """The SHA-256 digests that a file lists, or those of all files in a folder and the folders in it."""
    if path.is_file():
        yield from parse_digests(_pieces(path))
        return
    files, is_empty = _files_in(path), True
    while some := list(itertools.islice(files, FILES_AT_ONCE)):
        is_empty = False
        yield [_digest(file) for file in some]
    if is_empty:
        raise ValueError(f"{path}, a folder of contents, has no file in it; put the files there, or leave it out")


def _files_in(path: Path) -> Iterator[Path]:
    """Every file in a folder and the folders in it, a linked one as what it is. ValueError for what cannot be read as
    one, or would be left out: a link to a folder, one that leads nowhere, a device."""
    for folder, folders, names in os.walk(path, onerror=_raise):
        for name in sorted([*folders, *names]):
            found = Path(folder, name)
            if found.is_symlink() and not found.is_file():
                where = "a folder" if found.is_dir() else "no file"
                raise ValueError(f"{found} is a link to {where}, which is not followed; put the files there themselves")
            if found.is_file():
                yield found
            elif not found.is_dir():
                raise ValueError(f"{found} is neither a file nor a folder; move it out of the folder of contents")


def _digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _raise(error: OSError) -> None:
    raise error
