"""What is still to be anchored, on disk: the newest head of each service, and nothing secret in any message."""

from __future__ import annotations

import json
import multiprocessing
import stat
from pathlib import Path
from typing import Any

import pytest

from cosigned import signed_head
from fgtrac.anchor.pending import MAX_PENDING, Pending, PendingFile, format_pending, is_same_service, parse_pending
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


def test_a_service_is_the_same_with_another_timeout_and_with_a_contract_that_was_deployed_since() -> None:
    deployed = EVM | {"contract": "0x" + "11" * 20, "chain_id": 31337, "confirmations": 1}
    assert is_same_service(EVM, deployed)
    assert not is_same_service(deployed, deployed | {"contract": "0x" + "22" * 20})
    assert not is_same_service(TSA, TSA | {"url": "https://tsa.example/other"})
    assert not is_same_service(TSA, WITNESS | {"url": TSA["url"]})


def test_what_is_known_later_of_a_service_takes_the_place_of_what_was_known_before(file: PendingFile) -> None:
    deployed = EVM | {"contract": "0x" + "11" * 20, "chain_id": 31337}
    file.add(head(3), [EVM, TSA])
    file.add(head(3), [deployed])
    assert [p.settings for p in file.read()] == [TSA, deployed]
    written = file.path.stat().st_mtime_ns
    file.add(head(3), [deployed, TSA])
    file.add(head(2), [TSA])
    assert file.path.stat().st_mtime_ns == written, "nothing is new"


def add_some(path: Path, name: int) -> None:
    for number in range(10):
        PendingFile(path).add(head(1 + number % 9), [TSA | {"url": f"https://{name}-{number}.example"}])


def test_processes_that_change_the_list_at_once_lose_nothing_of_each_other(file: PendingFile) -> None:
    fork = multiprocessing.get_context("fork")
    others = [fork.Process(target=add_some, args=(file.path, name)) for name in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join()
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
