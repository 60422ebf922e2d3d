"""What a person types into a box that asks for a sample: any form of a name, and what is short for one."""

from __future__ import annotations

import json

from fgtrac.events.sample_names import parse_sample_name

LONGEST = 600


def written_out(text: str) -> str:
    """The name that is meant: 64 hex digits are an id, and what has none of the forms is a key: a number, as it is
    written without a zero before it, or the text as it stands, blanks included.

    ValueError for nothing at all, what is too long, and a form that is not kept to.
    """
    said = text.strip()
    if not said or len(said) > LONGEST:
        raise ValueError(f"{len(said):,} characters name no sample; the most is {LONGEST}")
    if len(said) == 64 and not set(said.lower()) - set("0123456789abcdef"):
        return f"id:{said.lower()}"
    if ":" not in said:
        is_number = said.isascii() and said.isdigit() and len(said) < 20 and (said == "0" or said[0] != "0")
        return f"key:{said}" if is_number else f"key:{json.dumps(text)}"
    parse_sample_name(said)
    return said
