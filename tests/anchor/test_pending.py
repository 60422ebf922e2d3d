"""What is still to be anchored, on disk: the newest head of each service, and nothing secret in any message."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest

from cosigned import signed_head
from fgtrac.anchor.pending import (
    MAX_PENDING,
    Pending,
    PendingFile,
    check_settings,
    deployment_in,
    format_pending,
    is_same_service,
    parse_pending,
)
from fgtrac.anchor.service import SignedHead
from fgtrac.errors import FormatError

ENTRIES = [b"%d" % n for n in range(10)]
SECRET = "k3y-th4t-is-secret"
TSA = {"kind": "rfc3161", "url": f"https://tsa.example/{SECRET}", "timeout_s": 30.0}
WITNESS = {"kind": "witness", "url": f"https://w.example/{SECRET}", "key": "w+1+2", "timeout_s": 5.0}
EVM = {"kind": "evm", "rpc_url": f"https://node.example/{SECRET}", "account": "/k", "contract": None, "chain_id": None}
EVM |= {"confirmations": 2, "timeout_s": 30.0}


def head(size: int) -> SignedHead:
    return signed_head(ENTRIES, size)


@pytest.fixture
def file(tmp_path: Path) -> PendingFile:
    return PendingFile(tmp_path / "heads" / "00.pending")


def sizes(file: PendingFile) -> dict[str, int]:
    return {p.settings["kind"]: p.signed.head.size for p in file.read()}


def test_what_is_written_is_read_again() -> None:
    pending = (Pending(TSA, head(3)), Pending(WITNESS, head(4)), Pending(EVM, head(5)))
    assert parse_pending(format_pending(pending)) == pending
    assert parse_pending(format_pending(())) == ()


def test_the_newest_head_of_each_service_is_kept(file: PendingFile) -> None:
    assert file.read() == ()
    file.add(head(3), [TSA, WITNESS])
    file.add(head(5), [TSA])
    file.add(head(4), [TSA, EVM])
    assert sizes(file) == {"witness": 3, "rfc3161": 5, "evm": 4}
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


def test_what_a_newer_head_covers_is_settled_and_an_empty_list_is_no_file(file: PendingFile) -> None:
    file.add(head(3), [TSA, WITNESS])
    file.settle([TSA], 2)
    assert sizes(file) == {"witness": 3, "rfc3161": 3}
    file.settle([TSA], 7)
    assert sizes(file) == {"witness": 3}
    file.settle([TSA | {"url": "https://other.example"}, WITNESS | {"timeout_s": 1.0}], 3)
    assert not file.path.exists()
    file.settle([TSA], 7)  # nothing there
    assert not file.path.exists()


def test_a_service_is_the_same_with_another_timeout_and_once_it_knows_its_chain() -> None:
    met = EVM | {"chain_id": 31337, "confirmations": 1, "timeout_s": 1.0}
    assert is_same_service(EVM, met)
    assert is_same_service(met, EVM)
    assert not is_same_service(met, EVM | {"chain_id": 1})
    assert not is_same_service(EVM, EVM | {"contract": "0x" + "22" * 20})
    assert not is_same_service(TSA, TSA | {"url": "https://tsa.example/other"})
    assert not is_same_service(TSA, WITNESS | {"url": TSA["url"]})


def test_what_is_known_later_of_a_service_takes_the_place_of_what_was_known_before(file: PendingFile) -> None:
    met = EVM | {"chain_id": 31337}
    file.add(head(3), [EVM, TSA])
    file.add(head(3), [met])
    assert [p.settings for p in file.read()] == [TSA, met]
    written = file.path.stat().st_mtime_ns
    file.add(head(3), [met, TSA])
    file.add(head(2), [TSA])
    file.add(head(3), [EVM])
    assert file.path.stat().st_mtime_ns == written, "nothing is new"
    file.learn(head(3), met | {"deployment": "0x" + "11" * 32})
    file.learn(head(4), met)
    file.learn(head(3), WITNESS)
    assert [p.settings for p in file.read()] == [TSA, met | {"deployment": "0x" + "11" * 32}]


def test_a_deployment_that_was_paid_is_not_lost_to_later_settings_that_leave_it_open(file: PendingFile) -> None:
    sent, unknown = EVM | {"deployment": "0x" + "11" * 32}, EVM | {"deployment": None}
    file.add(head(3), [sent])
    file.add(head(4), [unknown | {"timeout_s": 1.0}])
    assert [(p.settings, p.size) for p in file.read()] == [(sent | {"timeout_s": 1.0}, 4)]
    assert deployment_in(file.read(), unknown) == sent["deployment"]
    assert deployment_in(file.read(), unknown | {"account": "/other"}) is None


def test_contracts_and_confirmations_that_were_asked_for_are_not_lost_to_others(file: PendingFile) -> None:
    one, other, deep = (EVM | {"contract": "0x" + n * 20} for n in ("11", "22", "11"))
    deep |= {"confirmations": 12}
    file.add(head(3), [one, other])
    file.add(head(4), [EVM])
    assert [p.settings for p in file.read()] == [one, other, EVM]
    file.settle([EVM], 4)
    file.add(head(3), [deep])
    file.add(head(4), [one])
    assert [(p.settings, p.size) for p in file.read()] == [(other, 3), (deep, 3), (one, 4)]
    file.settle([one], 4)
    assert [p.settings for p in file.read()] == [other, deep]
    file.add(head(3), [one])
    assert [p.settings for p in file.read()] == [other, deep], "what is twelve blocks deep is one block deep"
    file.settle([deep], 3)
    assert [p.settings for p in file.read()] == [other]


def test_a_list_that_would_grow_too_long_stays_as_it_is(file: PendingFile) -> None:
    many = [TSA | {"url": f"https://{n}.example/{SECRET}"} for n in range(MAX_PENDING + 1)]
    file.add(head(3), many[:-1])
    with pytest.raises(ValueError, match="101 heads would be pending") as refused:
        file.add(head(3), many[-1:])
    with pytest.raises(ValueError, match=r"1,0\d\d,\d\d\d bytes"):
        file.add(head(4), [TSA | {"url": "https://0.example/" + "x" * 10_000_00}])
    assert SECRET not in str(refused.value)
    assert [p.settings for p in file.read()] == many[:-1]
    file.add(head(4), many[:1])
    assert len(file.read()) == MAX_PENDING


def test_everything_is_dropped_at_once(file: PendingFile) -> None:
    file.add(head(3), [TSA, WITNESS])
    assert [p.settings for p in file.clear()] == [TSA, WITNESS]
    assert not file.path.exists()
    assert file.clear() == ()


@pytest.mark.parametrize("value", [float("inf"), float("nan"), [SECRET], object(), b"x"])
def test_settings_that_cannot_be_written_down_are_the_service_s_mistake(value: Any) -> None:
    check_settings(TSA)
    check_settings(EVM)
    with pytest.raises(TypeError, match="the setting url of a service of kind rfc3161") as refused:
        check_settings(TSA | {"url": value})
    assert SECRET not in str(refused.value)


def add_some(path: Path, name: int) -> None:
    for number in range(10):
        PendingFile(path).add(head(1 + number % 9), [TSA | {"url": f"https://{name}-{number}.example"}])


def test_processes_that_change_the_list_at_once_lose_nothing_of_each_other(file: PendingFile) -> None:
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=add_some, args=(file.path, name)) for name in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(timeout=120)
        assert other.exitcode == 0
    assert len(file.read()) == 30


NOTE = head(3).note.decode()
GOOD: dict[str, Any] = {"format": "fgtrac-pending/v1", "pending": [{"service": TSA, "head": NOTE}]}


def with_item(**fields: Any) -> dict[str, Any]:
    return GOOD | {"pending": [GOOD["pending"][0] | fields]}


BAD = {
    "empty": b"",
    "no UTF-8": b"\xff\xfe",
    "a list": b"[]",
    "another version": json.dumps(GOOD | {"format": "fgtrac-pending/v2"}).encode(),
    "more fields": json.dumps(GOOD | {"x": 1}).encode(),
    "no list": json.dumps(GOOD | {"pending": {}}).encode(),
    "too many": json.dumps(GOOD | {"pending": GOOD["pending"] * (MAX_PENDING + 1)}).encode(),
    "an item of text": json.dumps(GOOD | {"pending": ["x"]}).encode(),
    "an item with more fields": json.dumps(with_item(x=1)).encode(),
    "a service of text": json.dumps(with_item(service="x")).encode(),
    "a service without its kind": json.dumps(with_item(service={"url": "x"})).encode(),
    "settings that are lists": json.dumps(with_item(service=TSA | {"url": [SECRET]})).encode(),
    "a head that is a number": json.dumps(with_item(head=3)).encode(),
    "a head that is no note": json.dumps(with_item(head="x")).encode(),
    "a head of half a character": json.dumps(with_item(head="\ud800" + NOTE)).encode(),
    "a note that is no head": json.dumps(with_item(head=NOTE.replace("\n3\n", "\n03\n"))).encode(),
    "a name twice": b'{"format": "x", "format": "fgtrac-pending/v1", "pending": []}',
    "no number": json.dumps(with_item(service=TSA | {"timeout_s": float("nan")})).encode(),
    "a number out of range": json.dumps(with_item(service=TSA | {"timeout_s": 1}))
    .encode()
    .replace(b": 1}", b": 1e999}"),
    "a number of many digits": json.dumps(with_item(service=TSA | {"timeout_s": 10**40})).encode(),
    "deep": b"[" * 100_000,
    "large": b" " * 1_000_001,
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_refused_in_one_line_without_what_stands_in_it(case: str, file: PendingFile) -> None:
    with pytest.raises(FormatError) as refused:
        parse_pending(BAD[case])
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)
    file.path.parent.mkdir()
    file.path.write_bytes(BAD[case])
    with pytest.raises(FormatError, match="remove that file, and anchor the newest head"):
        file.add(head(3), [TSA])
    assert file.path.read_bytes() == BAD[case]
