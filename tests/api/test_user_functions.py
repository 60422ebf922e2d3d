"""Functions of the user's own, named on a command line: what is found, and what is said where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from fgtrac.api.user_functions import FunctionFailedError, load_function, load_functions


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "named_here.py"
    path.write_text("def data():\n    return 7\n\ndef render(item):\n    return 1 / item\n\nnumber = 3\n")
    return path


def test_a_function_and_another_of_the_same_file(file: Path) -> None:
    data, render = load_functions(f"{file}:data", "render")
    assert render is not None
    assert (data(), render(2)) == (7, 0.5)
    with pytest.raises(FunctionFailedError, match=r"named_here.py, line 5: ZeroDivisionError"):
        render(0)
    assert load_functions(f"{file}:data", "draw")[1] is None
    assert load_functions(f"{file}:data", "number")[1] is None


def test_what_names_no_function_is_refused(file: Path) -> None:
    assert load_function(f"{file}:data")() == 7
    for named in ("named_here.py", f"{file}:", f"{file}:1x", f"{file}:number", f"{file}:absent"):
        with pytest.raises(ValueError, match="function"):
            load_functions(named, "render")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_function(f"{file}x.py:data")
