"""The names of engines, what they default to, and errors that come home from another process."""

from __future__ import annotations

import importlib
import pickle
import pkgutil
import sys

import pytest
import typer

import fgtrac
from fgtrac.api.sealing import NotPushedError
from fgtrac.cli.engine import memory_bytes
from fgtrac.engine.alone import Alone
from fgtrac.engine.local import cores
from fgtrac.engine.opening import named_engine, open_engine
from fgtrac.errors import FgtracError
from fgtrac.score.finite import NotFinite, SamplesNotFinite


@pytest.mark.parametrize(
    "name", ["", "locals", "local:", "local:0", "local:-1", "local:9999", "local:two", "ray:", "ray://", "ray://host",
             "ray://host:port", "ray://ho st:1", "ray://host:0", "ray://host:99999", "Ray", "dask"],
)  # fmt: skip
def test_what_is_no_engine_is_refused_with_the_forms_there_are(name):
    with (
        pytest.raises(
            ValueError,
            match=r"is no engine(; an engine is local|: local:N has 1 to 1024 processes$|: a port is 1 to 65535$)",
        ),
        open_engine(name),
    ):
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


def test_every_error_of_the_package_comes_home_from_a_worker_as_itself():
    import_all(fgtrac)
    found = below(FgtracError)
    assert len(found) > 20
    for kind in found:
        said = ODD.get(kind, ("what is wrong",))
        error = kind(*said)
        home = pickle.loads(pickle.dumps(error))
        assert type(home) is kind
        assert (str(home), vars(home)) == (str(error), vars(error))


ODD = {
    NotFinite: ("loss", 2, 7),
    SamplesNotFinite: (1, 2, "train", 3, "digits:0"),
    NotPushedError: ("words", None),
}  # take more than words


# Rooms for what an auditor does without, and files that a package of an extra is needed to import.
FOR_EXTRAS = ("fgtrac.demo", "fgtrac.frameworks", "fgtrac.mlflow", "fgtrac.engine.ray", "fgtrac.store.bounded_answers")


def import_all(package):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.startswith(FOR_EXTRAS):
            importlib.import_module(module.name)


def below(kind):
    return [kind, *(found for sub in kind.__subclasses__() if "fgtrac." in sub.__module__ for found in below(sub))]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1M", 1 << 20),
        ("4G", 4 << 30),
        ("4GiB", 4 << 30),
        ("4GB", 4 << 30),
        ("512M", 512 << 20),
        ("7000K", 7000 << 10),
        ("1048576", 1 << 20),
        ("2T", 2 << 40),
    ],
)
def test_memory_is_said_in_powers_of_1024(text, size):
    assert memory_bytes(text) == size


@pytest.mark.parametrize(("text", "meant"), [("1", "1G"), ("4", "4G"), ("512K", "512G"), ("1048575", "1048575G")])
def test_a_size_whose_unit_was_forgotten_is_refused_with_what_was_meant(text, meant):
    with pytest.raises(typer.BadParameter, match=f"below 1M; did you mean {meant}"):
        memory_bytes(text)


@pytest.mark.parametrize("text", ["", "0", "0G", "-1G", "4 apples", "1.5G", "G", "4Gi B", "9" * 13, "4P"])
def test_what_is_no_amount_of_memory_is_refused(text):
    with pytest.raises(typer.BadParameter, match="is no amount of memory"):
        memory_bytes(text)
