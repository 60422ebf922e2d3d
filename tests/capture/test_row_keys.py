"""What may name a row, and what a wrong key is told: its row, what it is, and what to give instead."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import TensorDataset

from fgtrac.api.run import Run, start_run
from fgtrac.capture import sample_ids
from fgtrac.capture.envelope import names_of
from fgtrac.errors import CaptureError
from fgtrac.events.identity import preimage, public_id


def numbers(count: int) -> TensorDataset:
    return TensorDataset(torch.arange(count))


@pytest.mark.parametrize(
    ("wrong", "error", "words"),
    [
        (1.5, TypeError, "1.5 of type float is no key"),
        ([1], TypeError, r"\[1\] of type list is no key; use an int >= 0, text, bytes or a tuple"),
        (2**64, ValueError, "an int of 65 bits does not fit 64 bits"),
        (10**5000, ValueError, "an int of 16610 bits does not fit 64 bits"),
        ("\ud800", ValueError, "half a character"),
        ("a" * 300 + "\ud800", ValueError, "half a character"),
        (("stage", (bytes(32),), 2**64), ValueError, "does not fit 64 bits"),
        (functools.reduce(lambda key, _: (key,), range(1000), 0), ValueError, "nested deeper than 15"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isascii() else "",
)
def test_a_wrong_key_is_told_with_its_row(
    run: Run, monkeypatch: pytest.MonkeyPatch, wrong: Any, error: type[Exception], words: str
) -> None:
    monkeypatch.setattr(sample_ids, "AT_ONCE", 2)
    with pytest.raises(error, match=f"^the key of row 3 of 'digits': .*{words}"):
        run.register(numbers(4), name="digits", key=["a", 1, b"b", wrong])


@pytest.mark.parametrize("wrong", [2**64, "\ud800"])
def test_a_wrong_subject_is_told_with_its_row(run: Run, wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^row 1 has the subject .*, which has no encoding: "):
        run.register(numbers(2), subject=["ada", wrong])


@pytest.mark.parametrize("given", [{1, 2, 3}, frozenset("abc"), {"a": 1, "b": 2, "c": 3}, b"abc"])
@pytest.mark.parametrize("what", ["key", "subject"])
def test_what_has_no_order_of_rows_names_none(run: Run, what: str, given: Any) -> None:
    with pytest.raises(TypeError, match=f"^{what}= is a {type(given).__name__}, which is no list of values by row"):
        run.register(numbers(3), **{what: given})


def test_a_tensor_of_numbers_gives_keys(tmp_path: Path) -> None:
    with start_run(tmp_path / "open", ids="public", key=tmp_path / "key.pem") as run:
        run.register(numbers(3), name="digits", key=torch.tensor([5, 3, 9]))
        (root,) = run._registry.registered()
    assert [row.tobytes() for row in root.ids] == [public_id(preimage("digits", key)) for key in (5, 3, 9)]


def test_a_wrong_key_of_a_stream_is_told_in_words() -> None:
    for wrong in ("\ud800", 2**64, functools.reduce(lambda key, _: (key,), range(1000), 0)):
        with pytest.raises(CaptureError, match=r"(is|are) no key; .*name the samples by watch\(loader, key=...\)"):
            names_of([1], lambda sample, wrong=wrong: wrong, is_batch=True)
