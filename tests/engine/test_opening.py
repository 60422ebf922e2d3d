"""The names of engines, what they default to, and errors that come home from another process."""

from __future__ import annotations

import pickle
import sys

import pytest
import typer

from fgtrac import errors
from fgtrac.cli.engine import memory_bytes
from fgtrac.engine.alone import Alone
from fgtrac.engine.local import cores
from fgtrac.engine.opening import named_engine, open_engine
from fgtrac.errors import FgtracError


@pytest.mark.parametrize(
    "name", ["", "locals", "local:", "local:0", "local:-1", "local:9999", "local:two", "ray:", "ray://", "ray://host",
             "ray://host:port", "ray://ho st:1", "Ray", "dask"],
)  # fmt: skip
def test_what_is_no_engine_is_refused_with_the_forms_there_are(name):
    with pytest.raises(ValueError, match=r"is no engine; an engine is local, local:N|are an engine"), open_engine(name):
        pass


def test_the_environment_names_the_engine_where_no_one_else_does(monkeypatch):
    assert named_engine({}) == "local"
    assert named_engine({"FGTRAC_ENGINE": "ray"}) == "ray"
    monkeypatch.setenv("FGTRAC_ENGINE", "local:1")
    with open_engine() as engine:
        assert isinstance(engine, Alone)
    monkeypatch.delenv("FGTRAC_ENGINE")
    with open_engine() as engine:
        assert engine.workers == cores()


@pytest.mark.parametrize(("name", "lacking"), [("ray", "ray"), ("ray://127.0.0.1:1", "grpc")])
def test_an_engine_that_is_not_installed_says_what_to_install(monkeypatch, name, lacking):
    monkeypatch.setitem(sys.modules, lacking, None)
    if lacking != "ray":
        pytest.importorskip("ray")
    with pytest.raises(ValueError, match=rf"needs {lacking}: pip install 'fgtrac\[ray\]'"), open_engine(name):
        pass


def test_every_error_of_the_package_comes_home_from_a_worker():
    def below(kind):
        return [kind, *(found for sub in kind.__subclasses__() for found in below(sub))]

    of_the_package = [kind for kind in below(FgtracError) if kind.__module__.startswith("fgtrac.")]
    assert len(of_the_package) >= len([kind for kind in vars(errors).values() if isinstance(kind, type)])
    for kind in of_the_package:
        home = pickle.loads(pickle.dumps(kind("what is wrong")))
        assert type(home) is kind
        assert str(home) == "what is wrong"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("4G", 4 << 30),
        ("4GiB", 4 << 30),
        ("4GB", 4 << 30),
        ("512M", 512 << 20),
        ("7K", 7 << 10),
        ("2T", 2 << 40),
    ],
)
def test_memory_is_said_in_powers_of_1024(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["", "0", "0G", "-1G", "4 apples", "1.5G", "G", "4Gi B", "9" * 13, "4P"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(typer.BadParameter, match="is no amount of memory"):
        memory_bytes(text)
