"""The schemas of docs/schemas, and the names of all verbs: for tests that hold answers against them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import typer
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from referencing import Registry, Resource

from fgtrac.cli.main import app

SCHEMAS = Path(__file__).parents[1] / "docs" / "schemas"


@cache
def validator(verb: str) -> Draft202012Validator:
    """What checks an answer of a verb (`show`, `export proof`)."""
    files = {path.name: json.loads(path.read_text()) for path in SCHEMAS.glob("*.json")}
    registry = Registry().with_resources((name, Resource.from_contents(schema)) for name, schema in files.items())
    return Draft202012Validator(files[f"{verb.replace(' ', '-')}.json"], registry=registry)


def check(verb: str, value: Any) -> None:
    """Fails, saying where, for an answer that is not as its schema has it."""
    error = best_match(validator(verb).iter_errors(value))
    assert error is None, f"{verb}: {list(error.absolute_path)}: {error.message:.500}"


@cache
def verbs() -> tuple[str, ...]:
    """Every verb of the command line, those of a group behind its name."""
    return tuple(_verbs(typer.main.get_command(app), ""))


def _verbs(command: Any, name: str) -> Iterator[str]:
    inner = getattr(command, "commands", None)
    if inner is None:
        yield name
    for word, one in (inner or {}).items():
        yield from _verbs(one, f"{name} {word}".strip())
