"""Was my data used: what is known of a made-up training, under each id scheme, with and without the vault."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

from every_bundle import of_an_uncertain_batch
from fgtrac.api.contents import array_source
from fgtrac.api.erase import erase
from fgtrac.api.mine import CANNOT_TELL, NOT_USED, RECEIPT_BYTES, USED, Mine, ask_by_content, ask_by_name, sources
from fgtrac.api.run import start_run
from fgtrac.api.trace import Trace, open_trace
from fgtrac.api.trust import trusted_verifier
from fgtrac.events.identity import preimage, public_id
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from fgtrac.verify.report import Verdict
from graph_lives import graph_life
from people_trace import PEOPLE, SOURCE, digest_of, record_people

SCHEMES = ("public", "keyed", "subject")
NOBODY = 99  # a row that nobody has


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A trace under each scheme."""
    found = {}
    for scheme in SCHEMES:
        found[scheme] = tmp_path_factory.mktemp(scheme)
        record_people(found[scheme], scheme)
    return found


@pytest.fixture(scope="module")
def handed_out(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same traces as others have them: without their vaults."""
    found = {}
    for scheme, folder in folders.items():
        found[scheme] = tmp_path_factory.mktemp(f"{scheme}-alone")
        shutil.copytree(folder / "run.trace", found[scheme] / "run.trace")
        shutil.copy(folder / "key.pem", found[scheme])
    return found


def opened(folder: Path) -> Trace:
    """The trace there, whose signature is checked."""
    return open_trace(folder / "run.trace", key=str(folder / "key.pem"))


def of_row(trace: Trace, row: int, source: str = SOURCE) -> Mine:
    return ask_by_content(trace, digest_of(row), source)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_with_the_vault_a_content_has_the_answer_that_is_true(folders: dict[str, Path], scheme: str) -> None:
    trace = opened(folders[scheme])
    used, held_out, nobody = (of_row(trace, row) for row in (0, 7, NOBODY))
    assert [answer.answer for answer in (used, held_out, nobody)] == [USED, NOT_USED, NOT_USED]
    (life,) = used.lives
    assert (life.uses, life.roles, life.steps is not None, life.kept) == (2, ("train",), True, (2, 4))
    assert held_out.lives[0].uses == 0
    assert nobody.lives == ()
    assert used.rests_on.startswith("as signed with")


@pytest.mark.parametrize("scheme", ["keyed", "subject"])
@pytest.mark.parametrize("row", [0, 7, NOBODY])
def test_without_the_vault_a_keyed_content_is_cannot_tell(handed_out: dict[str, Path], scheme: str, row: int) -> None:
    found = of_row(opened(handed_out[scheme]), row)
    assert found.answer == CANNOT_TELL
    assert any("vault" in reason for reason in found.reasons)
    assert found.receipts == ()


def test_public_contents_need_no_vault(handed_out: dict[str, Path]) -> None:
    trace = opened(handed_out["public"])
    assert [of_row(trace, row).answer for row in (0, 7, NOBODY)] == [USED, NOT_USED, NOT_USED]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "source", ["file", "tensor", "tensor float64 4", "tensor float32 2x2", "table 0123456789abcdef"]
)
def test_what_was_digested_in_another_form_is_never_called_unused(
    folders: dict[str, Path], scheme: str, source: str
) -> None:
    found = of_row(opened(folders[scheme]), NOBODY, source)
    assert found.answer == CANNOT_TELL
    assert any(repr(SOURCE) in reason and "cannot be compared" in reason for reason in found.reasons)


def test_a_data_set_without_contents_is_cannot_tell_by_content_and_not_by_name(tmp_path: Path) -> None:
    trace = opened(record_people(tmp_path, "public", content=False).parent)
    found = of_row(trace, NOBODY)
    assert found.answer == CANNOT_TELL
    assert any("no contents were recorded" in reason for reason in found.reasons)
    assert sources(trace) == [{"dataset": "people", "source": None, "scheme": "public", "beside": False}]
    assert [ask_by_name(trace, f"people:{row}").answer for row in (0, 7, NOBODY)] == [USED, NOT_USED, NOT_USED]


def test_what_a_row_holds_beside_the_digested_tensor_is_never_called_unused(tmp_path: Path) -> None:
    """Of pairs only the first was digested: that the second has no digest says nothing."""
    first, second = (torch.arange(8.0).reshape(2, 4) + n for n in (0, 100))
    data = TensorDataset(first, second)
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", ids="public") as run:
        for one, other in run.watch(DataLoader(data, batch_size=2), role="train"):
            (model(one) - model(other)).square().mean().backward()
            optimizer.step()
    trace = opened(tmp_path)
    asked = [ask_by_content(trace, array_source(rows[0].numpy())[1], SOURCE) for rows in (first, second)]
    assert [found.answer for found in asked] == [USED, CANNOT_TELL]
    assert any("it holds more" in reason for reason in asked[1].reasons)
    assert sources(trace)[0]["beside"] is True
    np.save(tmp_path / "rows.npy", second.numpy())
    absent = parse_bundle(trace.prove(f"row:{tmp_path}/rows.npy:0"))
    report = check_bundle(absent, trusted_verifier(str(tmp_path / "key.pem"), trace.id)[0])
    assert (absent.claim, report.verdict) == ("content absent", Verdict.CANNOT_TELL)
    assert {f.check for f in report.failures()} == {"sources", "claim"}


def test_a_run_that_did_not_end_never_says_unused(tmp_path: Path) -> None:
    trace = opened(record_people(tmp_path, "public", ends=False).parent)
    assert of_row(trace, 0).answer == USED
    for found in (of_row(trace, 7), of_row(trace, NOBODY), ask_by_name(trace, "people:7")):
        assert found.answer == CANNOT_TELL
        assert any("has not ended" in reason for reason in found.reasons)


def test_an_erased_subject_is_cannot_tell_and_so_is_everybody_unknown(tmp_path: Path) -> None:
    path = record_people(tmp_path, "subject")
    erase(path, subject=PEOPLE[0], key=tmp_path / "key.pem")
    trace = opened(tmp_path)
    for row in (0, NOBODY):
        found = of_row(trace, row)
        assert found.answer == CANNOT_TELL
        assert any("1 of the log's subjects" in reason for reason in found.reasons)
    assert of_row(trace, 1).answer == USED
    by_name = ask_by_name(trace, "people:0")
    assert by_name.answer == CANNOT_TELL
    assert any("erased" in reason for reason in by_name.reasons)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_name_is_answered_where_the_vault_knows_it(folders: dict[str, Path], scheme: str) -> None:
    trace = opened(folders[scheme])
    assert [ask_by_name(trace, f"people:{row}").answer for row in (0, 7)] == [USED, NOT_USED]
    nobody = ask_by_name(trace, f"people:{NOBODY}")
    assert nobody.answer == (CANNOT_TELL if scheme == "subject" else NOT_USED)  # it may have been erased


def test_a_keyed_name_without_the_vault_is_cannot_tell(handed_out: dict[str, Path]) -> None:
    for scheme in ("keyed", "subject"):
        found = ask_by_name(opened(handed_out[scheme]), "people:7")
        assert found.answer == CANNOT_TELL
        assert any("vault" in reason for reason in found.reasons)


def test_an_id_that_nobody_has_says_nothing_of_anybodys_data(folders: dict[str, Path]) -> None:
    for scheme in SCHEMES:
        assert ask_by_name(opened(folders[scheme]), f"id:{'0' * 64}").answer == CANNOT_TELL


def test_a_name_of_another_kind_than_the_data_sets_keys_is_cannot_tell(folders: dict[str, Path]) -> None:
    found = ask_by_name(opened(folders["public"]), 'key:"Ann Smith"')
    assert found.answer == CANNOT_TELL
    assert any("named by numbers" in reason for reason in found.reasons)
    with pytest.raises(ValueError, match="no data set 'cats'"):
        ask_by_name(opened(folders["public"]), "cats:1")


@pytest.mark.parametrize("name", ["Ann", "Jose", " Jose\u0301", "Jos\u00e9", "ann "])
def test_a_name_that_no_sample_has_says_nothing_where_keys_were_given(tmp_path: Path, name: str) -> None:
    """The log does not say whether keys are texts, bytes or several parts, nor in which form their letters are."""
    keys = [b"Ann", "Jose\u0301", ("Bob", 1), "ann", *map(str, range(4))]
    trace = opened(record_people(tmp_path, "keyed", key=keys).parent)
    found = ask_by_name(trace, f"key:{json.dumps(name)}")
    assert (found.answer, found.receipts) == (CANNOT_TELL, ())
    assert any("keys that were given" in reason for reason in found.reasons)
    assert [ask_by_name(trace, f"key:{json.dumps(key)}").answer for key in ("Jose\u0301", "3")] == [USED, NOT_USED]


def test_what_samples_made_from_it_did_is_told_of_the_sample(tmp_path: Path) -> None:
    """Of docs that were tokenised only the tokens are trained on; the run is resumed from before the second update."""
    docs = pd.DataFrame({"id": [0, 1], "text": ["abcd", "efgh"]})
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", keep="all", ids="public") as run:
        run.register(docs, name="docs")
        tokens = run.transform("tok", docs).tokenise(lambda text: [ord(c) % 7 for c in text], "text", size=4)
        rows = TensorDataset(torch.tensor(tokens.iloc[:, -1].tolist(), dtype=torch.float32))
        run.register(rows, rows=tokens, role="train")
        for (batch,) in run.watch(DataLoader(rows, batch_size=1)):
            model(batch).sum().backward()
            optimizer.step()
            run.checkpoint(model, optimizer)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", resume=True, step=1, keep="all", ids="public"):
        pass
    lives = [ask_by_name(opened(tmp_path), f"docs:{row}").lives[0] for row in (0, 1)]
    assert [(life.uses, life.through, life.undone, life.steps) for life in lives] == [
        (1, 1, 0, (1, 1)),
        (1, 1, 1, (2, 2)),
    ]
    assert [life.kept for life in lives] == [(1,), ()]
    assert all(life.times is not None for life in lives)


def test_neighbours_are_told_from_seeds_and_those_out_of_reach_from_both(tmp_path: Path) -> None:
    life = graph_life(tmp_path, graph=("whole",))
    trace = open_trace(life.path)
    for sample in life.made.ids:
        (found,) = ask_by_name(trace, f"id:{sample.hex()}").lives
        history = trace.history(f"id:{sample.hex()}")
        reach = history.draws.reach.values()
        assert (found.neighbours, found.beyond) == (history.tally.neighbours, sum(hop.beyond for hop in reach))
        assert (found.delivered, found.kept) == (history.tally.delivered, history.checkpoints)


def test_a_batch_that_may_have_left_it_out_is_cannot_tell(tmp_path: Path) -> None:
    case = next(of_an_uncertain_batch(tmp_path))
    assert case is not None
    trace = open_trace(next(tmp_path.rglob("*.trace")))
    answers = {row: ask_by_name(trace, f"digits:{row}") for row in range(3)}
    unsure = [found for found in answers.values() if any(life.perhaps and not life.uses for life in found.lives)]
    assert unsure
    assert all(found.answer == CANNOT_TELL for found in unsure)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("row", [0, 7, NOBODY])
def test_receipts_hold_offline_are_small_and_name_nobody_else(folders: dict[str, Path], scheme: str, row: int) -> None:
    trace = opened(folders[scheme])
    found = of_row(trace, row)
    secret = trace._vault.find_secret("run") if trace._vault is not None else None
    verifier, _ = trusted_verifier(str(folders[scheme] / "key.pem"), trace.id)
    for receipt in found.receipts:
        assert len(receipt.data) <= RECEIPT_BYTES
        report = check_bundle(parse_bundle(receipt.data), verifier, secret)
        assert report.verdict == receipt.verdict
        assert not any(name.encode() in receipt.data for name in PEOPLE)
        assert report.verdict == Verdict.HOLDS, report.findings
    claims = [receipt.claim for receipt in found.receipts]
    absence = [] if scheme == "subject" else ["content absent"]
    assert claims == {0: ["content present", "used"], 7: ["content present", "never used"], NOBODY: absence}[row]
    assert found.receipts or found.without


def test_of_many_equal_samples_those_that_were_used_are_looked_at(tmp_path: Path) -> None:
    equal, model = TensorDataset(torch.ones(150, 4)), torch.nn.Linear(4, 1)
    last = max(range(150), key=lambda row: public_id(preimage("equal", row)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem", ids="public") as run:
        run.register(equal, name="equal")
        for (inputs,) in run.watch(DataLoader(Subset(equal, [last])), role="train"):
            model(inputs).sum().backward()
            optimizer.step()
    source, digest = array_source(np.ones(4, np.float32))
    said = ask_by_content(opened(tmp_path), digest, source)
    assert (said.answer, [life.uses for life in said.lives[:2]]) == (USED, [1, 0])


def test_a_digest_that_is_none_is_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="no SHA-256"):
        ask_by_content(opened(folders["public"]), hashlib.sha1(b"").digest(), "file")
