"""Who wants to know which samples were an erased person's: what such an attacker finds out, and what not.

The attacker holds the trace, what is left of the vault, bundles from before and a million candidate keys, and in the
second half also an old copy of the data, the code with its seed, or a copy of the vault. docs/erasure.md says in words
what each test here shows.
"""

from __future__ import annotations

import hmac
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import fgtrac
from erasable import ANN, BOB, KEYS, ROWS, SEVEN, SUBJECTS, ZOE, files_with, people, pseudonym_of, record, trace_id
from fgtrac.api.bundles import verify_bundle
from fgtrac.capture.contents import tensor_digests
from fgtrac.capture.sample_ids import rows_of
from fgtrac.events.codec import encode
from fgtrac.events.identity import (
    content_preimages,
    keyed_id,
    make_ids,
    preimages,
    public_id,
)
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.tiles import read_entries
from fgtrac.verify.report import Verdict

CANDIDATES = 1_000_000
ERASED = (ANN, SEVEN, ZOE)
Events = list[dict[str, Any]]


@dataclass(frozen=True)
class Loot:
    """What the attacker has, and (`truth`, by row) what there is to find out."""

    trace: Path
    vault: Path
    bundles: dict[str, Path]
    truth: list[bytes]
    pseudonyms: dict[Any, bytes]
    backup: Path

    def events(self, kind: str) -> Events:
        directory = TraceDir.open(self.trace)
        head = directory.head()
        assert head is not None
        return [e for e in map(decode_event, read_entries(directory, 0, head.size, head.size)) if e["kind"] == kind]

    def samples(self) -> dict[str, Any]:
        """The `samples` entry of the people: ids, contents and subjects by ordinal."""
        (event,) = [e for e in self.events("samples") if e["dataset"] == "people"]
        return event

    def secrets(self) -> dict[str, bytes]:
        """Every secret that is left: the vault's, and the openings in bundles from before."""
        vault = Vault.open(self.vault, trace_id(self.trace))
        found = dict(vault.secrets())
        vault.close()
        openings = (re.search(rb'"opening": ?"([0-9a-f]{64})"', path.read_bytes()) for path in self.bundles.values())
        return found | {f"opening {n}": bytes.fromhex(o[1].decode()) for n, o in enumerate(openings) if o}

    def ids_of(self, *subjects: Any) -> set[bytes]:
        return {self.truth[row] for row in range(ROWS) if SUBJECTS[row] in subjects}


@pytest.fixture(scope="module")
def loot(tmp_path_factory: pytest.TempPathFactory) -> Loot:
    folder = tmp_path_factory.mktemp("loot")
    path = record(folder)
    opened = fgtrac.open(path, key=str(folder / "key.pem"))
    bundles = {}
    for row in (3, 100):  # ANN's and BOB's
        bundles[KEYS[row]] = folder / f"{row}.json"
        bundles[KEYS[row]].write_bytes(opened.prove(f'key:"{KEYS[row]}"'))
    truth = [opened.find(f'key:"{key}"').id for key in KEYS]
    pseudonyms = {subject: pseudonym_of(path, subject) for subject in (*ERASED, BOB)}
    backup = shutil.copytree(folder, folder.parent / "backup")
    for subject in ERASED:
        fgtrac.erase(path, subject=subject, key=folder / "key.pem")
    return Loot(path, path.with_suffix(".vault"), bundles, truth, pseudonyms, backup)


def split(joined: bytes) -> list[bytes]:
    return [joined[i : i + 32] for i in range(0, len(joined), 32)]


def test_no_candidate_key_under_any_secret_that_is_left_gives_an_id_of_the_erased(loot: Loot) -> None:
    """A million keys, all the true ones among them; the same search finds whoever is not erased."""
    keys = [*KEYS, *(f"scan-{n:07}-of-somebody.png" for n in range(CANDIDATES - ROWS))]
    assert len(set(keys)) == CANDIDATES
    candidates = preimages("people", keys)
    in_log = set(split(loot.samples()["ids"]))
    assert set(loot.truth) <= in_log
    secrets = loot.secrets()
    assert sorted(secrets) == ["opening 0", "opening 1", "run", "subject:63626f62"]
    found: set[bytes] = set()
    for name in ("run", "subject:63626f62"):
        found |= in_log & set(split(make_ids("keyed", secrets[name], candidates)))
    found |= in_log & {public_id(p) for p in candidates[:ROWS]}
    assert found == loot.ids_of(BOB)


def test_an_opening_opens_one_sample_and_no_other(loot: Loot) -> None:
    """Bundles from before: the one about an erased sample still names it, and its opening helps with nothing else."""
    report = verify_bundle(loot.bundles[KEYS[3]], key=str(loot.trace.parent / "key.pem"))
    assert report.verdict is Verdict.HOLDS
    assert KEYS[3] in loot.bundles[KEYS[3]].read_text()
    assert loot.truth[3].hex() in loot.bundles[KEYS[3]].read_text()
    named = preimages("people", KEYS)
    openings = [secret for name, secret in loot.secrets().items() if name.startswith("opening")]
    assert len(openings) == 2
    as_key = {keyed_id(secret, p) for secret in openings for p in named}
    as_opening = {i for o in openings for p in named for i in split(_hmac(o, p))}
    assert not as_key & set(loot.truth)
    assert as_opening & set(loot.truth) == {loot.truth[3], loot.truth[100]}


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, "sha256")


def test_the_pseudonym_says_nothing_of_the_name(loot: Loot) -> None:
    """It is a hash of the key alone; but how many samples one erased person had stays in the log."""
    said = loot.samples()["subjects"]
    counts = {subject: split(said).count(loot.pseudonyms[subject]) for subject in ERASED}
    assert counts == {ANN: 20, SEVEN: 20, ZOE: 1}
    assert files_with(loot.trace.parent, ANN.encode()) == set()
    assert {e["pseudonym"] for e in loot.events("erasure")} == {loot.pseudonyms[s] for s in ERASED}


# -- also with an old copy of the data ------------------------------------------------------------------------------


def test_known_contents_give_no_content_digest_of_the_erased(loot: Loot) -> None:
    """Content digests are under the subject's own key too; those of whoever is not erased are found."""
    said = loot.samples()
    content_of = dict(zip(split(said["ids"]), split(said["contents"]), strict=True))
    sources = content_preimages(rows_of(tensor_digests(people().tensors[0])))
    known = {i for secret in loot.secrets().values() for i in split(make_ids("keyed", secret, sources))}
    linked = {sample for sample, content in content_of.items() if content in known}
    assert linked == loot.ids_of(BOB)


def test_by_elimination_the_erased_are_known_as_a_group_and_alone_where_they_are_one(loot: Loot) -> None:
    """STILL LINKED. Rows of the old copy that no remaining name has are, together, the erased; the log says which of
    their ids are one person's, so that a person with one sample, or a known number of samples, is known."""
    vault = Vault.open(loot.vault, trace_id(loot.trace))
    named = {name.id for name in vault.names()}
    keys_left = {name.key for name in vault.names()}
    vault.close()
    ids = set(split(loot.samples()["ids"])) - named
    rows = [row for row in range(ROWS) if encode(KEYS[row]) not in keys_left]
    assert ids == loot.ids_of(*ERASED)
    assert rows == [row for row in range(ROWS) if SUBJECTS[row] in ERASED]
    of_one = dict(zip(split(loot.samples()["subjects"]), split(loot.samples()["ids"]), strict=True))
    assert of_one[loot.pseudonyms[ZOE]] == loot.truth[299]  # she had one scan: the attacker knows that, and so knows it


def test_predictions_and_kept_model_states_link_each_row_of_an_old_copy(loot: Loot) -> None:
    """STILL LINKED. The model states stay in the trace: computing a row's outputs again finds the sample that has them
    in the log. Losses and scores are matched alike."""
    state = load_file(sorted(loot.trace.glob("artifacts/checkpoint-*"))[-1])
    inputs = people().tensors[0]
    outputs = (inputs @ state["weight"].T + state["bias"]).numpy()
    (said,) = loot.events("prediction")
    there = said["outputs"].reshape(ROWS, 3)
    ids = split(loot.samples()["ids"])
    for row in range(20):  # ANN's
        nearest = int(np.abs(there - outputs[row]).sum(axis=1).argmin())
        assert ids[said["ordinals"][nearest]] == loot.truth[row]


def test_running_the_training_again_with_its_seed_links_all_by_their_places_in_the_batches(
    loot: Loot, tmp_path: Path
) -> None:
    """STILL LINKED. Openings of samplers are gone, but who has data, code and seed draws the same batches again.
    Without them, which samples shared a batch stays known, and says nothing of who they are."""
    again = fgtrac.open(record(tmp_path), key=str(tmp_path / "key.pem"))
    row_of = {again.find(f'key:"{key}"').id: row for row, key in enumerate(KEYS)}
    places = [loot.events("use"), Loot(again.path, loot.vault, {}, [], {}, tmp_path).events("use")]
    ids = [split(loot.samples()["ids"]), split(Loot(again.path, loot.vault, {}, [], {}, tmp_path).samples()["ids"])]
    for old, new in zip(*([o for e in uses for o in e["ordinals"].tolist()] for uses in places), strict=True):
        assert loot.truth[row_of[ids[1][new]]] == ids[0][old]


def test_a_copy_of_the_vault_from_before_links_everything(loot: Loot) -> None:
    """STILL LINKED. An erasure reaches the vault that it is done in, and none of its copies."""
    copy = loot.backup / "run.trace"
    assert fgtrac.open(copy, key=str(loot.backup / "key.pem")).find(f'key:"{KEYS[3]}"').id == loot.truth[3]
    assert sorted(loot.ids_of(*ERASED))[0] in set(split(loot.samples()["ids"]))


def test_factor_rows_and_labels_of_the_erased_are_in_no_artifact_that_is_left(loot: Loot) -> None:
    left = {p.relative_to(loot.trace).as_posix() for p in loot.trace.glob("artifacts/**/*") if p.is_file()}
    assert {n.partition("-")[0] for n in left if not n.startswith("artifacts/scoring/")} == {"artifacts/checkpoint"}
    assert not [n for n in left if "train" in n]
    assert [n for n in left if "validation" in n]  # of `held out`, who is nobody's
