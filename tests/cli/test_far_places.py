"""Every verb takes a trace on object storage, or refuses it in one line with the remedy; the docs say which does."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from fgtrac.cli.far_places import IN_A_FOLDER, READING, WRITING, refuse_far_places, remedy_far
from fgtrac.cli.main import VERBS, main
from fgtrac.store.object_answers import in_words

DOCS = Path(__file__).parents[2] / "docs" / "object-storage.md"
URL = "s3://AKID:secret@bucket/run.trace"


def test_every_verb_is_in_one_list_and_the_docs_have_the_same() -> None:
    listed = [*READING, *WRITING, *IN_A_FOLDER, "push", "completion"]
    assert sorted(listed) == sorted({*(verb.__name__ for verb in VERBS), "export", "key"})
    reading, others = (re.findall("`([a-z]+)`", line) for line in re.findall("(?m)^\\* (.*)$", DOCS.read_text())[-2:])
    assert sorted(reading) == sorted(READING)
    assert sorted(others) == sorted((*WRITING, *IN_A_FOLDER))


@pytest.mark.parametrize("verb", [*WRITING, *IN_A_FOLDER, "push"])
def test_a_verb_that_needs_a_folder_says_so_in_one_line(
    verb: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["fgtrac", verb, URL])
    with pytest.raises(SystemExit) as stop:
        main()
    told = capfd.readouterr().err
    assert stop.value.code == 2
    assert told.count("\n") == 1
    assert re.search("only read.*fgtrac push|folders of this machine; s3:// is read by verify", told)
    assert "secret" not in told


def test_the_others_pass_and_their_advice_is_what_can_be_done_there() -> None:
    for verb in READING:
        refuse_far_places([verb, URL])
    refuse_far_places(["push", "run.trace", URL])
    refuse_far_places(["seal", "run.trace"])
    assert remedy_far("put the vault beside the trace", ["history", URL]).endswith(
        "(no vault is on object storage: ask where the trace was recorded)"
    )
    named = "http://127.0.0.1:9 did not answer for s3://ml-vault/vault/the-vault.trace"
    assert remedy_far(named, ["show", "s3://ml-vault/vault/the-vault.trace"]) == named
    assert remedy_far("fgtrac seal rebuilds it", ["verify", URL]).endswith(
        "(where the trace was recorded; then fgtrac push --again)"
    )
    assert remedy_far("fgtrac seal rebuilds it", ["verify", "run.trace"]) == "fgtrac seal rebuilds it"


@pytest.mark.parametrize(
    ("endpoint", "words"),
    [
        ("http://127.0.0.1:9", "http://127.0.0.1:9"),
        ("https://ak:SECRET@here:9/x", "https://here:9"),
        ("http://127.0.0.1:9/?sig=SECRET", "http://127.0.0.1:9"),
        ("http://[::1]:9/SECRET", "http://[::1]:9"),
        ("http://ak:SECRET/PW@127.0.0.1:9", "the endpoint that is set"),
        ("http://ak:8080/SECRET@127.0.0.1:9", "the endpoint that is set"),
        ("SECRET", "the endpoint that is set"),
    ],
)
def test_of_an_endpoint_only_scheme_host_and_port_are_printed(endpoint: str, words: str) -> None:
    assert in_words(endpoint) == words
