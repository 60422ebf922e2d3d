"""Pictures of samples: every kind of data is drawn or named, within its bounds, and held against the log's digest."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from asgi import ask
from fgtrac.api.erase import erase
from fgtrac.api.trace import Trace, open_trace
from fgtrac.web.explorer import explorer_app
from fgtrac.web.thumbnails import SHOWN, SIDE, Thumbnails, draw
from lives import live
from people_trace import PEOPLE, people, record_people


def pixels(png: bytes | None) -> np.ndarray:
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trace]:
    made: dict[str, Trace] = {}

    def of(scheme: str) -> Trace:
        if scheme not in made:
            made[scheme] = open_trace(record_people(tmp_path_factory.mktemp(scheme), scheme))
        return made[scheme]

    return of


def id_of(trace: Trace, row: int) -> bytes:
    return trace.find(f"people:{row}").id


# -- what is drawn ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "shape"),
    [
        (np.zeros((28, 20), np.uint8), (28, 20)),
        (np.zeros((1, 28, 20), np.float32), (28, 20)),
        (np.zeros((3, 28, 20), np.uint8), (28, 20, 3)),
        (np.zeros((28, 20, 3), np.uint8), (28, 20, 3)),
        (np.zeros((28, 20, 4), np.uint8), (28, 20, 3)),
        (torch.zeros(3, 28, 20), (28, 20, 3)),
        (torch.zeros(28, 20, dtype=torch.int64), (28, 20)),
        (np.zeros((28, 20), bool), (28, 20)),
        (Image.new("RGB", (20, 28)), (28, 20, 3)),
        (Image.new("1", (20, 28)), (28, 20)),
        (Image.new("P", (20, 28)), (28, 20, 3)),
        ({"text": "a caption", "image": Image.new("L", (20, 28))}, (28, 20)),
    ],
)
def test_an_image_is_drawn_as_it_is(value: Any, shape: tuple[int, ...]) -> None:
    assert pixels(draw(value)[0]).shape == shape


@pytest.mark.parametrize("shape", [(2000, 1500), (3, 900, 700), (129, 3), (4000, 4000, 3)])
def test_a_large_image_is_made_small(shape: tuple[int, ...]) -> None:
    drawn = pixels(draw(np.full(shape, 200, np.uint8))[0])
    assert max(drawn.shape[:2]) <= SIDE
    assert (drawn == 200).all()


def test_bytes_keep_their_brightness_and_other_numbers_are_stretched() -> None:
    assert pixels(draw(np.array([[0, 7], [9, 100]], np.uint8))[0]).tolist() == [[0, 7], [9, 100]]
    assert pixels(draw(np.array([[0, 0.5], [1, 1]], np.float32))[0]).tolist() == [[0, 128], [255, 255]]
    assert pixels(draw(np.array([[-2.0, 0], [2, np.nan]]))[0]).tolist() == [[0, 128], [255, 128]]
    assert pixels(draw(np.array([[-1e308, 1e308], [np.inf, 0]]))[0]).tolist() == [[0, 255], [128, 128]]


@pytest.mark.parametrize("numbers", [np.arange(5.0), torch.linspace(-1, 1, 1000), np.zeros(3), np.full(2, np.nan)])
def test_a_row_of_numbers_is_a_strip_of_bars(numbers: Any) -> None:
    drawn = pixels(draw(numbers)[0])
    assert drawn.ndim == 2
    assert drawn.shape[1] <= SIDE


def test_a_bar_stands_where_its_number_says() -> None:
    drawn = pixels(draw(np.array([1.0, -1.0]))[0])
    left, right = drawn[:, : drawn.shape[1] // 2], drawn[:, drawn.shape[1] // 2 :]
    middle = len(drawn) // 2
    assert (left[:middle] == 64).sum() > 10 * (left[middle + 1 :] == 64).sum()
    assert (right[middle + 1 :] == 64).sum() > 10 * (right[:middle] == 64).sum()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a text <b>", "a text <b>"),
        (7, "7"),
        (np.float32(0.5), "0.5"),
        (None, "None"),
        (b"\x00\x01abc", "5 bytes"),
        (np.zeros((2, 3, 4, 5), np.float32), "float32 array of 2 x 3 x 4 x 5"),
        (torch.zeros(3, dtype=torch.bfloat16), "a Tensor"),
        (np.array([1 + 2j]), "complex128 array of 1"),
        ({"age": 41, "town": "Bern"}, "age: 41, town: Bern"),
        (object(), "a object"),
        pytest.param(10**5000, "bits", id="a huge number"),
    ],
)
def test_whatever_else_there_is_is_named(value: Any, words: str) -> None:
    png, text = draw(value)
    assert png is None
    assert words in text


def test_long_texts_are_cut_without_being_read_through() -> None:
    start = time.perf_counter()
    for value in ("x" * 10**7, {"a": "y" * 10**7}, b"z" * 10**7):
        assert len(draw(value)[1]) <= SHOWN
    assert time.perf_counter() - start < 1


# -- whether it is what was recorded ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["public", "keyed", "subject"])
def test_the_recorded_data_match_and_others_differ(traces: Callable[[str], Trace], scheme: str) -> None:
    trace, other = traces(scheme), people()
    mine = id_of(trace, 3)
    assert Thumbnails({"people": people()}).of(trace, mine).check == "matches"
    assert Thumbnails(people()).of(trace, mine).check == "matches"  # the only data set has no other name
    other.tensors[0][3, 0] += 1
    assert Thumbnails({"people": other}).of(trace, mine).check == "differs"
    assert Thumbnails({"people": other}).of(trace, id_of(trace, 4)).check == "matches"
    doubled = Thumbnails({"people": people().tensors[0].double()}).of(trace, mine)
    assert doubled.check == "differs"
    assert "float64 4 is given, the log has tensor float32 4" in doubled.words


def test_arrays_lists_and_tables_are_data_sets_too(traces: Callable[[str], Trace]) -> None:
    trace = traces("keyed")
    mine, values = id_of(trace, 2), people().tensors[0].numpy()
    assert Thumbnails({"people": values}).of(trace, mine).check == "matches"
    assert Thumbnails({"people": [(row, 0) for row in values]}).of(trace, mine).check == "matches"
    framed = Thumbnails({"people": pd.DataFrame(values)}).of(trace, mine)
    assert framed.check == "not checked"
    assert "0: 8.0" in framed.text


def test_keys_of_ones_own_find_the_item(tmp_path: Path) -> None:
    names = [f"<i>{row}</i>.png" for row in range(8)]
    trace = open_trace(record_people(tmp_path, "keyed", key=names))
    given = dict(zip(names, people().tensors[0], strict=True))
    for row in (0, 5):
        found = Thumbnails({"people": given}).of(trace, trace.find(f'people:key:"{names[row]}"').id)
        assert (found.check, found.png is not None) == ("matches", True)


def test_public_ids_are_found_without_a_vault_and_keyed_ones_are_not(tmp_path: Path) -> None:
    for scheme, words in (("public", "as the log"), ("keyed", "no vault beside the trace")):
        folder = tmp_path / scheme
        folder.mkdir()
        path = record_people(folder, scheme)
        mine = id_of(open_trace(path), 6)
        path.with_suffix(".vault").unlink()
        found = Thumbnails({"people": people()}).of(open_trace(path), mine)
        assert found.check == ("matches" if scheme == "public" else "not checked")
        assert scheme == "public" or words in found.words


def test_data_without_digests_or_names_say_so(tmp_path: Path) -> None:
    trace = open_trace(record_people(tmp_path, "public", content=False))
    found = Thumbnails({"people": people()}).of(trace, id_of(trace, 0))
    assert (found.check, found.words) == ("not checked", "the log has no digest of this sample's content")
    life = live(tmp_path / "life", vault=True) if (tmp_path / "life").mkdir() is None else None
    assert life is not None
    crop = open_trace(life.path)
    assert "gives no data set" in Thumbnails({"cats": [1]}).of(crop, life.made.ids[0]).words
    assert "return {name: data set}" in Thumbnails([1]).of(crop, life.made.ids[0]).words


def test_a_source_of_ones_own_is_compared_where_the_data_give_it(tmp_path: Path) -> None:
    trace = open_trace(record_people(tmp_path, "keyed", source=lambda row: b"scan %d" % row))

    class Scans:
        def __init__(self, text: bytes) -> None:
            self.text = text

        def __getitem__(self, row: int) -> str:
            return f"scan {row}"

        def source(self, row: int) -> bytes:
            return self.text % row

    mine = id_of(trace, 1)
    assert Thumbnails({"people": Scans(b"scan %d")}).of(trace, mine).check == "source matches"
    assert Thumbnails({"people": Scans(b"can %d")}).of(trace, mine).check == "differs"
    assert Thumbnails({"people": people()}).of(trace, mine).check == "not checked"


class Held:
    """In torchvision's style: `data` holds the rows, of which `shown` makes what is given, with the label 9."""

    def __init__(self, shown: Callable[[np.ndarray], Any]) -> None:
        self.data, self.targets, self.shown = people().tensors[0].numpy(), [9] * 8, shown

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.shown(self.data[row]), 9


@pytest.mark.parametrize(
    ("check", "shown"),
    [
        ("matches", lambda row: row),
        ("matches", torch.from_numpy),
        ("source matches", lambda row: row + 1),
        ("source matches", lambda row: row.astype(float)),
        ("source matches", lambda row: "HELLO"),
    ],
)
def test_only_what_was_digested_matches_and_its_label_is_told_apart(
    traces: Callable[[str], Trace], check: str, shown: Callable[[np.ndarray], Any]
) -> None:
    trace = traces("public")
    found = Thumbnails({"people": Held(shown)}).of(trace, id_of(trace, 1))
    assert (found.check, found.label) == (check, "9")


def test_who_was_erased_is_not_shown_any_more(tmp_path: Path) -> None:
    path, thumbnails = record_people(tmp_path, "subject"), Thumbnails({"people": people()})
    mine = id_of(open_trace(path), 0)
    app = explorer_app(tmp_path, key=str(tmp_path / "key.pem"), given=thumbnails)
    address = f"/run/run/sample/{mine.hex()}"
    assert ask(app, f"{address}/thumbnail.png").status == 200
    assert "Label, which is in no digest: 0" in ask(app, address).text
    erase(path, subject=PEOPLE[0], key=tmp_path / "key.pem")
    assert ask(app, f"{address}/thumbnail.png").status == 404
    assert "no name of this sample is known here" in ask(app, address).text


# -- code of other people's -------------------------------------------------------------------------------------------


def test_data_that_raise_or_lack_a_row_are_told_and_nothing_breaks(traces: Callable[[str], Trace]) -> None:
    trace = traces("public")

    class Broken:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, row: int) -> Any:
            raise RuntimeError(f"row {row} is <b>lost</b>" + "!" * 10_000)

    found = Thumbnails({"people": Broken()}).of(trace, id_of(trace, 0))
    assert found.words.startswith("the function's data raised RuntimeError: row 0 is <b>lost</b>")
    assert len(found.words) < 400
    assert "has no 0" in Thumbnails({"people": []}).of(trace, id_of(trace, 0)).words


def test_data_that_take_long_keep_nobody_waiting(traces: Callable[[str], Trace]) -> None:
    trace, gate = traces("public"), threading.Event()

    class Slow:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, row: int) -> Any:
            gate.wait(20)
            return np.zeros(4, np.float32)

    thumbnails = Thumbnails({"people": Slow()}, wait_s=0.05)
    start = time.perf_counter()
    assert "took more than 0.05 s" in thumbnails.of(trace, id_of(trace, 0)).words
    assert "still busy" in thumbnails.of(trace, id_of(trace, 1)).words
    assert time.perf_counter() - start < 2
    gate.set()


def test_a_function_of_ones_own_may_draw(traces: Callable[[str], Trace]) -> None:
    trace = traces("public")
    thumbnails = Thumbnails({"people": people()}, lambda item: np.outer(item[0], item[0]))
    found = thumbnails.of(trace, id_of(trace, 1))
    assert pixels(found.png).shape == (4, 4)
    assert found.check == "source matches"
    assert "what is shown was made of it" in found.words


def test_a_picture_is_drawn_once(traces: Callable[[str], Trace]) -> None:
    trace, asked = traces("public"), []

    class Counting:
        def __len__(self) -> int:
            return 8

        def __getitem__(self, row: int) -> Any:
            asked.append(row)
            return people()[row]

    thumbnails = Thumbnails({"people": Counting()})
    assert thumbnails.of(trace, id_of(trace, 5)) is thumbnails.of(trace, id_of(trace, 5))
    assert asked == [5]
