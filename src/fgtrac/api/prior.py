"""What an existing trace says of itself, sealed or not: who it is and where its training stood."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fgtrac.commit.gather import read_segments
from fgtrac.commit.signer import Signer
from fgtrac.errors import FormatError
from fgtrac.events.codec import encode
from fgtrac.events.schema import decode_event
from fgtrac.store.trace_dir import ORIGIN_PREFIX, TraceDir
from fgtrac.store.vault import Vault
from fgtrac.tlog.tiles import WIDTH, read_bundle, read_entries
from fgtrac.verify.erasures import Erased
from fgtrac.verify.keys import is_about_keys


def trace_id_of(trace: TraceDir) -> bytes:
    """The trace id: from the head's origin, before the first seal from the journal. FormatError where neither does."""
    head = trace.head()
    if head is not None:
        name = head.origin.removeprefix(ORIGIN_PREFIX)
        try:
            found = bytes.fromhex(name)
        except ValueError:
            found = b""
        if len(found) != 16 or head.origin != ORIGIN_PREFIX + found.hex():
            raise FormatError(
                f"{trace.path} is a log named {head.origin!r:.80}; a trace is named {ORIGIN_PREFIX}TRACE-ID"
            )
        return found
    for event in _journal_events(trace):
        if event["kind"] == "run":
            return bytes(event["trace"])
    raise FormatError(f"{trace.path} has no run entry: its first write was lost; start a new run")


def run_entry(trace: TraceDir) -> dict[str, Any]:
    """The `run` entry. FormatError where there is none."""
    head = trace.head()
    if head is not None and head.size:
        first = decode_event(read_bundle(trace, 0, head.size)[0])
        if first["kind"] == "run":
            return first
    for event in _journal_events(trace):
        if event["kind"] == "run":
            return event
    raise FormatError(f"{trace.path} has no run entry among its first; it was not made by fgtrac")


def signer_of(trace: TraceDir, key_path: Path | None = None) -> Signer:
    """Who signs a trace's heads: with the user's key (default: the user's own file) that signed the newest one.

    FormatError where it is no trace; FileNotFoundError or ValueError as `Signer.of`.
    """
    note = trace.read("checkpoint") if trace.head() is not None else None
    return Signer.of(trace_id_of(trace), run_entry(trace)["public_key"], key_path, note)


def keys_of(trace: TraceDir) -> list[bytes]:
    """The public keys that the log has named so far, the one in force last. Reads the whole log."""
    head = trace.head()
    entries = read_entries(trace, 0, head.size, head.size) if head is not None else ()
    return [decode_event(entry)["public_key"] for entry in entries if is_about_keys(entry)]


def last_checkpoint_step(trace: TraceDir) -> int:
    """The step of the newest `checkpoint` entry in the log, 0 where there is none; read from the log's end."""
    head = trace.head()
    size = head.size if head is not None else 0
    for number in range((size - 1) // WIDTH, -1, -1):
        for entry in reversed(read_bundle(trace, number, size)):
            event = decode_event(entry)
            if event["kind"] == "checkpoint":
                return int(event["step"])
    return 0


def registered_before(trace: TraceDir) -> dict[str, tuple[bytes, bytes | None]]:
    """What the log registers under each data set's name: its block, and the SHA-256 over its content digests in the
    order of the ids (None where it has none, or where a part was lost). Reads the whole log once."""
    head = trace.head()
    size = head.size if head is not None else 0
    found: dict[str, tuple[bytes, bytes | None]] = {}
    contents: dict[tuple[bytes, str], tuple[int, Any]] = {}  # (writer, name) -> the next part, SHA-256 of those before
    wanted = encode("kind") + encode("samples")  # in the bytes of every such entry, and of few others
    for number in range(-(-size // WIDTH)):
        for event in [decode_event(e) for e in read_bundle(trace, number, size) if wanted in e]:
            if event["kind"] != "samples":
                continue
            name, block = event["dataset"], bytes(event["block"])
            part, state = contents.get((event["writer"], name), (0, hashlib.sha256()))
            if "contents" in event and part == event["part"]:
                state.update(event["contents"])
                part += 1
            contents[event["writer"], name] = part, state
            earlier = found.get(name, (block, None))
            digest = state.digest() if part == event["parts"] else None
            found[name] = (block, digest or (earlier[1] if earlier[0] == block else None))
    return found


def erased_before(trace: TraceDir) -> Erased:
    """Whom and what the log has erased. Reads the whole log once."""
    head, found = trace.head(), Erased()
    size = head.size if head is not None else 0
    wanted = encode("kind") + encode("erasure")
    for number in range(-(-size // WIDTH)):
        for place, entry in enumerate(read_bundle(trace, number, size)):
            if wanted in entry and (event := decode_event(entry))["kind"] == "erasure":
                found.add(number * WIDTH + place, event)
    return found


def known_secret(vault: Vault, scope: str) -> bytes:
    """The secret of a scope, which the vault must have. ValueError where it has none: what is named by it is new."""
    secret = vault.find_secret(scope)
    if secret is None:
        raise ValueError(
            f"{vault.path.name} has no secret for {scope.partition(':')[0]!r} ids of these samples: they are not in "
            "this trace, or their key was destroyed; pass the data that the run was recorded with"
        )
    return secret


def _journal_events(trace: TraceDir) -> Iterator[dict[str, Any]]:
    for segment in read_segments(trace):
        for frame in segment.frames:
            yield decode_event(frame.entry)
