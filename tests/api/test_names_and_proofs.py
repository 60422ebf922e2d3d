"""From a recorded run to a proof: samples are named through the vault, opened one at a time, and absent only for those
who hold the key."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import fgtrac
from fgtrac.api.bundles import verify_bundle
from fgtrac.api.naming import about
from fgtrac.api.trace import Trace
from fgtrac.errors import FormatError
from fgtrac.events.identity import keyed_id, preimage
from fgtrac.query.prove import Proof
from fgtrac.store.vault import Vault
from fgtrac.verify.bundle import ABSENCES, parse_bundle
from fgtrac.verify.report import Verdict


@pytest.fixture(autouse=True)
def my_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FGTRAC_KEY", str(tmp_path / "key.pem"))


def record(folder: Path, ids: str = "keyed") -> Trace:
    """Ten rows named by number of which six are used, five named by text, four of two subjects."""
    rows = TensorDataset(torch.arange(20.0).reshape(10, 2))
    with fgtrac.start_run(folder / "run", ids=ids) as run:
        run.register(rows, name="rows", role="train")
        run.register(TensorDataset(torch.zeros(3, 1)), name="texts", key=["a", "b", ("c", 1)])
        run.register(TensorDataset(torch.ones(4, 1)), name="people", subject=["x", "x", 7, 7])
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for (batch,) in run.watch(DataLoader(torch.utils.data.Subset(rows, range(6)), batch_size=3)):
            optimizer.zero_grad()
            model(batch).sum().backward()
            optimizer.step()
    return fgtrac.open(folder / "run.trace")


def check(
    trace: Trace, name: str, claim: str | None = None, id_key: str | None = None, about: str | None = None
) -> tuple[str, Verdict]:
    path = trace.path.parent / "bundle.json"
    data = trace.prove(name, claim)
    path.write_bytes(data)
    return parse_bundle(data).words, verify_bundle(path, id_key=id_key, about=about).verdict


@pytest.mark.parametrize("ids", ["keyed", "public"])
def test_named_samples_are_opened_to_whoever_gets_the_bundle(tmp_path: Path, ids: str) -> None:
    trace = record(tmp_path, ids)
    for name, who in (
        ("rows:2", 'key 2 of data set "rows"'),
        ('key:"a"', 'key "a" of data set "texts"'),
        ('texts:key:"a"', 'key "a" of data set "texts"'),
        ('key:["c",1]', 'key ["c", 1] of data set "texts"'),
        ("people:3", 'key 3 of data set "people"'),
        ("people:0", 'key 0 of data set "people"'),
    ):
        words, verdict = check(trace, name)
        assert who in words
        assert verdict is Verdict.HOLDS


def test_use_and_non_use_are_told_apart(tmp_path: Path) -> None:
    trace = record(tmp_path)
    assert trace.history("rows:5").uses == 1
    assert check(trace, "rows:5")[0].startswith('The sample with key 5 of data set "rows" was used once')
    assert check(trace, "rows:6")[0].startswith(
        'The sample with key 6 of data set "rows" is registered, and no optimizer update ever used it'
    )


def test_a_use_says_how_many_came_before_a_kept_state(tmp_path: Path) -> None:
    """In a real training: of one optimizer, and of two that take their steps in turn."""
    for optimizers in (1, 2):
        path = tmp_path / f"{optimizers}"
        with fgtrac.start_run(path, ids="public", keep="all") as run:
            data = TensorDataset(torch.arange(8.0).reshape(4, 2))
            models = [torch.nn.Linear(2, 1) for _ in range(optimizers)]
            steppers = [torch.optim.SGD(model.parameters(), lr=0.01) for model in models]
            loader = run.watch(DataLoader(data, batch_size=2), role="train")
            for epoch in range(3):
                for (batch,) in loader:
                    for model, stepper in list(zip(models, steppers, strict=True))[: epoch + 1]:
                        stepper.zero_grad()
                        model(batch).sum().backward()
                        stepper.step()
                run.checkpoint(models[0], steppers)
        trace = fgtrac.open(path.with_suffix(".trace"))
        uses = [len([e for e in trace.history("TensorDataset:0").events if e.kind == "used" and (e.epoch or 0) <= n])
                for n in range(3)]  # fmt: skip
        steps = [step for _number, step in trace._historian.timeline.kept]  # of two of one step: the newer
        for step, expected in dict(zip(steps, uses, strict=True)).items():
            words = parse_bundle(trace.prove("TensorDataset:0", checkpoint=step)).words
            said = int(words.partition("was saved after ")[2].partition(" ")[0])
            assert said == expected if optimizers == 1 else said <= expected, step


def test_an_absence_holds_only_for_whoever_holds_the_key(tmp_path: Path) -> None:
    trace = record(tmp_path)
    assert check(trace, "rows:99") == (check(trace, "rows:99")[0], Verdict.CANNOT_TELL)
    assert check(trace, "rows:99", id_key=str(tmp_path / "run.vault"))[1] is Verdict.HOLDS
    assert check(trace, "rows:99", id_key="00" * 32)[1] is Verdict.REFUTED
    public = record(tmp_path / "public", "public")
    assert check(public, "rows:99")[1] is Verdict.HOLDS
    with pytest.raises(ValueError, match=r"people:99 is not known to run\.vault: it was never registered, or it was"):
        check(trace, "people:99")
    with sqlite3.connect(tmp_path / "run.vault") as vault:
        vault.execute("DELETE FROM secrets WHERE scope = 'run'")
    vault.close()
    for name in ("rows:99", "rows:6"):  # ids of rows are computed, and not kept
        with pytest.raises(ValueError, match=r"run\.vault knows no such sample, and has not the run's id key either"):
            check(trace, name)
    (tmp_path / "source").write_bytes(b"nobody's")
    with sqlite3.connect(tmp_path / "run.vault") as vault:
        vault.execute("DELETE FROM secrets")
    vault.close()
    with pytest.raises(ValueError, match=r"their key is not in run\.vault"):
        check(trace, f"file:{tmp_path / 'source'}")
    (tmp_path / "run.vault").rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="are subject and their key is not at hand; put the vault beside the trace"):
        fgtrac.open(trace.path).history("people:99")


@pytest.mark.parametrize("ids", ["keyed", "public"])
def test_a_row_names_a_sample_only_where_samples_are_named_by_numbers(tmp_path: Path, ids: str) -> None:
    """`texts:1` is no row of a data set that was given texts as keys, and never said to be absent; of a data set that
    was given numbers it is the key, and that is said. With a vault and without."""
    with fgtrac.start_run(tmp_path / "run", ids=ids) as run:
        run.register(TensorDataset(torch.zeros(3, 1)), name="rows", key=[0, 1, 2])
        run.register(TensorDataset(torch.zeros(3, 1)), name="numbers", key=[2, 1, 0])
        run.register(TensorDataset(torch.zeros(3, 1)), name="texts", key=["a", 1, "c"])
    for trace in (fgtrac.open(run.path), *([blind(tmp_path)] if ids == "public" else [])):
        for verb in (trace.prove, trace.history, trace.find):
            with pytest.raises(ValueError, match=r"texts:1 names no row: .* are named by the keys that were given"):
                verb("texts:1")
        assert trace.history("texts:key:1").uses == 0
        assert trace.remark("rows:1") == trace.remark("numbers:key:1") == trace.remark(f"file:{__file__}") == ""
        assert "numbers:0 is the sample with key 0, not its row" in trace.remark("numbers:0")
        assert 'key 0 of data set "numbers"' in parse_bundle(trace.prove("numbers:0")).words


def blind(folder: Path) -> Trace:
    (folder / "run.vault").rename(folder / "elsewhere")
    return fgtrac.open(folder / "run.trace")


@pytest.mark.parametrize("name", ["id", "key:", "row:a.npy", "file:x", "class", "photos:key", "a:key:b", "role:x"])
def test_a_data_set_is_not_named_so_that_its_samples_would_be_read_as_something_else(tmp_path: Path, name: str) -> None:
    with fgtrac.start_run(tmp_path / "run") as run, pytest.raises(ValueError, match="would be read as something else"):
        run.register(TensorDataset(torch.zeros(3, 1)), name=name)


def test_a_key_that_stands_in_two_data_sets_is_refused_with_the_ids(tmp_path: Path) -> None:
    trace = record(tmp_path)
    with pytest.raises(ValueError, match="names 2 samples: id:"):
        trace.history("key:0")


def test_without_the_vault_only_ids_and_public_names_say_anything(tmp_path: Path) -> None:
    for ids in ("keyed", "public"):
        trace = record(tmp_path / ids, ids)
        sample = trace.history("rows:5").id
        (tmp_path / ids / "run.vault").rename(tmp_path / ids / "elsewhere")
        blind = fgtrac.open(trace.path)
        assert blind.history(f"id:{sample.hex()}").uses == 1
        if ids == "public":
            assert blind.history("rows:5").id == sample
        else:
            with pytest.raises(ValueError, match="put the vault beside the trace"):
                blind.history("rows:5")


def test_the_whole_trace_verifies_with_my_own_key_and_says_whose_it_is(tmp_path: Path) -> None:
    report = record(tmp_path).verify()
    assert report.verdict is Verdict.HOLDS
    assert report.notes[-1] == "the signature was checked with your own key"
    assert record(tmp_path / "b").history("rows:0").rests_on == "as signed with your own key"


# -- every scheme, every claim ----------------------------------------------------------------------------------------

HOLDS, UNKNOWN = Verdict.HOLDS, Verdict.CANNOT_TELL
ANSWERS = {  # of each claim: to a verifier without the id key, and to one who has it
    "used": {"public": (HOLDS, HOLDS), "keyed": (HOLDS, HOLDS), "subject": (HOLDS, HOLDS)},
    "history": {"public": (HOLDS, HOLDS), "keyed": (HOLDS, HOLDS), "subject": (HOLDS, HOLDS)},
    "never used": {"public": (HOLDS, HOLDS), "keyed": (HOLDS, HOLDS), "subject": (HOLDS, HOLDS)},
    "label never used": {"public": (HOLDS, HOLDS), "keyed": (HOLDS, HOLDS), "subject": (HOLDS, HOLDS)},
    "content present": {"public": (HOLDS, HOLDS), "keyed": (HOLDS, HOLDS), "subject": (HOLDS, HOLDS)},
    "never registered": {"public": (HOLDS, HOLDS), "keyed": (UNKNOWN, HOLDS), "subject": (UNKNOWN, UNKNOWN)},
    "content absent": {"public": (HOLDS, HOLDS), "keyed": (UNKNOWN, HOLDS), "subject": (UNKNOWN, UNKNOWN)},
}


@pytest.mark.parametrize("scheme", ["public", "keyed", "subject"])
def test_each_scheme_gives_each_claim_the_answer_of_the_design(tmp_path: Path, scheme: str) -> None:
    array = np.arange(8.0, dtype="f").reshape(4, 2)
    with fgtrac.start_run(tmp_path / "run", ids="public" if scheme == "public" else "keyed") as run:
        subject = ["x", "x", "y", "y"] if scheme == "subject" else None
        data = TensorDataset(torch.from_numpy(array))
        run.register(data, name="rows", role="train", subject=subject)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for (batch,) in run.watch(DataLoader(torch.utils.data.Subset(data, [0, 1]), batch_size=2)):
            model(batch).sum().backward()
            optimizer.step()
    trace = fgtrac.open(tmp_path / "run.trace")
    present, absent = (save(tmp_path / f"{n}.npy", array + n) for n in (0, 99))
    names = {"used": "rows:0", "history": "rows:1", "never used": "rows:2", "never registered": "rows:99"}
    names["label never used"] = "rows:3"
    names |= {"content present": f"row:{present}:3", "content absent": f"row:{absent}:0"}
    secret = next(iter(secrets_of(tmp_path, trace)), bytes(32))  # of the run, or of the first subject
    for claim, name in names.items():
        if (claim, scheme) == ("never registered", "subject"):
            named = preimage("rows", 99)  # no prover can say what its id would be: this one lies
            data_of = trace._prover.prove(Proof(keyed_id(secret, named), named), claim)
        else:
            data_of = trace.prove(name, claim)
        (tmp_path / "bundle.json").write_bytes(data_of)
        given = [verify_bundle(tmp_path / "bundle.json", id_key=key).verdict for key in (None, secret.hex())]
        assert tuple(given) == ANSWERS[claim][scheme], (claim, scheme)
        assert all(key.hex() not in data_of.decode() for key in (secret, *secrets_of(tmp_path, trace)))
        made_as_said = "This rests on every id and content digest being made as its data set says."
        assert (made_as_said in parse_bundle(data_of).words) is (scheme != "subject" and claim in ABSENCES)


def secrets_of(folder: Path, trace: Trace) -> list[bytes]:
    vault = Vault.open(folder / "run.vault", trace.id)
    try:
        return [secret for _, secret in vault.secrets()]
    finally:
        vault.close()


# -- contents ---------------------------------------------------------------------------------------------------------


def save(path: Path, array: Any) -> str:
    np.save(path, array)
    return str(path)


def test_the_row_of_an_array_is_what_a_tensor_data_set_registers(tmp_path: Path) -> None:
    """Whatever its type and shape: both sides compute the source from the row alone."""
    arrays = [
        np.arange(12).astype(dtype).reshape(shape)
        for dtype in ("float32", "float64", "float16", "int64", "uint8", "bool", "complex64")
        for shape in ((12,), (3, 4), (3, 2, 2))
    ]
    with fgtrac.start_run(tmp_path / "run", ids="public") as run:
        for n, array in enumerate(arrays):
            run.register(TensorDataset(torch.from_numpy(array)), name=f"set {n}")
    trace = fgtrac.open(tmp_path / "run.trace")
    for n, array in enumerate(arrays):
        swapped = array.astype(array.dtype.newbyteorder(">"))
        for name, stored in (("a", array), ("big endian", swapped), ("columns first", np.asfortranarray(array))):
            asked = f"row:{save(tmp_path / f'{name}.npy', stored)}:1"
            words, verdict = check(trace, asked, "content present", about=asked)
            assert verdict is Verdict.HOLDS, (n, name, words)
    asked = f"row:{save(tmp_path / 'new.npy', np.full((1, 4), 99.0))}:0"
    assert check(trace, asked, "content absent", about=asked)[1] is Verdict.HOLDS
    with pytest.raises(ValueError, match="which is a tensor float64 5, and that says nothing"):
        trace.prove(f"row:{save(tmp_path / 'new.npy', np.full((1, 5), 99.0))}:0")


@pytest.mark.parametrize(
    ("content", "index", "words"),
    [
        (b"\x93NUMPY", "0", "is no .npy file"),
        (b"text", "0", "is no .npy file"),
        (np.array([{}], dtype=object), "0", "is no .npy file"),
        (np.array(["a"]), "0", "is an array of numbers"),
        (np.zeros((2, 2)), "2", "so no row 2"),
        (np.zeros(()), "0", "so no row 0"),
        (np.zeros((2, 2)), "-1", "names no row"),
        (np.zeros((2, 2)), "", "names no row"),
    ],
)
def test_what_is_no_row_of_an_array_is_refused(tmp_path: Path, content: Any, index: str, words: str) -> None:
    path = tmp_path / "a.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises((ValueError, FormatError), match=words):
        about(f"row:{path}:{index}")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        about(f"row:{tmp_path / 'b.npy'}:0")


@pytest.mark.parametrize("ids", ["keyed", "public"])
def test_contents_are_found_under_every_scheme_and_absent_only_where_one_settles_it(tmp_path: Path, ids: str) -> None:
    """Rows of the run's scheme, of subjects, and of both."""
    trace, vault = record(tmp_path, ids), str(tmp_path / "run.vault")
    for array, who in ((np.arange(20.0, dtype="f").reshape(10, 2), "rows"), (np.ones((4, 1), "f"), "people")):
        asked = f"row:{save(tmp_path / f'{who}.npy', array)}:3"
        words, verdict = check(trace, asked, about=asked)
        assert verdict is Verdict.HOLDS, words
        assert (
            f"is held by {1 if who == 'rows' else 2} of the registered samples" in words
        )  # rows 2 and 3 are of one subject
    absent = f"row:{save(tmp_path / 'absent.npy', np.full((1, 2), 7.5, 'f'))}:0"
    for id_key in (None, vault) if ids == "keyed" else (None,):
        words, verdict = check(trace, absent, id_key=id_key, about=absent)
        assert (verdict, "is held by no registered sample" in words) == (Verdict.CANNOT_TELL, True)


def test_that_a_file_is_absent_says_nothing_of_rows(tmp_path: Path) -> None:
    """Where no contents are of files it is not proved; where some are, whoever asks about the file cannot tell."""
    (tmp_path / "there.txt").write_text("x")
    absent = save(tmp_path / "a.npy", np.ones((1, 2), "f"))
    files = OfFiles([str(tmp_path / "there.txt")])
    for name, datasets in (("rows", [torch.zeros(2, 2)]), ("both", [torch.zeros(2, 2), files])):
        with fgtrac.start_run(tmp_path / name, ids="public") as run:
            for number, data in enumerate(datasets):
                run.register(data, name=f"set {number}")
        trace = fgtrac.open(tmp_path / f"{name}.trace")
        assert check(trace, f"row:{absent}:0")[1] is Verdict.HOLDS
        if name == "rows":
            with pytest.raises(ValueError, match=r"says nothing: .* taken from 'tensor float32 2'"):
                trace.prove(f"file:{absent}")
        else:
            assert check(trace, f"file:{absent}")[1] is Verdict.HOLDS  # of the digest
            assert check(trace, f"file:{absent}", about=f"file:{absent}")[1] is Verdict.CANNOT_TELL


class OfFiles(torch.utils.data.Dataset[str]):
    """A data set that lists its files."""

    def __init__(self, samples: list[str]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, row: int) -> str:
        return self.samples[row]


# -- about whom -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ids", ["keyed", "public"])
def test_a_true_bundle_about_somebody_else_is_refuted(tmp_path: Path, ids: str) -> None:
    trace, vault = record(tmp_path, ids), str(tmp_path / "run.vault")
    sample = trace.find("rows:2").id.hex()
    for name, verdict in (
        ("rows:2", Verdict.HOLDS),
        ("rows:key:2", Verdict.HOLDS),
        (f"id:{sample}", Verdict.HOLDS),
        ("rows:3", Verdict.REFUTED),
        ("other:2", Verdict.REFUTED),
        ('rows:key:"2"', Verdict.REFUTED),
        (f"id:{'0' * 64}", Verdict.REFUTED),
        (f"row:{save(tmp_path / 'a.npy', np.zeros(2))}:0", Verdict.REFUTED),
    ):
        assert check(trace, "rows:2", about=name)[1] is verdict, name
        assert check(trace, "rows:6", about=name.replace("rows:2", "rows:6"))[1] in (verdict, Verdict.REFUTED)
    for name in ("rows:99", "rows:98"):
        expected = Verdict.HOLDS if name == "rows:99" else Verdict.REFUTED
        assert check(trace, "rows:99", id_key=vault if ids == "keyed" else None, about=name)[1] is expected


def test_a_bundle_that_names_the_id_alone_is_about_whom_the_id_can_be_computed_of(tmp_path: Path) -> None:
    for ids in ("keyed", "public"):
        trace, vault = record(tmp_path / ids, ids), tmp_path / ids / "run.vault"
        bare = f"id:{trace.find('rows:2').id.hex()}"
        vault.rename(tmp_path / ids / "elsewhere")
        blind = fgtrac.open(trace.path)
        expected = Verdict.HOLDS if ids == "public" else Verdict.CANNOT_TELL
        assert check(blind, bare, about="rows:2")[1] is expected
        assert check(blind, bare, about="rows:3")[1] is Verdict.CANNOT_TELL
        if ids == "keyed":
            assert check(blind, bare, about="rows:2", id_key=str(tmp_path / ids / "elsewhere"))[1] is Verdict.HOLDS


def test_a_key_without_its_data_set_says_too_little_to_a_verifier() -> None:
    with pytest.raises(ValueError, match='write NAME:key:"a"'):
        about('key:"a"')
    for text in ("rows", "rows:x", "rows:key:1.5", "rows:key:", "id:00"):
        with pytest.raises(ValueError, match=r"write|is no"):
            about(text)


def test_the_environment_is_read_when_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that restores the environment (datasets, behind a map in several processes) puts another one there."""
    monkeypatch.setattr(os, "environ", {**os.environ, "FGTRAC_KEY": str(tmp_path / "mine.pem")})
    with fgtrac.start_run(tmp_path / "a"):
        pass
    assert (tmp_path / "mine.pem").exists()
    assert fgtrac.open(tmp_path / "a.trace").verify().verdict is Verdict.HOLDS
