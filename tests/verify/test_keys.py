"""Following a log's keys: what a holder of the first, a middle, the last or a foreign key may believe of a head."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fgtrac.errors import ProofError
from fgtrac.events.schema import encode_event
from fgtrac.tlog.note import Note, TreeHead, Verifier, format_note, format_tree_head, sign_note
from fgtrac.verify.checks import CannotTell
from fgtrac.verify.keys import (
    Rotation,
    check_chain,
    follow,
    is_about_keys,
    may_hold_key,
    rotation_message,
    rotations_of,
    signers_from,
)
from signed import ORIGIN, TRACE_ID, end, metrics, run, samples, use

KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in range(5)]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]
SIZE = 40


def rotation(number: int, old: int, new: int, *, revoked: bool = False, said: bool | None = None) -> Rotation:
    """The entry by which one key takes another's place; `said` is what it says of the old one, if that is a lie."""
    message = rotation_message(TRACE_ID, PUBLIC[old], PUBLIC[new], revoked)
    signatures = KEYS[old].sign(message), KEYS[new].sign(message)
    return Rotation(number, PUBLIC[new], revoked if said is None else said, *signatures)


def head(*signers: int, size: int = SIZE, origin: str = ORIGIN) -> bytes:
    text = format_tree_head(TreeHead(origin, size, bytes(32)))
    return format_note(Note(text, tuple(sign_note(text, origin, KEYS[n]) for n in signers)))


def named(key: int, origin: str = ORIGIN) -> Verifier:
    return Verifier(origin, PUBLIC[key])


TWICE = (rotation(10, 0, 1), rotation(20, 1, 2))
FIRSTS = pytest.mark.parametrize("first", [PUBLIC[0], None], ids=["with the run entry", "without it"])


@FIRSTS
def test_a_head_by_the_last_key_is_signed_for_who_trusts_any_key_of_the_chain(first: bytes | None) -> None:
    key_id = named(2).key_id.hex()
    assert follow(named(2), head(2), TWICE, first) == f"signed by {ORIGIN} (key id {key_id})"
    assert "through entry 20 (key), signed by the key that you named" in follow(named(1), head(2), TWICE, first)
    assert "through entries 10, 20 (key)" in follow(named(0), head(2), TWICE, first)


@FIRSTS
def test_rotations_behind_a_head_do_not_count_for_it(first: bytes | None) -> None:
    assert "through entry 10" in follow(named(0), head(1, size=20), TWICE, first)
    assert follow(named(0), head(0, size=10), TWICE, first).startswith("signed by")
    with pytest.raises(ProofError, match="entry 10"):
        follow(named(0), head(0, size=11), TWICE, first)


@FIRSTS
@pytest.mark.parametrize(("revoked", "verb"), [(False, "replaced"), (True, "revoked")])
def test_a_head_by_an_older_key_only_is_refuted(first: bytes | None, revoked: bool, verb: str) -> None:
    chain = (rotation(10, 0, 1), rotation(20, 1, 2, revoked=revoked))
    words = f"signed by the key {PUBLIC[1].hex()}, which entry 20 \\(key\\) {verb}.*{PUBLIC[2].hex()}"
    for key in (0, 1, 2):
        with pytest.raises(ProofError, match=words):
            follow(named(key), head(1), chain, first)


@FIRSTS
def test_who_names_a_key_before_a_revoked_one_cannot_tell_and_who_names_a_later_one_can(first: bytes | None) -> None:
    chain = (rotation(10, 0, 1), rotation(20, 1, 2, revoked=True), rotation(30, 2, 3))
    for key in (0, 1):
        with pytest.raises(CannotTell, match=r"entry 20 \(key\) revokes .* get the new key from the log's owner"):
            follow(named(key), head(3), chain, first)
    assert "through entry 30" in follow(named(2), head(3), chain, first)
    assert follow(named(3), head(3), chain, first).startswith("signed by")


@FIRSTS
def test_a_key_outside_the_chain_is_unknown_and_the_signers_are_named(first: bytes | None) -> None:
    with pytest.raises(ProofError, match=rf"key id {named(2).key_id.hex()}\), not by .*{named(4).key_id.hex()}"):
        follow(named(4), head(2), TWICE, first)
    with pytest.raises(ProofError, match="name other keys"):
        follow(named(4), head(2, 4), TWICE, first)
    with pytest.raises(ProofError, match="not by"):
        follow(named(4), head(2))


def test_a_head_of_another_log_is_named_as_such() -> None:
    with pytest.raises(ProofError, match=r"a head of the log 'fgtrac/other'; the key that you named is for 'fgtrac/00"):
        follow(named(0), head(0, origin="fgtrac/other"))


def test_a_signature_by_a_key_of_the_chain_that_does_not_fit_is_refuted() -> None:
    good = head(2).decode()
    wrong = head(2, size=SIZE + 1).decode().rpartition("\n\n")[2]
    with pytest.raises(ProofError, match="does not fit the text"):
        follow(named(0), (good.rpartition("\n\n")[0] + "\n\n" + wrong).encode(), TWICE)


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        ((rotation(10, 3, 1), TWICE[1]), r"entry 10 \(key\) is not signed by the key before it"),
        ((TWICE[0], rotation(20, 0, 2)), r"entry 20 \(key\) is not signed by the key before it"),
        ((TWICE[0], rotation(20, 1, 2, revoked=True, said=False)), r"entry 20 \(key\) is not signed"),
        ((TWICE[0], rotation(20, 1, 2, said=True)), r"entry 20 \(key\) is not signed"),
        ((TWICE[0], Rotation(20, PUBLIC[2], False, TWICE[1].old_signature, bytes(64))), "not signed by its own"),
        ((TWICE[0], rotation(20, 1, 0)), r"entry 20 \(key\) goes back to the key"),
        ((TWICE[1], TWICE[0]), r"entry 20 \(key\) is not signed by the key before it"),
    ],
)
def test_a_chain_in_which_one_link_is_forged_is_refuted(lie: tuple[Rotation, ...], words: str) -> None:
    with pytest.raises(ProofError, match=words):
        check_chain(TRACE_ID, PUBLIC[0], lie)
    with pytest.raises(ProofError, match=words):
        follow(named(0), head(2), lie, PUBLIC[0])
    with pytest.raises(ProofError):
        follow(named(0), head(2), lie)


def test_a_chain_of_another_trace_is_refuted() -> None:
    with pytest.raises(ProofError, match="entry 10"):
        check_chain(bytes(16), PUBLIC[0], TWICE)
    with pytest.raises(ProofError, match="no trace"):
        follow(named(0, "other"), head(2, origin="other"), TWICE)


def test_entries_are_read_in_the_order_of_the_log_and_others_are_passed_over() -> None:
    events = [
        (r.number, {"kind": "key", "public_key": r.public_key, "old_signature": r.old_signature,
                    "new_signature": r.new_signature})
        for r in reversed(TWICE)
    ]  # fmt: skip
    assert rotations_of([(0, {"kind": "run"}), *events]) == TWICE
    assert [signers_from(PUBLIC[0], TWICE, n) for n in (10, 11, 20, 21)] == [PUBLIC[n:3] for n in (0, 1, 1, 2)]


@pytest.mark.parametrize("seq", [0, 23, 2**64 - 1])
def test_entries_about_keys_are_known_by_their_beginning(seq: int) -> None:
    change = {"kind": "key", "public_key": PUBLIC[1], "old_signature": bytes(64), "new_signature": bytes(64)}
    for event in (run(), change, {**change, "revoked": True}, samples(), use(1, 0), metrics(1), end()):
        entry = encode_event({"time": 0, "writer": bytes(16), "seq": seq, **event})
        assert is_about_keys(entry) is (event["kind"] in ("run", "key")), event
        assert may_hold_key(entry) is (event["kind"] == "key")
