"""Cosignatures: the format, byte for byte, every flipped bit, and how many witnesses several keys are."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cosigned import KEY, NAME, TIME, cosignature, cosigned, cosigner
from fgtrac.errors import FgtracError, FormatError, ProofError
from fgtrac.tlog.cosignature import (
    Cosigner,
    cosignature_message,
    cosignature_time,
    count_cosigners,
    count_distinct,
    format_cosigner,
    parse_cosigner,
)
from fgtrac.tlog.note import (
    MAX_SIGNATURES,
    Note,
    Signature,
    format_note,
    format_signatures,
    format_vkey,
    parse_note,
    parse_signatures,
    verify_note,
    with_signatures,
)
from signed import VERIFIER, note

HEAD = note([b"entry %d" % n for n in range(9)], 9)
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
VKEY = format_cosigner(cosigner())


def with_line(signature: Signature) -> bytes:
    parsed = parse_note(HEAD)
    return format_note(Note(parsed.text, (*parsed.signatures, signature)))


def test_the_message_is_the_specification_s() -> None:
    text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    assert cosignature_message(text, 1679315147) == (
        b"cosignature/v1\ntime 1679315147\nexample.com/behind-the-sofa\n20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


def test_a_line_is_the_key_id_the_time_and_the_signature() -> None:
    line = cosigned(HEAD).decode().splitlines()[-1].split(" ")
    raw = base64.b64decode(line[2])
    public = KEY.public_key().public_bytes_raw()
    assert line[:2] == ["—", NAME]
    assert len(raw) == 76
    assert raw[:4] == hashlib.sha256(NAME.encode() + b"\n\x04" + public).digest()[:4]
    assert raw[4:12] == TIME.to_bytes(8, "big")
    KEY.public_key().verify(raw[12:], cosignature_message(parse_note(HEAD).text, TIME))


def test_the_time_of_a_cosigner_is_in_its_line_and_none_without_one() -> None:
    assert cosignature_time(cosigned(HEAD), cosigner()) == TIME
    assert cosignature_time(HEAD, cosigner()) is None
    assert cosignature_time(cosigned(HEAD), cosigner("witness.example/w2")) is None
    assert cosignature_time(cosigned(HEAD), cosigner(key=OTHER)) is None


def test_of_several_lines_of_a_key_the_earliest_time_counts_and_every_line_must_fit() -> None:
    early, late = (cosignature(HEAD, time=t) for t in (5, 7))
    parsed = parse_note(HEAD)
    for lines in ((early, late), (late, early)):
        assert cosignature_time(format_note(Note(parsed.text, (*parsed.signatures, *lines))), cosigner()) == 5
    wrong = Signature(late.name, late.key_id, late.signature[:-1] + b"\0")
    with pytest.raises(ProofError):
        cosignature_time(format_note(Note(parsed.text, (*parsed.signatures, early, wrong))), cosigner())


def test_every_flipped_bit_of_the_text_or_the_line_is_refused() -> None:
    data = cosigned(HEAD)
    line = data.rfind("—".encode())
    for place in (*range(len(parse_note(HEAD).text)), *range(line, len(data))):
        for bit in range(8):
            lie = bytearray(data)
            lie[place] ^= 1 << bit
            try:
                assert cosignature_time(bytes(lie), cosigner()) is None  # a line that is no longer this cosigner's
            except FgtracError:
                continue
            assert place >= line


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (bytes(71), "has 71 bytes, not 72"),
        (bytes(73), "has 73 bytes, not 72"),
        (bytes(64), "has 64 bytes"),
        (bytes(72), "does not fit the text"),
        ((2**63).to_bytes(8, "big") + bytes(64), "names the time 9223372036854775808"),
        (TIME.to_bytes(8, "big") + KEY.sign(parse_note(HEAD).text.encode()), "does not fit the text"),
        ((TIME + 1).to_bytes(8, "big") + cosignature(HEAD).signature[8:], "does not fit the text"),
        (cosignature(note([b"x"], 1)).signature, "does not fit the text"),
    ],
)
def test_a_line_of_the_key_that_is_no_cosignature_of_the_text_spoils_the_note(signature: bytes, words: str) -> None:
    with pytest.raises(ProofError, match=words):
        cosignature_time(with_line(Signature(NAME, cosigner().key_id, signature)), cosigner())


def test_the_largest_time_is_taken() -> None:
    assert cosignature_time(cosigned(HEAD, time=2**63 - 1), cosigner()) == 2**63 - 1


def test_a_cosigner_s_key_is_written_with_its_type_and_read_back() -> None:
    name, identity, material = VKEY.split("+", 2)
    assert (name, identity) == (NAME, cosigner().key_id.hex())
    assert base64.b64decode(material) == b"\x04" + KEY.public_key().public_bytes_raw()
    assert parse_cosigner(VKEY) == cosigner()


def vkey(kind: int, key: bytes, name: str = NAME) -> str:
    material = bytes((kind,)) + key
    identity = hashlib.sha256(name.encode() + b"\n" + material).hexdigest()[:8]
    return f"{name}+{identity}+{base64.b64encode(material).decode()}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no cosigner's key"),
        (NAME, "no cosigner's key"),
        (VKEY + "\n", "base64"),
        (VKEY[:-4], "no cosigner's key"),
        (VKEY.replace(cosigner().key_id.hex(), "00000000"), "key id '00000000'"),
        (VKEY.replace(cosigner().key_id.hex(), cosigner().key_id.hex().upper()), "key id"),
        (VKEY.replace("witness", "wit ness"), "no cosigner's key"),
        (VKEY.replace(NAME, ""), "no cosigner's key"),
        (vkey(2, bytes(32)), "no cosigner's key"),
        (format_vkey(VERIFIER), "is the key of a log"),
        (vkey(6, bytes(1312)), r"ML-DSA-44 key \(type 0x06\), which is not supported"),
    ],
)
def test_what_is_no_cosigner_s_key_is_refused(text: str, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        parse_cosigner(text)


def test_cosigners_count_once_however_often_and_under_however_many_names_a_key_is_named() -> None:
    renamed = cosigner("witness.example/w2")
    both = with_signatures(HEAD, [cosignature(HEAD), cosignature(HEAD, renamed.name), cosignature(HEAD, NAME, OTHER)])
    third = Ed25519PrivateKey.from_private_bytes(b"t" * 32)
    all_three = cosigned(both, "witness.example/w3", third)
    old, new = cosigner(), cosigner(key=OTHER)
    assert count_cosigners(HEAD, [old, new]) == 0
    assert count_cosigners(both, [old]) == 1
    assert count_cosigners(both, [old, old]) == 1
    assert count_cosigners(both, [old, new]) == 1  # two keys of one name
    assert count_cosigners(both, [old, renamed]) == 1  # one key of two names
    assert count_cosigners(both, [new, renamed]) == 2
    assert count_cosigners(both, [new, renamed, old]) == 1  # joined by the third
    assert count_cosigners(all_three, [old, new, renamed, cosigner("witness.example/w3", third)]) == 2


def test_a_spoiled_line_of_one_cosigner_is_no_smaller_count() -> None:
    spoiled = cosigned(with_line(Signature(NAME, cosigner().key_id, bytes(72))), "witness.example/w2", OTHER)
    assert count_cosigners(spoiled, [cosigner("witness.example/w2", OTHER)]) == 1
    with pytest.raises(ProofError):
        count_cosigners(spoiled, [cosigner(), cosigner("witness.example/w2", OTHER)])


@given(
    st.permutations(
        [Cosigner("a", b"1" * 32), Cosigner("b", b"1" * 32), Cosigner("b", b"2" * 32), Cosigner("c", b"3" * 32)]
    )
)
def test_the_count_does_not_depend_on_the_order(cosigners: list[Cosigner]) -> None:
    assert count_distinct(cosigners) == 2


def test_a_note_takes_more_lines_and_the_log_s_signature_still_counts() -> None:
    one, two = cosignature(HEAD), cosignature(HEAD, "witness.example/w2", OTHER)
    data = with_signatures(HEAD, [one, two])
    assert data == HEAD + format_signatures([one, two])
    assert verify_note(data, [VERIFIER]).signatures[1:] == (one, two)


def test_of_each_name_and_key_the_first_line_stays() -> None:
    first, later = cosignature(HEAD), cosignature(HEAD, time=TIME + 1)
    data = with_signatures(HEAD, [first, later])
    assert data == HEAD + format_signatures([first])
    assert with_signatures(data, [later, first]) == data


def test_a_note_of_too_many_lines_is_not_made() -> None:
    lines = [Signature(f"w{n}", b"1234", b"x") for n in range(MAX_SIGNATURES)]
    assert parse_note(with_signatures(HEAD, lines[:-1])).signatures[1:] == tuple(lines[:-1])
    with pytest.raises(ValueError, match="101 signature lines; the most is 100"):
        with_signatures(HEAD, lines)


@pytest.mark.parametrize("data", [b"", b"\n", b"x\n", b"\n" + format_signatures([cosignature(HEAD)]), HEAD])
def test_what_are_no_signature_lines_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        parse_signatures(data)
