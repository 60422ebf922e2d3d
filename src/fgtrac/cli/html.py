"""`fgtrac export html`: one file with a bundle and a verifier, which a browser opens offline."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fgtrac.api.bundles import read_bundle
from fgtrac.api.trace import open_trace
from fgtrac.cli.console import AsJson, answers, print_json, safe
from fgtrac.cli.history import FORMS, Key
from fgtrac.store.durable import write_file
from fgtrac.store.private_files import check_names_file
from fgtrac.verify.bundle import parse_bundle
from fgtrac.web.proof_page import proof_page, verifier_digest


def html(
    source: Annotated[Path | None, typer.Argument(metavar="BUNDLE|TRACE", help="a bundle, or a trace")] = None,
    sample: Annotated[str | None, typer.Argument(help=f"of a trace: {FORMS}; of a content file:PATH")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="the page to write, FILE.html")] = None,
    claim: Annotated[str | None, typer.Option(help="of a trace: what to prove, as `fgtrac prove` has it")] = None,
    entries: Annotated[bool, typer.Option("--entries", help="of a trace: carry the entries behind the rows")] = False,
    empty: Annotated[bool, typer.Option("--empty", help="a page without a bundle, to check others' on")] = False,
    digest: Annotated[
        bool, typer.Option("--verifier-digest", help="print the SHA-256 of the script that every page has")
    ] = False,
    key: Key = None,
    force: Annotated[bool, typer.Option("--force", help="replace a file that is there")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a page that checks its bundle by itself, offline: readers need a browser and the public key they trust."""
    if digest:
        given = {"BUNDLE|TRACE": source, "-o": out, "--claim": claim, "--entries": entries, "--empty": empty}
        _only_digest([name for name, value in (given | {"--key": key, "--force": force}).items() if value], as_json)
        return
    if out is None:
        raise ValueError("name the page to write: -o FILE.html")
    data = None if empty else _bundle_of(source, sample, claim, entries, key)
    if empty and (source is not None or claim is not None or entries):
        raise ValueError(f"--empty writes a page without a bundle, and {source or claim or '--entries'} asks for one")
    if out.exists() and not force:
        raise FileExistsError(f"{out} is there already; name another file, or replace it with --force")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} to write {out.name} into")
    page = proof_page(data)
    write_file(out, page)
    words = "no bundle: drop one on it" if data is None else parse_bundle(data).words
    if as_json:
        said = {} if data is None else {"words": words}
        print_json({"path": str(out), "bytes": len(page), "script_sha256": verifier_digest(), **said})
    else:
        lines = [words, f"{out}: {len(page):,} bytes, with a script of SHA-256 {verifier_digest()}"]
        answers().print("\n".join(map(safe, lines)), soft_wrap=True)


def _only_digest(given: list[str], as_json: bool) -> None:
    if given:
        raise ValueError(f"--verifier-digest prints one line and takes nothing else; leave out {given[0]}")
    if as_json:
        print_json({"script_sha256": verifier_digest()})
    else:
        answers().print(verifier_digest())


def _bundle_of(source: Path | None, sample: str | None, claim: str | None, entries: bool, key: str | None) -> bytes:
    """The bytes of the bundle that is named, or of one that is made of a trace now."""
    if source is None:
        raise ValueError("name a bundle, or a trace and a sample; or write a page without a bundle with --empty")
    check_names_file(source)
    if not source.exists():
        raise FileNotFoundError(f"there is no file or trace {source}")
    if source.is_file():
        given = {"SAMPLE": sample, "--claim": claim, "--entries": entries or None, "--key": key}
        unused = [name for name, value in given.items() if value is not None]
        if unused:
            raise ValueError(f"{unused[0]} belongs to a trace, and {source} is a bundle; leave it out")
        return read_bundle(source)[0]
    if sample is None:
        raise ValueError(f"name the sample of {source} that the page is about: {FORMS}")
    return open_trace(source, key=key).prove(sample, claim, entries=entries)
