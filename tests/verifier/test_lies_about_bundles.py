"""To every lie in attacks/ that is told with a bundle, all three verifiers answer alike, check by check."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fgtrac.commit.keys import load_key
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.verify.bundle import Bundle, format_bundle
from page_verifier import PageVerifier

ATTACKS = Path(__file__).parents[2] / "attacks"
NAMES = sorted(p.stem for p in ATTACKS.glob("*.py") if "stage.check(" in p.read_text())
EXIT_CODES = {"holds": 0, "refuted": 1, "malformed": 2, "cannot tell": 3}
ORDER = ["holds", "cannot tell", "refuted"]


@pytest.fixture(scope="module")
def stage(other: ModuleType, page: PageVerifier | None, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stage of attacks/, on which each bundle that is checked is shown to all three verifiers."""
    from lying import Stage

    class AllAsked(Stage):  # type: ignore[misc]
        asked = 0

        def check(self, bundle: Bundle | bytes, *options: str | Path, has_key: bool = True) -> Any:
            answer = super().check(bundle, *options, has_key=has_key)
            data = bundle if isinstance(bundle, bytes) else format_bundle(bundle)
            named = dict(zip(map(str, options[::2]), options[1::2], strict=True))
            id_key = None if "--id-key" not in named else id_key_of(named["--id-key"])
            try:
                key = bytes.fromhex(self.public_key) if has_key else None
                if "--key" in named:
                    key = load_key(Path(named["--key"])).public_key().public_bytes_raw()
                verdict, found = other.Examination(other.read_bundle(data), key, id_key).report()
            except other.Fault:
                verdict, found = "malformed", {}
            # Whom somebody asks about is no question to the second verifier.
            checks = {check: said for check, said in answer.verdicts.items() if check != "about"}
            expected = (
                answer.code if checks == dict(answer.verdicts) else EXIT_CODES[max(checks.values(), key=ORDER.index)]
            )
            assert EXIT_CODES[verdict] == expected
            if verdict not in ("refuted", "malformed"):
                assert {c: v for c, (v, _w) in found.items()} == {c: checks[c] for c in found}
            if page is not None:
                about = named.get("--about")
                said = page.said(data, key.hex() if key else None, id_key, {"name": str(about)} if about else None)
                assert (EXIT_CODES[said[0]], said[1]) == (answer.code, dict(answer.verdicts))
            AllAsked.asked += 1
            return answer

    return AllAsked(tmp_path_factory.mktemp("attacks"))


def id_key_of(named: str | Path) -> bytes | None:
    """The id key that fgtrac takes from a vault or from 64 hex digits."""
    if isinstance(named, str):
        return bytes.fromhex(named)
    head = TraceDir(named.with_suffix(".trace")).head()
    assert head is not None
    vault = Vault.open(named, bytes.fromhex(head.origin.partition("/")[2]))
    try:
        return vault.find_secret("run")
    finally:
        vault.close()


@pytest.mark.parametrize("name", NAMES)
def test_all_verifiers_answer_a_lie_alike(stage: Any, name: str) -> None:
    before = type(stage).asked
    acts = list(importlib.import_module(name).tell(stage))
    assert acts
    assert type(stage).asked > before
