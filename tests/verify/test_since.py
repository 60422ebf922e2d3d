"""An older head held against a log: extended, rolled back, forked, of another log, by another key, or none at all."""

from __future__ import annotations

import base64
from contextlib import suppress

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.errors import FormatError, ProofError
from fgtrac.tlog.merkle import EMPTY_ROOT, hash_leaves
from fgtrac.tlog.note import Note, TreeHead, format_note, format_tree_head, sign_note
from fgtrac.tlog.proof import TlogProof, format_proof
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.since import check_since, head_note_of
from fgtrac.verify.tree import Log, read_head, read_log
from signed import KEY, ORIGIN, PUBLIC_KEY, MemoryTrace, metrics, note, run, write

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes([1]) * 32)
SIZES = 20
EVENTS = [run(), *(metrics(n) for n in range(1, SIZES))]
FILES = write(*EVENTS)
ENTRIES = decode_bundle(FILES[f"tile/entries/000.p/{SIZES}"], SIZES)


def log_of(entries: int) -> Log:
    files = MemoryTrace(write(*EVENTS[:entries]))
    return read_log(files, read_head(files))


def head(size: int, root: bytes, *, origin: str = ORIGIN, key: Ed25519PrivateKey = KEY) -> bytes:
    text = format_tree_head(TreeHead(origin, size, root))
    return format_note(Note(text, (sign_note(text, origin, key),)))


def check(old: bytes, log: Log, *signers: bytes) -> str:
    return check_since(old, "old", log, signers or [PUBLIC_KEY])


@pytest.mark.parametrize("new", [1, 2, 7, 8, 13, SIZES])
def test_a_log_extends_every_older_head_of_it_by_a_proof_and_no_other_root_of_that_size(new: int) -> None:
    log = log_of(new)
    for size in range(1, new + 1):
        words = check(note(ENTRIES, size), log)
        assert words.startswith(f"the first {size} of {new} entries are those of old, root ")
        other = [*ENTRIES[: size - 1], b"another"]
        with pytest.raises(ProofError, match=rf"a fork: over the first {size} entries old has the root [0-9a-f]{{64}}"):
            check(note(other, size), log)
    assert "which every log extends" in check(head(0, EMPTY_ROOT), log)


def test_a_head_that_is_larger_says_that_the_log_was_rolled_back_with_both_sizes() -> None:
    with pytest.raises(ProofError, match=f"old has {SIZES} entries, and this log 12: it was rolled back"):
        check(note(ENTRIES, SIZES), log_of(12))


def test_two_heads_of_one_size_are_a_fork_and_both_roots_are_named() -> None:
    other = [*ENTRIES[:11], b"another"]
    with pytest.raises(ProofError) as caught:
        check(note(other, 12), log_of(12))
    roots = [base64.b64decode(note(e, 12).split(b"\n")[2]).hex() for e in (other, ENTRIES)]
    assert all(root in str(caught.value) for root in roots)


def test_a_head_of_another_log_is_refuted_with_both_origins() -> None:
    with pytest.raises(ProofError, match=rf"old is a head of the log 'fgtrac/other', and this one is '{ORIGIN}'"):
        check(head(3, bytes(32), origin="fgtrac/other"), log_of(5))


def test_a_head_that_the_key_did_not_sign_says_nothing_even_if_it_contradicts() -> None:
    for old in (head(3, bytes(32), key=STRANGER), head(99, bytes(32), key=STRANGER), note(ENTRIES, 3, STRANGER)):
        with pytest.raises(CannotTell, match=r"did not sign, so it says nothing: signed by .* not by"):
            check(old, log_of(5))
    forged = note(ENTRIES, 3).replace(b"\n3\n", b"\n4\n")
    with pytest.raises(CannotTell, match="does not fit the text"):
        check(forged, log_of(5))


def test_a_head_by_a_key_that_came_later_in_this_log_shows_that_there_are_two() -> None:
    later = STRANGER.public_key().public_bytes_raw()  # that took the first one's place, in this log behind entry 3
    with pytest.raises(ProofError, match="a fork: over the first 3 entries"):
        check(head(3, bytes(32), key=STRANGER), log_of(5), PUBLIC_KEY, later)


def test_a_head_comes_from_a_note_or_a_tlog_proof() -> None:
    kept = note(ENTRIES, 3)
    proof = format_proof(TlogProof(0, tuple(hash_leaves(ENTRIES[:2])), kept))
    assert head_note_of(kept) == head_note_of(proof.encode()) == kept


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: b"c2sp.org/tlog-proof@v1\n" + b))
def test_whatever_the_file_holds_it_is_a_head_or_a_format_error(data: bytes) -> None:
    with suppress(FormatError):
        assert head_note_of(data)


@pytest.mark.parametrize(
    "data", [b"{", b"{}", b"[]", b"", b"c2sp.org/tlog-proof@v1\n\xff", b"c2sp.org/tlog-proof@v1\n"]
)
def test_what_holds_no_head_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        head_note_of(data)
