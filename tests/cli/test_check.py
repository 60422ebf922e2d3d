"""`fgtrac check` on real trainings: leaks are found by id and by content, opt-outs by list, and every mistake of the
caller is one line with exit code 2."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from fgtrac.api.erase import erase
from fgtrac.api.run import start_run
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from lives import Life
from traces import make_trace

Train = Callable[..., Path]
OFF = "[held-out]\non = false\n[held-out-contents]\non = false\n[every-training-sample-used]\non = false\n"


def pictures(rows: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    return TensorDataset(torch.randn(rows, 4, generator=generator), torch.arange(rows) % 2)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Train one epoch on `data` in batches of 4, with some pictures held out; the trace's path."""

    def make(data: Dataset, held: Dataset, *, registered: Dataset | None = None) -> Path:
        folder = tmp_path_factory.mktemp("run")
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with start_run(folder / "run", key=folder / "key.pem") as run:
            run.register(held, name="held", role="test")
            if registered is not None:
                run.register(registered, role="train")
            for inputs, labels in run.watch(DataLoader(data, batch_size=4), role="train"):
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
        return run.path

    return make


@pytest.fixture(scope="module")
def clean(train: Train) -> Path:
    return train(pictures(8, 1), pictures(4, 2))


def key_of(trace: Path) -> Path:
    return trace.parent / "key.pem"


def policy(folder: Path, text: str) -> Path:
    (folder / "policy.toml").write_text('format = "fgtrac-policies/v1"\n' + text)
    return folder / "policy.toml"


def refuted(report: dict) -> set[str]:
    return {f["check"] for f in report["findings"] if f["verdict"] == "refuted"}


def words_of(report: dict, check: str) -> str:
    (words,) = [f["words"] for f in report["findings"] if f["check"] == check]
    return words


def test_a_training_that_keeps_its_test_set_apart_holds(run, clean: Path) -> None:
    done = run("check", clean, "--key", key_of(clean))
    assert done.code == 0, done.out
    assert done.err == ""
    assert "no use of 4 samples in the role validation, test or excluded is among the 8 uses" in done.out
    assert run("check", clean, "--key", key_of(clean), "--json").json["violations"] == []


def test_a_test_row_in_the_training_loader_is_named(run, train: Train, tmp_path: Path) -> None:
    held = pictures(4, 2)
    trace = train(ConcatDataset([pictures(6, 1), Subset(held, [2])]), held)
    done = run("check", trace, "--key", key_of(trace), "--json", "-o", tmp_path / "out.csv")
    assert done.code == 1
    assert refuted(done.json) == {"held-out"}
    (found,) = done.json["violations"]
    assert (found["sample"], found["step"], found["epoch"], found["superseded"]) == ("held:2", 2, 0, False)
    assert f"sample held:2 in step 2, epoch 0, entry {found['entry']}" in words_of(done.json, "held-out")
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert {k: v for k, v in row.items() if v} == {k: str(v) for k, v in found.items()}
    table = run("check", trace, "--key", key_of(trace)).out
    assert "held:2" in table
    assert "refuted" in table


def test_the_same_picture_in_two_data_sets_is_found_by_its_content(run, train: Train) -> None:
    data, held = pictures(8, 1), pictures(4, 2)
    data.tensors[0][5] = held.tensors[0][3]
    trace = train(data, held)
    done = run("check", trace, "--key", key_of(trace), "--json")
    assert refuted(done.json) == {"held-out-contents"}
    (found,) = done.json["violations"]
    assert (found["sample"], found["step"]) == ("TensorDataset:5", 2)
    twin = run("history", trace, f"id:{found['same_content_as']}", "--json").json
    assert twin["name"] == "held:3"


def test_a_training_sample_that_the_loader_left_out_is_named(run, train: Train) -> None:
    data = pictures(9, 1)
    trace = train(Subset(data, range(8)), pictures(4, 2), registered=data)
    done = run("check", trace, "--key", key_of(trace), "--json")
    assert refuted(done.json) == {"every-training-sample-used"}
    assert done.json["violations"][0]["sample"] == "TensorDataset:8"
    assert "step" not in done.json["violations"][0]


def test_without_a_key_nobody_can_tell_and_with_another_nothing_is_checked(run, clean: Path) -> None:
    done = run("check", clean, "--json")
    assert done.code == 3
    assert refuted(done.json) == set()
    assert words_of(done.json, "held-out").startswith("no use of 4 samples")
    other = run("check", clean, "--key", "11" * 32, "--json")
    assert other.code == 1
    assert words_of(other.json, "held-out") == "not checked, since the check of tiles does not hold"


def test_a_tampered_log_is_held_to_no_policy(run, clean: Path, tmp_path: Path) -> None:
    shutil.copytree(clean.parent, tmp_path / "copy")
    trace = TraceDir(tmp_path / "copy" / clean.name)
    tile = trace.path / next(name for name in trace.names() if name.startswith("tile/entries"))
    tile.write_bytes(tile.read_bytes().replace(b"applied", b"appliee").replace(b"train", b"trail"))
    done = run("check", trace.path, "--key", key_of(clean), "--json")
    assert done.code == 1
    assert refuted(done.json) == {"entries"}
    assert words_of(done.json, "held-out") == "not checked, since the check of entries does not hold"


def test_entries_that_are_not_sealed_may_be_uses(run, tmp_path: Path) -> None:
    made = make_trace(tmp_path / "a")
    key = made.signer.public_key.hex()
    assert "nothing waits" in words_of(run("check", made.trace.path, "--key", key, "--json").json, "journal")
    waiting = make_trace(tmp_path / "b", sealed=False, seals=(3,))
    done = run("check", waiting.trace.path, "--key", key, "--json")
    assert done.code == 3
    assert "entries are not sealed yet, and may be uses; run fgtrac seal" in words_of(done.json, "journal")
    fresh = make_trace(tmp_path / "c", sealed=False)
    done = run("check", fresh.trace.path, "--key", key, "--json")
    assert (done.code, words_of(done.json, "signature")) == (3, "nothing is sealed yet; run fgtrac seal")


# -- policy files -----------------------------------------------------------------------------------------------------


def test_a_policy_that_is_switched_off_is_not_decided_and_that_is_said(run, clean: Path, tmp_path: Path) -> None:
    done = run("check", clean, "--key", key_of(clean), "--policy", policy(tmp_path, OFF), "--json")
    assert done.code == 0
    assert [f["check"] for f in done.json["findings"]][-2:] == ["journal", "erased-subjects"]
    assert sum("is switched off by" in note for note in done.json["notes"]) == 3


def test_lists_of_names_and_contents_are_read_beside_the_policy_file(run, clean: Path, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("TensorDataset:7\nkey:99\n")
    (tmp_path / "none.txt").write_text("")
    text = '[[opt-out]]\nname = "names"\nsamples = "names.txt"\n[[opt-out]]\nname = "none"\nsamples = "none.txt"\n'
    text += '[[opt-out]]\nname = "later"\nsamples = "names.txt"\nafter = 2100-01-01T00:00:00Z\n'
    done = run("check", clean, "--key", key_of(clean), "--policy", policy(tmp_path, text), "--json")
    assert refuted(done.json) == {"opt-out names"}
    assert [v["sample"] for v in done.json["violations"]] == ["TensorDataset:7"]


def test_without_the_vault_keyed_names_cannot_be_told_and_with_its_key_they_can(
    run, clean: Path, tmp_path: Path
) -> None:
    shutil.copytree(clean, tmp_path / "run.trace")
    (tmp_path / "names.txt").write_text("TensorDataset:7\nTensorDataset:8\n")
    text = '[[opt-out]]\nname = "names"\nsamples = "names.txt"\n'
    ask = ("check", tmp_path / "run.trace", "--key", key_of(clean), "--policy", policy(tmp_path, text), "--json")
    blind = run(*ask)
    assert blind.code == 3
    assert '2 names cannot be looked up in "' in words_of(blind.json, "opt-out names")
    assert refuted(run(*ask, "--id-key", clean.with_suffix(".vault")).json) == {"opt-out names"}
    wrong = run(*ask, "--id-key", "11" * 32)
    assert (wrong.code, wrong.err) == (
        2, "fgtrac: --id-key holds another id key than the run committed to; name the right one with --id-key\n"
    )  # fmt: skip


def test_a_folder_of_files_is_a_list_of_contents(run, tmp_path: Path) -> None:
    class Files(Dataset):
        """Pictures in files, as an image folder has them."""

        def __init__(self, folder: Path) -> None:
            self.samples = [(str(path), 0) for path in sorted(folder.iterdir())]

        def __len__(self) -> int:
            return len(self.samples)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            return torch.ones(4) * len(Path(self.samples[row][0]).read_bytes()), self.samples[row][1]

    for name in ("photos", "gone/deeper", "other"):
        (tmp_path / name).mkdir(parents=True)
    for row in range(4):
        (tmp_path / "photos" / f"{row}.png").write_bytes(b"x" * row)
    (tmp_path / "gone/deeper/renamed.png").write_bytes(b"xx")
    (tmp_path / "other/a.png").write_bytes(b"xxxxx")
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as recording:
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for inputs, labels in recording.watch(DataLoader(Files(tmp_path / "photos"), batch_size=2), role="train"):
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    text = OFF + "".join(f'[[opt-out]]\nname = "{n}"\ncontents = "{n}"\n' for n in ("gone", "other", "hashes"))
    (tmp_path / "hashes").write_text(f"{hashlib.sha256(b'x').hexdigest()}  any.png\n")
    done = run("check", recording.path, "--key", tmp_path / "key.pem", "--policy", policy(tmp_path, text), "--json")
    assert refuted(done.json) == {"opt-out gone", "opt-out hashes"}
    assert [(v["policy"], v["sample"]) for v in done.json["violations"]] == [
        ("opt-out gone", "Files:2"), ("opt-out hashes", "Files:1"),
    ]  # fmt: skip


def test_nothing_in_a_folder_of_contents_is_left_out(run, clean: Path, tmp_path: Path) -> None:
    """What is not read would be called unused."""
    away, gone = tmp_path / "away", tmp_path / "gone"
    away.mkdir()
    (away / "a.png").write_bytes(b"x")
    path = policy(tmp_path, OFF + '[[opt-out]]\nname = "gone"\ncontents = "gone"\nsource = "tensor"\n')
    ask = ("check", clean, "--key", key_of(clean), "--policy", path)
    for made, words in (
        (lambda: (gone / "deeper").mkdir(), "gone, a folder of contents, has no file in it"),
        (lambda: (gone / "person").symlink_to(away), "person is a link to a folder, which is not followed"),
        (lambda: (gone / "lost").symlink_to(away / "b.png"), "lost is a link to no file"),
        (lambda: (gone / "round").symlink_to(gone), "round is a link to a folder"),
        (lambda: os.mkfifo(gone / "pipe"), "pipe is neither a file nor a folder"),
    ):
        gone.mkdir()
        made()
        done = run(*ask)
        assert (done.code, done.out) == (2, ""), done
        assert words in done.err
        assert done.err.count("\n") == 1
        shutil.rmtree(gone)
    gone.mkdir()
    (gone / "a.png").symlink_to(away / "a.png")
    assert run(*ask).code == 0
    gone.rename(tmp_path / "real")
    gone.symlink_to(tmp_path / "real")
    assert run(*ask).code == 0


def test_subjects_are_named_as_they_were_registered_until_they_are_erased(run, tmp_path: Path) -> None:
    data, model = pictures(4, 1), torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as recording:
        recording.register(data, name="people", role="train", subject=["ann", "ann", "ben", "ben"])
        for inputs, labels in recording.watch(DataLoader(data, batch_size=4)):
            torch.nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
    trace = tmp_path / "run.trace"
    text = OFF + '[[opt-out]]\nname = "ann"\nsubjects = ["ann"]\n[[opt-out]]\nname = "ben"\nsubjects = ["ben"]\n'
    ask = ("check", trace, "--key", tmp_path / "key.pem", "--policy", policy(tmp_path, text), "--json")
    assert refuted(run(*ask).json) == {"opt-out ann", "opt-out ben"}
    erase(trace, subject="ben", key=tmp_path / "key.pem")
    done = run(*ask)
    assert refuted(done.json) == {"opt-out ann"}
    assert '1 of 1 subjects, the first is "ben", have no secret' in words_of(done.json, "opt-out ben")
    assert "no use of 2 samples of 1 erased subject after the erasure" in words_of(done.json, "erased-subjects")


def test_digits_that_are_a_text_and_a_number_are_not_judged_as_either(run, tmp_path: Path) -> None:
    with start_run(tmp_path / "run", key=tmp_path / "key.pem") as recording:
        recording.register(pictures(2, 1), name="people", role="train", subject=["7", 7])
    text = OFF + '[[opt-out]]\nname = "seven"\nsubjects = ["7"]\n'
    done = run("check", tmp_path / "run.trace", "--key", tmp_path / "key.pem", "--policy", policy(tmp_path, text))
    assert done.code == 2
    assert "there are two such subjects: the text '7', pseudonym" in done.err


# -- mistakes ---------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[str | bytes, str]] = {
    "not TOML": ("[held-out", "no TOML: Expected ']'"),
    "no format": (b"", 'the first line is format = "fgtrac-policies/v1"'),
    "not text": (b"\xff", "line 1 is no UTF-8"),
    "an unknown policy": ("[heldout]", 'no field "heldout"; its fields are format, held-out'),
    "an unknown role": ('[held-out]\nroles = ["tset"]', "name at least one of validation, test, excluded"),
    "a time without offset": (
        '[[opt-out]]\nname = "a"\nsamples = "names"\nafter = 2026-01-01', "a date and time with its offset"),
    "a missing list": ('[[opt-out]]\nname = "a"\nsamples = "nosuch"', "opt-out a: nosuch is no plain file"),
    "a folder for names": ('[[opt-out]]\nname = "a"\nsamples = "."', "opt-out a: . is no plain file"),
    "a device": ('[[opt-out]]\nname = "a"\ncontents = "/dev/zero"', "neither a plain file nor a folder"),
    "a list of no names": (
        '[[opt-out]]\nname = "a"\nsamples = "names"', 'opt-out a: names: line 2, "seven", names no sample'),
    "a list of no digests": (
        '[[opt-out]]\nname = "a"\ncontents = "names"', "opt-out a: names: line 1"),
    "an unknown data set": (
        '[[opt-out]]\nname = "a"\nsamples = "fine"\ndatasets = ["photo"]', 'no data set "photo"; it has "held"'),
    "too much": (b"#\n" * 40_000, "more than 65,536 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_a_mistake_in_a_policy_is_one_line_with_exit_code_2(
    text: str | bytes, words: str, run, clean: Path, tmp_path: Path
) -> None:
    (tmp_path / "names").write_text("held:1\nseven\n")
    (tmp_path / "fine").write_text("key:1\n")
    path = policy(tmp_path, text if isinstance(text, str) else "")
    if isinstance(text, bytes):
        path.write_bytes(text)
    done = run("check", clean, "--key", key_of(clean), "--policy", path)
    assert done.code == 2, done
    assert done.out == ""
    assert words in done.err
    assert done.err.count("\n") == 1


def test_other_mistakes_end_with_exit_code_2_and_write_nothing(run, clean: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("mine")
    public = make_trace(tmp_path / "public")
    for arguments, words in (
        ((tmp_path / "no.trace",), "there is no trace at"),
        ((clean, "--policy", tmp_path / "no.toml"), "there is no policy file"),
        ((clean, "--key", "secret"), "is no key and no file"),
        ((clean, "--id-key", "secret"), "there is no vault at secret"),
        ((public.trace.path, "--key", public.signer.public_key.hex(), "--id-key", "11" * 32), "leave --id-key out"),
        ((clean, "-o", tmp_path / "there.csv"), "is there already; name another file"),
        ((clean, "-o", tmp_path / "no/where.csv"), "there is no folder"),
        ((clean, "--show", "-1"), "greater than or equal to 0"),
    ):
        done = run("check", *arguments)
        assert (done.code, done.out) == (2, ""), done
        assert words in done.err
    assert (tmp_path / "there.csv").read_text() == "mine"


def test_a_vault_with_another_key_is_refused(run, clean: Path, tmp_path: Path) -> None:
    shutil.copytree(clean, tmp_path / "run.trace")
    trace_id = bytes.fromhex(TraceDir(clean).head().origin.removeprefix("fgtrac/"))
    with closing(Vault.create(tmp_path / "run.vault", trace_id)) as vault:
        vault.secret("run")
    done = run("check", tmp_path / "run.trace", "--key", key_of(clean))
    assert done.code == 2
    assert "the vault beside the trace holds another id key than the run committed to" in done.err


def test_the_table_shows_some_and_counts_all(run, lived: Life) -> None:
    done = run("check", lived.path, "--key", lived.made.signer.public_key.hex(), "--show", 2)
    assert done.code == 1
    assert "every-training-sample-used: 6 violations; --json and -o list all of them" in done.out


def test_names_in_the_table_are_shown_whole(run, train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    held = pictures(4, 2)
    data = pictures(8, 1)
    data.tensors[0][5] = held.tensors[0][3]
    trace = train(data, held)
    twin = run("history", trace, "held:3", "--json").json["id"]
    monkeypatch.setenv("COLUMNS", "60")
    done = run("check", trace, "--key", key_of(trace)).out
    table = done[done.rindex("remark") :]  # the last column has a head too
    assert "…" not in done
    joined = "".join(word for line in table.splitlines() for word in line.replace("┃", "│").split("│")[-2:-1])
    assert f"contentofid:{twin[:16]}" in joined.replace(" ", "")


def test_checking_loads_no_torch(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "names").write_text("held:1\n")
    path = policy(tmp_path, '[[opt-out]]\nname = "a"\nsamples = "names"')
    code = (
        "import sys; from pathlib import Path; from fgtrac.api.check import check_trace; import fgtrac.cli.main\n"
        f"found = check_trace(Path({str(clean)!r}), {str(key_of(clean))!r}, policy=Path({str(path)!r}))\n"
        "assert str(found.report.verdict) == 'holds', found.report\n"
        "assert not {'torch', 'safetensors', 'socket'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
