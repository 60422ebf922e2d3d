"""Signed notes, verifier keys and tree heads: what the C2SP specifications say, and every flipped bit."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.errors import FgtracError, FormatError, ProofError
from fgtrac.tlog import note
from fgtrac.tlog.note import Note, Signature, TreeHead, Verifier

# The example of Go's golang.org/x/mod/sumdb/note, on which the C2SP specification rests.
PETER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PETER_SAID = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
NAME = "fgtrac/" + "ab" * 16
VERIFIER = Verifier(NAME, KEY.public_key().public_bytes_raw())
HEAD = TreeHead(NAME, 12_345, bytes(range(32)))


def signed(text: str, name: str = NAME, key: Ed25519PrivateKey = KEY) -> bytes:
    return note.format_note(Note(text, (note.sign_note(text, name, key),)))


def test_the_go_implementations_example_is_verified() -> None:
    verifier = note.parse_vkey(PETER)
    assert note.format_vkey(verifier) == PETER
    assert note.verify_note(PETER_SAID.encode(), [verifier]).text.endswith("what your problem is.\n")
    with pytest.raises(ProofError, match="PeterNeumann"):
        note.verify_note(PETER_SAID.replace("don't", "do").encode(), [verifier])


def test_the_empty_trees_head_is_written_as_the_specification_says() -> None:
    empty = TreeHead("example.com/log", 0, base64.b64decode("47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="))
    text = "example.com/log\n0\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n"
    assert note.format_tree_head(empty) == text
    assert note.parse_tree_head(text) == empty


def test_every_flipped_bit_of_a_signed_head_is_refused() -> None:
    data = signed(note.format_tree_head(HEAD))
    assert note.parse_tree_head(note.verify_note(data, [VERIFIER]).text) == HEAD
    for place in range(8 * len(data)):
        lie = bytearray(data)
        lie[place // 8] ^= 1 << place % 8
        with pytest.raises(FgtracError):
            note.verify_note(bytes(lie), [VERIFIER])


def test_every_cut_of_a_signed_head_is_refused() -> None:
    data = signed(note.format_tree_head(HEAD))
    for stop in range(len(data)):
        with pytest.raises(FgtracError):
            note.verify_note(data[:stop], [VERIFIER])


def test_a_text_may_have_empty_lines_and_ends_at_the_last_one() -> None:
    text = "first\n\nsecond\n\n\n— not a signature line\n"
    assert note.verify_note(signed(text), [VERIFIER]).text == text


def test_unknown_signatures_are_ignored_and_kept() -> None:
    text = note.format_tree_head(HEAD)
    stranger = Signature("witness.example", b"\1\2\3\4", b"whatever")
    data = note.format_note(Note(text, (stranger, note.sign_note(text, NAME, KEY))))
    assert note.verify_note(data, [VERIFIER]).signatures[0] == stranger
    with pytest.raises(ProofError, match=r"signed by witness\.example"):
        note.verify_note(note.format_note(Note(text, (stranger,))), [VERIFIER])


def test_one_wrong_signature_of_a_known_key_spoils_the_note_whatever_else_signed_it() -> None:
    text = note.format_tree_head(HEAD)
    good = note.sign_note(text, NAME, KEY)
    wrong = Signature(NAME, good.key_id, bytes(64))
    for lines in ((good, wrong), (wrong, good)):
        with pytest.raises(ProofError, match="does not fit the text"):
            note.verify_note(note.format_note(Note(text, lines)), [VERIFIER])


def test_another_key_of_the_same_name_is_not_believed() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32))
    with pytest.raises(ProofError, match="not by"):
        note.verify_note(signed(note.format_tree_head(HEAD), key=other), [VERIFIER])


LINE = f"— {NAME} {base64.b64encode(VERIFIER.key_id + bytes(64)).decode()}\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text\n",
        b"text\n\n",
        "text\n— name AAAAAAAA\n".encode(),
        f"text\n\n{LINE}".encode()[:-1],
        f"text\n\n{LINE}\n".encode(),
        f"te\txt\n\n{LINE}".encode(),
        f"te\r\nxt\n\n{LINE}".encode(),
        f"text\n\n{LINE}".encode().replace(b"text", b"te\xffxt"),
        f"text\n\n{LINE.replace('— ', '- ')}".encode(),
        f"text\n\n{LINE.replace('— ', '—  ')}".encode(),
        f"text\n\n{LINE.replace(NAME, 'a+b')}".encode(),
        ("text\n\n" + LINE.replace(NAME, "a\u00a0b")).encode(),
        ("text\n\n" + LINE.replace(NAME, "a\u2028b")).encode(),
        f"text\n\n{LINE.replace('=', '')}".encode(),
        "text\n\n— name AAAA\n".encode(),
        "text\n\n— name AAAAAAB=\n".encode(),
        "text\n\n— name AAAAAAA\n".encode(),
        f"text\n\n{LINE * 101}".encode(),
        b"x" * 1_000_001,
    ],
)
def test_what_is_no_note_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        note.parse_note(data)


def test_a_delete_character_and_a_hundred_signatures_are_allowed() -> None:
    assert len(note.parse_note(f"te\x7fxt\n\n{LINE * 100}".encode()).signatures) == 100


NAMES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="+"), min_size=1, max_size=20)


@given(
    st.lists(st.text(st.characters(exclude_categories=["C"]), max_size=20), min_size=1, max_size=5),
    st.lists(st.builds(Signature, NAMES, st.binary(min_size=4, max_size=4), st.binary(min_size=1)), min_size=1),
)
def test_a_note_is_parsed_back(lines: list[str], signatures: list[Signature]) -> None:
    said = Note("".join(line + "\n" for line in lines), tuple(signatures))
    assert note.parse_note(note.format_note(said)) == said


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), st.integers(0, 2**63 - 1), st.binary())
def test_a_tree_head_is_parsed_back(origin: str, size: int, seed: bytes) -> None:
    head = TreeHead(origin, size, (seed + bytes(32))[:32])
    assert note.parse_tree_head(note.format_tree_head(head)) == head


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"\n1\n{ROOT}\n",
        f"log\n01\n{ROOT}\n",
        f"log\n+1\n{ROOT}\n",
        f"log\n-1\n{ROOT}\n",
        f"log\n1_0\n{ROOT}\n",
        f"log\n١\n{ROOT}\n",
        f"log\n \n{ROOT}\n",
        f"log\n\n{ROOT}\n",
        f"log\n{'9' * 5000}\n{ROOT}\n",
        f"log\n1\n{ROOT}",
        f"log\n1\n{ROOT}\nextension\n",
        f"log\n1\n{ROOT[:-1]}\n",
        "log\n1\n\n",
        "log\n1\nAAAA\n",
        f"log\n1\n{ROOT[:-2]}B=\n",
        f"log\r\n1\r\n{ROOT}\r\n",
    ],
)
def test_what_is_no_tree_head_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        note.parse_tree_head(text)


def test_a_verifier_key_is_written_with_its_key_id() -> None:
    text = note.format_vkey(VERIFIER)
    assert text.split("+")[1] == VERIFIER.key_id.hex()
    assert note.parse_vkey(text) == VERIFIER


@pytest.mark.parametrize(
    "text",
    [
        "",
        "PeterNeumann",
        PETER.replace("c74f20a3", "c74f20a4"),
        PETER.replace("c74f20a3", "C74F20A3"),
        PETER.replace("Peter", "Peter "),
        PETER.replace("Peter", "Peter\u3000"),
        PETER.replace("Peter", "Peter\udc80"),
        PETER.replace("PeterNeumann", ""),
        PETER[:-1] + "X",
        PETER + "=",
        PETER + "\n",
        PETER.replace("+AR", "+BR"),
        PETER[:-4],
    ],
)
def test_what_is_no_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        note.parse_vkey(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b", "a\udc80b"])
def test_a_name_that_a_note_cannot_carry_is_the_callers_mistake(name: str) -> None:
    with pytest.raises(ValueError, match="is no key name"):
        note.sign_note("text\n", name, KEY)
