"""Where entries of kinds of which there are few lie in a log: what a push leaves beside a trace far away, so that its
readers need not go over the log for them.

    NAME.trace.places    CBOR [root, [[kind, [[number, start, stop], ...]], ...]]: under the full seal of this root, of
                         each kind every entry, and where its bytes start and stop in its bundle

Nothing of it is believed: a reader has each entry proved against the signed root, and holds their number against what
the seal counts. So nobody signs it, and one that is missing, damaged or of another head costs requests, and no answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fgtrac.errors import FormatError
from fgtrac.events.codec import decode, encode

KINDS = ("checkpoint", "dataset", "join", "key", "resume")
MOST = 1 << 13  # entries, which a reader may hold a block of each of; kinds with more are left out
Place = tuple[int, int]  # where an entry's bytes start and stop in its bundle
Places = dict[int, Place]  # by its number


def encode_places(root: bytes, found: Mapping[str, Places]) -> bytes:
    """The bytes to leave there."""
    kinds = [[kind, [[n, *place] for n, place in sorted(found[kind].items())]] for kind in sorted(found)]
    return encode([root, kinds])


def decode_places(data: bytes, root: bytes) -> dict[str, Places]:
    """What the bytes say under the head of this root; nothing for any others."""
    try:
        said = decode(data)
    except FormatError:
        return {}
    if not (_is_pair(said) and said[0] == root and isinstance(said[1], list)):
        return {}
    found: dict[str, Places] = {}
    for one in said[1]:
        if not (_is_pair(one) and one[0] in KINDS and isinstance(one[1], list) and all(map(_is_place, one[1]))):
            return {}
        found[one[0]] = {number: (start, stop) for number, start, stop in one[1]}
    return found


def _is_pair(said: Any) -> bool:
    return isinstance(said, list) and len(said) == 2


def _is_place(said: Any) -> bool:
    return isinstance(said, list) and len(said) == 3 and all(type(n) is int and 0 <= n < 1 << 48 for n in said)
