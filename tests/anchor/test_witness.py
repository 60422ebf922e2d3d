"""The client of C2SP witnesses: what it sends, and what becomes of every answer that the specification knows."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import cosigned
from cosigned import KEY, NAME, cosignature, cosigner, prover, signed_head
from fgtrac.anchor.witness import MAX_ROUNDS, Witness, read_cosigner
from fgtrac.errors import AnchorError, RefusedError
from fgtrac.tlog.cosignature import format_cosigner
from fgtrac.tlog.note import Verifier, format_signatures, format_vkey
from scripted_witness import Answer, Script, answering, cosigns, knows
from signed import KEY as LOG_KEY
from signed import ORIGIN, VERIFIER

ENTRIES = [b"entry %d" % n for n in range(20)]
HEAD = signed_head(ENTRIES, 9)
VKEY = format_cosigner(cosigner())
OTHER = Ed25519PrivateKey.from_private_bytes(b"o" * 32)
SECRET = "k3y-th4t-is-secret"


def ask(script: Script, size: int = 9, witness: Witness | None = None) -> tuple[str, bytes]:
    return (witness or Witness(script.url, VKEY, timeout_s=5)).anchor(signed_head(ENTRIES, size), prover(ENTRIES, size))


def refusal(answers: Sequence[Answer]) -> str:
    with answering(answers) as script, pytest.raises(RefusedError) as caught:
        ask(script)
    return str(caught.value)


def failure(answers: Sequence[Answer]) -> str:
    with answering(answers) as script, pytest.raises(AnchorError) as caught:
        ask(script)
    assert not isinstance(caught.value, RefusedError)
    return str(caught.value)


def lines(*names_and_keys: tuple[str, Ed25519PrivateKey]) -> bytes:
    return format_signatures([cosignature(HEAD.note, name, key) for name, key in names_and_keys])


@pytest.mark.parametrize("prefix", ["", "/", "/log/witness", "/log/witness/"])
def test_the_head_is_posted_below_the_url_s_path_and_the_receipt_is_the_cosigned_note(prefix: str) -> None:
    with answering([cosigns(HEAD.note)], prefix) as script:
        name, receipt = ask(script)
    assert script.paths == [prefix.rstrip("/") + "/add-checkpoint"]
    assert script.bodies == [b"old 0\n\n" + HEAD.note]
    assert name == f"witness-{cosigner().key_id.hex()}.checkpoint"
    assert receipt == cosigned.cosigned(HEAD.note)


def test_the_answer_409_tells_where_the_proof_starts() -> None:
    with answering([knows(4), cosigns(HEAD.note)]) as script:
        _, receipt = ask(script)
    proof = "".join(base64.b64encode(h).decode() + "\n" for h in prover(ENTRIES, 9)(4))
    assert script.bodies[1] == f"old 4\n{proof}\n".encode() + HEAD.note
    assert receipt == cosigned.cosigned(HEAD.note)


def test_the_next_head_is_proved_from_the_last_without_asking() -> None:
    answers = [cosigns(HEAD.note), cosigns(signed_head(ENTRIES, 12).note), cosigns(signed_head(ENTRIES, 12).note)]
    with answering(answers) as script:
        witness = Witness(script.url, VKEY, timeout_s=5)
        for size in (9, 12, 12):
            ask(script, size, witness)
    assert [body.split(b"\n")[0] for body in script.bodies] == [b"old 0", b"old 9", b"old 12"]


def test_a_witness_that_lost_its_memory_is_asked_from_the_beginning() -> None:
    with answering([cosigns(HEAD.note), knows(0), cosigns(signed_head(ENTRIES, 12).note)]) as script:
        witness = Witness(script.url, VKEY, timeout_s=5)
        ask(script, 9, witness)
        ask(script, 12, witness)
    assert script.bodies[2].startswith(b"old 0\n\n")


def test_a_head_smaller_than_the_last_is_refused_with_both_sizes() -> None:
    with answering([cosigns(signed_head(ENTRIES, 12).note), knows(12)]) as script:
        witness = Witness(script.url, VKEY, timeout_s=5)
        ask(script, 12, witness)
        with pytest.raises(RefusedError, match="cosigned 12 entries of this log, and this head has 9"):
            ask(script, 9, witness)


def test_lines_of_other_keys_are_left_out() -> None:
    mine, others = (NAME, KEY), ((NAME, OTHER), ("witness.example/w2", KEY))
    with answering([(200, "text/plain", lines(others[0], mine, others[1]))]) as script:
        assert ask(script)[1] == cosigned.cosigned(HEAD.note)


def test_a_cosignature_by_another_key_than_the_one_named_is_no_receipt() -> None:
    words = refusal([(200, "text/plain", lines((NAME, OTHER)))])
    assert f"not with the key that you named (key id {cosigner().key_id.hex()})" in words


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(403, "text/plain", b"")], "by another key than the one that signed this head (was the key replaced?)"),
        ([(403, "text/plain", b"")], "fgtrac show TRACE --vkey"),
        ([knows(4), (422, "text/plain", b"")], "it cosigned 4 entries, and this head of 9 does not continue them"),
        ([knows(9), knows(9)], "it cosigned 9 entries, and this head of 9 does not continue them"),
        ([knows(9), (409, "text/plain", b"conflict")], "This is a fork"),
        ([knows(10)], "cosigned 10 entries of this log, and this head has 9: the trace was rolled back"),
    ],
)
def test_every_refusal_says_what_it_means_and_what_to_do(answers: Sequence[Answer], words: str) -> None:
    assert words in refusal(answers)


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(404, "text/plain", b"")], f"404: it does not know the log {ORIGIN} yet, or the URL's path is not its own"),
        ([(404, "text/plain", b"")], "its owner has to add that log with its vkey (fgtrac show TRACE --vkey"),
        ([(429, "text/plain", b"")], "answers 429"),
        ([(503, "text/plain", b"")], "answers 503: it has no time or no storage just now; try again later"),
        ([(400, "text/plain", b"")], "answers 400"),
        ([(500, "text/plain", b"")], "answers 500"),
        ([(201, "text/plain", b"")], "answers 201"),
        ([(422, "text/plain", b"")], "answers 422, which a witness does not"),  # of no entries every log is a growth
        ([knows(0)], "answers 409 and names no size other than 0"),
        ([knows(2**63)], "answers 409"),
        ([knows(3), knows(4), knows(5), knows(6)], f"another size of this log in each of {MAX_ROUNDS} rounds"),
        *(
            ([(409, kind, body)], "answers 409")
            for kind, body in [
                ("text/plain", b"4\n"),
                ("text/x.tlog.size", b"4"),
                ("text/x.tlog.size", b"04\n"),
                ("text/x.tlog.size", b"-4\n"),
                ("text/x.tlog.size", b"4\n\n"),
                ("text/x.tlog.size", "٤\n".encode()),
                ("text/x.tlog.size", b"9" * 5000 + b"\n"),
                ("text/x.tlog.size", b""),
            ]
        ),
        *(
            ([(200, "text/plain", body)], "gave no usable answer")
            for body in [
                b"",
                b"\n",
                b"ok\n",
                b"\xff\n",
                lines((NAME, KEY))[:-1],
                lines((NAME, KEY)) + b"\n",
                b"another text\n\n" + lines((NAME, KEY)),
                HEAD.note,
                lines((NAME, KEY)) * 101,
                format_signatures([cosignature(signed_head(ENTRIES, 8).note)]),
            ]
        ),
        ([(200, "text/plain", b"x" * 200_000)], "answers with more than"),
    ],
)
def test_who_does_not_know_the_log_yet_or_answers_nonsense_may_be_asked_again(
    answers: Sequence[Answer], words: str
) -> None:
    assert words in failure(answers)


def test_a_witness_that_is_not_there_may_be_asked_again() -> None:
    with answering([cosigns(HEAD.note)]) as script:
        pass
    with pytest.raises(AnchorError) as caught:
        ask(script)
    assert not isinstance(caught.value, RefusedError)


def test_messages_and_its_name_show_no_more_of_a_url_than_the_host() -> None:
    with answering([(404, "text/plain", b"")]) as script:
        url = script.url.replace("http://", f"http://user:{SECRET}@") + f"/{SECRET}?key={SECRET}"
        witness = Witness(url, VKEY, timeout_s=5)
        with pytest.raises(AnchorError) as caught:
            ask(script, witness=witness)
    assert script.paths == [f"/{SECRET}/add-checkpoint?key={SECRET}"]
    assert SECRET not in f"{caught.value} {witness.name}"
    assert f"the witness {NAME} at {script.url}" in str(caught.value)


def test_its_settings_make_it_again(tmp_path: Path) -> None:
    (tmp_path / "witness.vkey").write_text(VKEY + "\n")
    witness = Witness("http://127.0.0.1:1/w", tmp_path / "witness.vkey", timeout_s=3)
    witness.prepare()
    assert witness.settings() == {"kind": "witness", "url": "http://127.0.0.1:1/w", "key": VKEY, "timeout_s": 3}
    settings = dict(witness.settings())
    assert settings.pop("kind") == witness.kind
    assert Witness(**settings).settings() == witness.settings()


@pytest.mark.parametrize("url", ["", "witness.example", "ftp://witness.example", "http://"])
def test_what_is_no_url_is_the_callers_mistake(url: str) -> None:
    with pytest.raises(ValueError, match="no URL"):
        Witness(url, VKEY)


def test_a_timeout_is_above_zero() -> None:
    with pytest.raises(ValueError, match="timeout_s=0; it is in seconds, above 0"):
        Witness("http://127.0.0.1:1", VKEY, timeout_s=0)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("", "name a witness's vkey, or a file that holds it"),
        ("nowhere.vkey", "name a witness's vkey, or a file that holds it"),
        ("a" * 5000, "name a witness's vkey"),
        ("a\0b", "name a witness's vkey"),
        (format_vkey(VERIFIER), "is the key of a log"),
        (VKEY.replace("+773a", "+773b"), "key id"),
    ],
)
def test_what_is_no_cosigners_key_is_the_callers_mistake(key: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_cosigner(key)


def test_a_file_without_a_key_is_named_and_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(SECRET)
    with pytest.raises(ValueError, match=r"key\.pem holds no witness's vkey") as caught:
        read_cosigner(path)
    assert SECRET not in str(caught.value)


def test_a_log_s_own_key_signs_no_cosignature() -> None:
    """A cosigner with the log's name and key has another key id, so that the log's line is none of its."""
    own = cosigner(ORIGIN, LOG_KEY)
    assert own.key_id != Verifier(ORIGIN, own.public_key).key_id
    with answering([(200, "text/plain", HEAD.note.split(b"\n\n")[1])]) as script, pytest.raises(RefusedError):
        ask(script, witness=Witness(script.url, format_cosigner(own), timeout_s=5))
