"""An older head held against a log: extended, rolled back, forked, of another log, by another key, or none at all."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.errors import FormatError, ProofError
from fgtrac.tlog.merkle import EMPTY_ROOT, hash_leaves
from fgtrac.tlog.note import Note, TreeHead, Verifier, format_note, format_tree_head, sign_note
from fgtrac.tlog.proof import TlogProof, format_proof
from fgtrac.tlog.tiles import decode_bundle
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.keys import rotation_message, rotations_of
from fgtrac.verify.since import KeptHead, LogKeys, check_not_behind, check_since, read_kept_head
from fgtrac.verify.tree import Log, read_head, read_log
from signed import KEY, ORIGIN, PUBLIC_KEY, TRACE_ID, Event, MemoryTrace, metrics, note, run, write

NEXT, THIRD = (Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (2, 3))
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


def key(at: int, old: Ed25519PrivateKey, new: Ed25519PrivateKey, *, revoked: bool = False) -> tuple[int, Event]:
    """A `key` entry with its number."""
    keys = [k.public_key().public_bytes_raw() for k in (old, new)]
    message = rotation_message(TRACE_ID, *keys, revoked)
    signatures = {"old_signature": old.sign(message), "new_signature": new.sign(message)}
    return at, {"kind": "key", "public_key": keys[1], **signatures, "revoked": revoked}


def check(
    old: bytes,
    log: Log,
    *rotations: tuple[int, Event],
    shown: Sequence[tuple[int, Event]] = (),
    distrusted: frozenset[bytes] = frozenset(),
) -> str:
    """Against a log with those `key` entries, the old head beside a bundle's."""
    kept = replace(read_kept_head(old), rotations=rotations_of(shown))
    return check_since(kept, "old", log, LogKeys(TRACE_ID, PUBLIC_KEY, rotations_of(rotations), distrusted))


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
        with pytest.raises(
            CannotTell, match=r"none of the log's keys signed, so it says nothing|by none of this log's keys"
        ):
            check(old, log_of(5))
    forged = note(ENTRIES, 3).replace(b"\n3\n", b"\n4\n")
    with pytest.raises(CannotTell, match="does not fit the text"):
        check(forged, log_of(5))


def test_a_head_by_a_key_that_came_later_in_this_log_shows_that_there_are_two() -> None:
    with pytest.raises(ProofError, match="a fork: over the first 3 entries"):
        check(head(3, bytes(32), key=NEXT), log_of(5), key(4, KEY, NEXT))


# -- keys that were replaced or revoked -------------------------------------------------------------------------------


def test_a_larger_head_by_an_unknown_key_may_be_by_a_later_one_which_decides_where_it_is_named() -> None:
    """A log that was rolled back to before its rotation names the old key only."""
    later, rolled_back = head(SIZES, bytes(32), key=NEXT), log_of(5)
    with pytest.raises(CannotTell, match=r"may be by a later key of this log.*: name that key with --key"):
        check(later, rolled_back)
    named = Verifier(ORIGIN, NEXT.public_key().public_bytes_raw())
    with pytest.raises(ProofError, match=f"old has {SIZES} entries, and this log 5: it was rolled back"):
        check_not_behind(read_kept_head(later), "old", rolled_back.head, named)
    for kept in (head(SIZES, bytes(32), key=STRANGER), head(5, bytes(32), key=NEXT)):  # another's, or no larger
        check_not_behind(read_kept_head(kept), "old", rolled_back.head, named)


def test_the_key_entries_of_a_bundle_lead_to_the_key_that_signed_its_head() -> None:
    later, shown = head(SIZES, bytes(32), key=THIRD), (key(6, KEY, NEXT), key(8, NEXT, THIRD))
    for rotations in ((), (key(6, KEY, NEXT),)):
        with pytest.raises(ProofError, match="it was rolled back to an older head or truncated"):
            check(later, log_of(7), *rotations, shown=shown)
    with pytest.raises(CannotTell, match="may be by a later key"):
        check(later, log_of(7), shown=shown[1:])  # nothing leads from the log's key to the first of them
    with pytest.raises(CannotTell, match=r"a key that entry 6 \(key\) in old puts in a revoked one's place"):
        check(later, log_of(5), shown=(key(6, KEY, NEXT, revoked=True), shown[1]))
    stolen = frozenset({THIRD.public_key().public_bytes_raw()})
    with pytest.raises(CannotTell, match="which you have revoked"):
        check(later, log_of(5), shown=shown, distrusted=stolen)
    kept = KeptHead(later, read_kept_head(later).head, rotations_of(shown))
    named = Verifier(ORIGIN, NEXT.public_key().public_bytes_raw())
    with pytest.raises(ProofError, match="it was rolled back"):
        check_not_behind(kept, "old", log_of(5).head, named)
    check_not_behind(kept, "old", log_of(5).head, named, stolen)


def test_two_rotations_of_one_key_are_a_fork_unless_it_was_replaced_or_revoked_before_the_second() -> None:
    other = head(9, bytes(32), key=THIRD)
    with pytest.raises(ProofError, match="a fork: over the first 9 entries"):
        check(other, log_of(SIZES), key(7, KEY, NEXT), shown=[key(5, KEY, THIRD)])
    with pytest.raises(CannotTell, match=r"which entry 7 \(key\) of this log replaced"):
        check(other, log_of(SIZES), key(7, KEY, NEXT), shown=[key(8, KEY, THIRD)])
    with pytest.raises(CannotTell, match=r"which entry 7 \(key\) of this log revokes"):
        check(other, log_of(SIZES), key(7, KEY, NEXT, revoked=True), shown=[key(5, KEY, THIRD)])


@pytest.mark.parametrize("size", [3, SIZES, SIZES + 5])
def test_what_a_revoked_key_signed_refutes_nothing_and_the_revocation_is_named(size: int) -> None:
    forged, log = head(size, bytes(32)), log_of(SIZES)
    with pytest.raises(CannotTell, match=r"signed by the key .*, which entry 7 \(key\) of this log revokes"):
        check(forged, log, key(7, KEY, NEXT, revoked=True))
    with pytest.raises(CannotTell, match="which you have revoked"):  # although the log says that it was replaced only
        check(forged, log, key(7, KEY, NEXT), distrusted=frozenset({PUBLIC_KEY}))
    if size <= SIZES:
        assert "are those of old" in check(note(ENTRIES, size), log, key(7, KEY, NEXT, revoked=True))
    words = "a fork" if size == 3 else r"which entry 7 \(key\) of this log replaced before that size"
    with pytest.raises(ProofError if size == 3 else CannotTell, match=words):
        check(forged, log, key(7, KEY, NEXT))


def test_a_head_comes_from_a_note_or_a_tlog_proof() -> None:
    kept = note(ENTRIES, 3)
    proof = format_proof(TlogProof(0, tuple(hash_leaves(ENTRIES[:2])), kept))
    assert read_kept_head(kept) == read_kept_head(proof.encode())
    assert read_kept_head(kept).note == kept


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda b: b"c2sp.org/tlog-proof@v1\n" + b))
def test_whatever_the_file_holds_it_is_a_head_or_a_format_error(data: bytes) -> None:
    with suppress(FormatError):
        assert read_kept_head(data)


@pytest.mark.parametrize(
    "data", [b"{", b"{}", b"[]", b"", b"c2sp.org/tlog-proof@v1\n\xff", b"c2sp.org/tlog-proof@v1\n"]
)
def test_what_holds_no_head_is_a_format_error(data: bytes) -> None:
    with pytest.raises(FormatError):
        read_kept_head(data)
