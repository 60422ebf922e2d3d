"""What a subject is told is what happened to their samples; erased, unknown and undecidable ones are told apart."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.api.naming import TypedSubject, subject_scope
from fgtrac.api.subjects import NOBODY, UnknownSubjectError
from fgtrac.errors import FgtracError
from fgtrac.query import history
from fgtrac.query.subject import SHOWN
from fgtrac.store.vault import Vault
from fgtrac.verify.checks import CannotTell
from graph_lives import OWNERS, GraphLife, graph_life, owner_of
from traces import TRACE_ID, start_trace


@pytest.fixture
def life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GraphLife:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    return graph_life(tmp_path, graph=("sampled", "whole"))


def taken(life: GraphLife, node: int) -> Counter[int]:
    """hop -> how often, 0 for a seed."""
    return Counter(hop for u in life.updates for hop, there in enumerate((u.seeds, *u.hops)) if node in there)


@pytest.mark.parametrize("owner", OWNERS)
def test_all_samples_of_a_subject_are_counted_and_no_others(life: GraphLife, owner: int | str) -> None:
    found = fgtrac.open(life.path).subject(owner)
    assert (found.subject, found.pseudonym, found.is_erased) == (owner, life.pseudonyms[owner], False)
    told = {sample.id: sample for sample in found.samples}
    assert set(told) == {life.made.ids[node] for node in life.owned(owner)}
    for node in life.owned(owner):
        sample, truth = told[life.made.ids[node]], taken(life, node)
        assert (sample.name, sample.dataset) == (f"icons:{node}", "icons")
        assert sample.roles == (("train",) if node < 10 else ("test",))
        assert {hop: n for hop in sample.tally.hops if (n := sample.tally.at_hop(hop))} == {
            hop: n for hop, n in truth.items() if hop
        }
        assert (sample.tally.seeds, sample.about["attention"]) == (truth[0], 6)
    seeds = [taken(life, node)[0] for node in life.owned(owner)]
    assert f"used as a seed {sum(seeds)} times: {sum(map(bool, seeds))} of {len(seeds)} samples" in str(found)
    said = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert (said["seed"], len(said["samples"]), said["pseudonym"]) == (sum(seeds), 4, life.pseudonyms[owner].hex())


def test_a_subject_is_found_by_its_name_by_digits_and_by_its_pseudonym(life: GraphLife) -> None:
    trace = fgtrac.open(life.path)
    for owner in OWNERS:
        pseudonym = life.pseudonyms[owner].hex()
        for name in (owner, TypedSubject(str(owner)), pseudonym, pseudonym.upper(), pseudonym[:16]):
            found = trace.subject(name)
            assert (found.pseudonym.hex(), found.subject) == (pseudonym, owner)
    with pytest.raises(UnknownSubjectError, match=r"a subject '7': .*the number 7 has a key: name it as a number"):
        trace.subject("7")
    assert str(trace.subject(7)).startswith("subject 7, a number (pseudonym ")


def test_a_text_and_a_number_of_the_same_digits_are_two_subjects(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))
    with fgtrac.start_run(tmp_path / "run") as run:
        run.register(TensorDataset(torch.zeros(3, 1)), subject=["7", 7, 7])
    text, number = (fgtrac.open(run.path).subject(subject) for subject in ("7", 7))
    assert [len(found.samples) for found in (text, number)] == [1, 2]
    assert [found.as_json()["subject"] for found in (text, number)] == ["7", 7]
    with pytest.raises(ValueError, match=f"two such subjects.*{text.pseudonym.hex()}.*{number.pseudonym.hex()}"):
        fgtrac.open(run.path).subject(TypedSubject("7"))
    fgtrac.erase(run.path, subject="7")
    left = fgtrac.open(run.path).subject(TypedSubject("7"))
    assert (left.subject, left.without_key) == (7, 1)
    assert str(left).startswith("subject 7, a number (pseudonym ")
    with pytest.raises(CannotTell, match=r"no key of a subject '7'.*the number 7 has a key"):
        fgtrac.open(run.path).subject("7")


@pytest.mark.parametrize("is_erased", [False, True])
def test_a_key_without_a_sample_is_no_subject_of_the_log(life: GraphLife, is_erased: bool) -> None:
    if is_erased:
        fgtrac.erase(life.path, subject="ada")
    vault = Vault.open(life.path.with_suffix(".vault"), TRACE_ID, read_only=False)
    vault.secret(subject_scope("ghost"))
    vault.close()
    error, words = (CannotTell, "a new key, of no sample, of") if is_erased else (UnknownSubjectError, "no sample of")
    with pytest.raises(error, match=f"{words} a subject 'ghost'"):
        fgtrac.open(life.path).subject("ghost")


def test_what_no_message_carried_is_said_of_the_entries_that_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last node is beyond reach in all updates of the whole graph, and in one that a sampler drew it is not."""
    life = graph_life(tmp_path, epochs=20, graph=("whole",), batches_an_entry=1, one_drawn=True)
    last = len(life.made.ids) - 1
    whole = str(fgtrac.open(life.path).subject(owner_of(last)))
    assert "hop 3, in part beyond reach" in whole
    monkeypatch.setattr(history, "READ_DRAWS", 8)
    some = fgtrac.open(life.path).subject(owner_of(last))
    reach = some.draws.reach[3]
    assert (reach.within, some.draws.read) == (0, 8)
    assert f"hop 3, beyond reach in {reach.beyond} that were read" in str(some)
    assert "parts as a neighbour were not read: whether messages reached a seed is unknown" in str(some)


def test_without_the_vault_the_log_alone_answers_by_the_pseudonym(life: GraphLife) -> None:
    named = fgtrac.open(life.path).subject("ada")
    life.path.with_suffix(".vault").unlink()
    trace = fgtrac.open(life.path)
    found = trace.subject(life.pseudonyms["ada"].hex())
    assert found.subject is None
    assert [(s.id, s.tally.seeds, s.name) for s in found.samples] == [
        (s.id, s.tally.seeds, None) for s in named.samples
    ]
    with pytest.raises(ValueError, match="there is no vault beside this trace"):
        trace.subject("ada")


def test_an_unknown_subject_is_unknown_as_long_as_every_key_is_there(life: GraphLife) -> None:
    trace = fgtrac.open(life.path)
    with pytest.raises(UnknownSubjectError, match="has the keys of all its 3 subjects"):
        trace.subject("carol")
    with pytest.raises(UnknownSubjectError, match="no pseudonym in the log begins so either"):
        trace.subject("ab" * 32)


def test_an_erased_subject_is_said_to_be_one_and_its_name_says_nothing_any_more(life: GraphLife) -> None:
    before = fgtrac.open(life.path).subject("ada")
    fgtrac.erase(life.path, subject="ada")
    trace = fgtrac.open(life.path)
    for name in ("ada", "carol", "1234567890123456", "ab" * 32):  # all may be names, the last ones too
        with pytest.raises(CannotTell, match=f"no key of a subject '{name}'.*{before.pseudonym.hex()[:16]}"):
            trace.subject(name)
    found = trace.subject(before.pseudonym.hex())
    assert (found.subject, found.is_erased, len(found.erasures)) == (None, True, 1)
    assert [sample.id for sample in found.samples] == [sample.id for sample in before.samples]
    assert all(sample.erased and sample.name is None for sample in found.samples)
    assert f"erased: the key of this subject was destroyed (entry {found.erasures[0]})" in str(found)
    assert found.without_key == 0
    other = trace.subject("bob")
    assert (other.is_erased, other.without_key, before.without_key) == (False, 1, 0)
    assert "of 1 other pseudonym in the log the key is not here" in str(other)


def test_of_many_samples_the_first_are_shown_and_all_on_request(tmp_path: Path) -> None:
    many = graph_life(tmp_path, nodes=3 * SHOWN + 30, epochs=1)
    found = fgtrac.open(many.path).subject("ada")
    parts = [sample.tally.seeds + sample.tally.neighbours for sample in found.samples]
    assert parts == sorted(parts, reverse=True)
    assert str(found).count("icons:") == SHOWN
    assert "and 10 more; --all shows every one" in str(found)
    assert found.text(every_sample=True).count("icons:") == SHOWN + 10


def test_what_was_made_from_their_samples_and_others_is_told_beside_them(tmp_path: Path) -> None:
    people, crops = TensorDataset(torch.arange(4.0)), TensorDataset(torch.arange(3.0))
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with fgtrac.start_run(tmp_path / "run", key=tmp_path / "key.pem") as run:
        run.register(people, name="people", subject=["ann", "ann", "bob", None], role="train")
        run.transform("crops", people).record(crops, parents=[[0, 1], [0, 2], 3])  # ann's; of two people; nobody's
        for (batch,) in run.watch(DataLoader(crops, batch_size=3), role="train"):
            optimizer.zero_grad()
            model(batch[:, None]).sum().backward()
            optimizer.step()
    trace = fgtrac.open(tmp_path / "run.trace")
    ann, bob = trace.subject("ann"), trace.subject("bob")
    assert [(s.dataset, s.tally.seeds) for s in ann.samples] == [("crops", 1), ("people", 0), ("people", 0)]
    assert [(s.dataset, s.tally.seeds) for s in ann.made] == [("crops", 1)]
    assert [s.id for s in bob.made] == [s.id for s in ann.made]
    assert (bob.samples[0].took_part, len(bob.samples)) == (False, 1)
    assert "no part in any update: 1 of 1 sample" in str(bob)
    assert "made from them and from samples of others, and nobody's: 1 sample\n" in str(bob)
    assert trace.subject(trace.subject("ann").pseudonym.hex()).subject == "ann"
    nobodys = set(trace._blocks.pseudonyms()) - {ann.pseudonym, bob.pseudonym}
    assert [trace.subject(p.hex()).subject for p in nobodys] == [NOBODY]


def test_a_trace_without_subjects_has_none(tmp_path: Path) -> None:
    made, writing = start_trace(tmp_path, samples=4)
    writing.end()
    made.seal()
    with pytest.raises(ValueError, match=r"there is no vault.*no pseudonym in the log begins so either"):
        fgtrac.open(made.trace.path).subject("ab" * 32)


def test_a_flipped_bit_in_any_file_gives_the_true_answer_or_an_error(life: GraphLife) -> None:
    key = (life.path.parent / "key.pem").as_posix()
    truth, refused = fgtrac.open(life.path, key=key).subject("ada").as_json(), 0
    for name in life.made.trace.names():
        path = life.path / name
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 8)):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            try:
                assert fgtrac.open(life.path, key=key).subject("ada").as_json() == truth, (name, at)
            except FgtracError:
                refused += 1
        path.write_bytes(data)
    assert refused > 20
    assert fgtrac.open(life.path, key=key).subject("ada").as_json() == truth
