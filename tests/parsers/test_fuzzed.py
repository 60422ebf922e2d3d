"""Every parser that `make fuzz` drives, quickly: real inputs, small changes of them, anything, and the worst cases."""

from __future__ import annotations

import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import all_parsers
from all_parsers import TARGETS
from fgtrac.tlog.npy import npy_header
from real import Real, make_real
from target import Target, filled

quick = settings(max_examples=40, deadline=None, database=None)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Real:
    return make_real(tmp_path_factory.mktemp("real"))


@pytest.fixture(params=TARGETS)
def target(request: pytest.FixtureRequest) -> Target:
    return TARGETS[request.param]


def test_real_inputs_are_taken_and_written_again(target: Target, real: Real) -> None:
    seeds = list(target.seeds(real))
    assert seeds
    assert any(target.check(seed) for seed in seeds)


def test_changed_inputs_are_taken_or_refused(target: Target, real: Real) -> None:
    seeds = [seed for seed in target.seeds(real) if len(seed) < 100_000]

    @quick
    @given(st.data())
    def run(data: st.DataObject) -> None:
        changed = bytearray(data.draw(st.sampled_from(seeds)))
        for _ in range(data.draw(st.integers(1, 3))):
            at = data.draw(st.integers(0, len(changed)))
            changed[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
        target.check(bytes(changed))

    run()


def test_any_bytes_are_taken_or_refused(target: Target) -> None:
    @quick
    @given(st.binary(max_size=300))
    def run(data: bytes) -> None:
        target.check(data)

    run()


def test_the_worst_inputs_of_a_megabyte_take_less_than_a_second_and_64_mb() -> None:
    script = Path(all_parsers.__file__).parent / "worst_cases.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"cases of {len(TARGETS)} parsers: at most" in done.stdout


def test_every_parser_has_worst_cases_and_a_name_of_its_own(target: Target) -> None:
    assert list(target.worst())
    assert len({t.name for t in TARGETS.values()}) == len(TARGETS)


FOUND: dict[str, Iterable[bytes]] = {  # what fuzzing found, by parser
    "index column": [
        npy_header(np.zeros(3, np.uint8)) + b"abc" + b"d",
        npy_header(np.zeros(3, np.uint8)).replace(b"          ", b"\n(       ", 1) + b"abc",  # a header in a header
    ],
    "journal segment": [filled(b"\0\0\x08\0", 1 << 18)],
    "value (CBOR)": [b"\x9a\x00\x08\x00\x00" + b"\x80" * (1 << 19)],
    "retrainings": [b"%s\t%08x\n" % (b"[" * 9000, zlib.crc32(b"[" * 9000))],
    "vault": [b""],
    "private key's file": [
        b"-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VvBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f\n"
        b"-----END PRIVATE KEY-----\n"  # of Ed448's neighbour X448, whose keys are longer
    ],
    "public key's file": [
        b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VvAyEAAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
        b"-----END PUBLIC KEY-----\n"
    ],
}


@pytest.mark.parametrize("name", FOUND)
def test_what_fuzzing_found_stays_found(name: str) -> None:
    for data in FOUND[name]:
        TARGETS[name].check(data)
