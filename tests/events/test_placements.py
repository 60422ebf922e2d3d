"""Placements: where a loader's positions lead, as bytes and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fgtrac.errors import FormatError
from fgtrac.events.orders import decode_placement, encode_placement


@given(st.binary(max_size=200))
def test_any_bytes_are_a_placement_or_a_format_error(data: bytes) -> None:
    try:
        places = decode_placement(data)
    except FormatError:
        return
    several = len(places.blocks) > 1
    assert encode_placement(places.blocks, places.ordinals, places.which if several else None) == data


@given(st.lists(st.binary(min_size=16, max_size=16), min_size=1, max_size=3), st.data())
def test_a_placement_comes_back_as_it_was(blocks: list[bytes], data: st.DataObject) -> None:
    ordinals = np.array(data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=9)), "<u4")
    which = np.array([data.draw(st.integers(0, len(blocks) - 1)) for _ in ordinals], "<u2")
    encoded = encode_placement(tuple(blocks), ordinals, which if len(blocks) > 1 else None)
    back = decode_placement(encoded)
    assert (back.blocks, back.ordinals.tolist(), back.which.tolist()) == (
        tuple(blocks),
        ordinals.tolist(),
        which.tolist(),
    )
    for cut in range(len(encoded)):
        with pytest.raises(FormatError):
            decode_placement(encoded[:cut])
