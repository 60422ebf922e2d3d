"""Parsers of what is handed from one party to another: bundles, policies, lists of samples and of contents."""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.tlog.proof import TlogProof, format_proof
from fgtrac.verify.bundle import format_bundle, parse_bundle
from fgtrac.verify.policy_file import parse_policies
from fgtrac.verify.sample_lists import parse_digests, parse_samples
from fgtrac.verify.since import read_kept_head
from target import Real, Target, filled

POLICY = b"""format = "fgtrac-policies/v1"

[held-out]
roles = ["test", "validation"]

[every-training-sample-used]
on = false

[held-out-features]

[[opt-out]]
name = "letters of March"
samples = "optouts.txt"
datasets = ["photos"]
after = 2026-03-01T00:00:00Z

[[opt-out]]
name = "people"
subjects = ["p-17"]
"""


def in_pieces(data: bytes) -> list[bytes]:
    """The bytes cut as files are read."""
    return [data[i : i + 65_536] for i in range(0, len(data), 65_536)]


def samples(data: bytes) -> int:
    return sum(len(lines) for lines in parse_samples(in_pieces(data)))


def digests(data: bytes) -> int:
    return sum(len(found) for found in parse_digests(in_pieces(data)))


def bundles(real: Real) -> Iterator[bytes]:
    for path in sorted(real.folder.glob("*.bundle.json")):
        yield path.read_bytes()


def worst_json() -> Iterator[bytes]:
    yield filled(b"[")
    yield filled(b'{"a":')
    yield b"[" + filled(b"[],") + b"0]"
    yield b"[" + filled(b"{},") + b"0]"
    yield b"[" + filled(b"0,") + b"0]"
    yield b"[" + filled(b'"a",') + b"0]"
    yield b"[" + filled(b'"\\u0100\\u0100",') + b"0]"
    yield b'{"format":' + filled(b"9") + b"}"
    yield b'"' + filled(b"\\\\")
    yield filled(b'"')
    yield b'"' + filled(b'\\"')
    yield b"{" + b",".join(b'"%d":0' % n for n in range(120_000)) + b"}"


def worst_policies() -> Iterator[bytes]:
    yield b"a = " + filled(b"[")
    yield filled(b"[[opt-out]]\n")
    yield filled(b"a.b.c.d.e.f = 1\n")
    yield b"\n".join(b"k%d = {}" % n for n in range(4000))
    yield b"a = " + filled(b"9", 999)
    yield b"\n".join(b".".join([b"a%d" % n] + [b"b"] * 400) + b" = 1" for n in range(60))
    yield b'a = """' + filled(b"\\\n", 60_000)


def worst_lists() -> Iterator[bytes]:
    yield filled(b"\n")
    yield filled(b"a:0\n")
    yield filled(b"key:" + b"[" * 4000 + b"\n")
    yield filled(b"key:[" + b"[]," * 1000 + b"[]]\n")
    yield filled(b"key:" + b"9" * 4000 + b"\n")
    yield filled(b"a")
    yield filled(b"a:0" + bytes(range(128, 250)) + b"\n")
    yield b"".join(b"d%d:0\n" % n for n in range(130_000))
    yield filled(b"00" * 32 + b"\n")
    yield filled(b":" * 4000 + b"\n")


def older_heads(real: Real) -> Iterator[bytes]:
    notes = real.files("checkpoint")
    yield from notes
    yield format_proof(TlogProof(5, (bytes(32),), notes[0])).encode()
    yield from list(bundles(real))[:3]


TARGETS = [
    Target("fgtrac bundle", parse_bundle, bundles, format_bundle, is_canonical=False, worst=worst_json),
    Target("older head", read_kept_head, older_heads, worst=worst_json),
    Target("policy file", parse_policies, lambda r: [POLICY], worst=worst_policies),
    Target("list of samples", samples, lambda r: [b"id:" + b"ab" * 32 + b"\nkey:[1, \"a\"]\ndigits:7\n"],
           worst=worst_lists),
    Target("list of contents", digests, lambda r: [b"ab" * 32 + b"  a.png\n" + b"cd" * 32 + b"\n"], worst=worst_lists),
]  # fmt: skip
