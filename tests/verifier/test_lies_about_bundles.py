"""To every lie in attacks/ that is told with a bundle, the second verifier answers as fgtrac does, check by check."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault
from fgtrac.verify.bundle import Bundle, format_bundle

ATTACKS = Path(__file__).parents[2] / "attacks"
NAMES = sorted(p.stem for p in ATTACKS.glob("*.py") if "stage.check(" in p.read_text())
EXIT_CODES = {"holds": 0, "refuted": 1, "malformed": 2, "cannot tell": 3}


@pytest.fixture(scope="module")
def stage(other: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stage of attacks/, on which each bundle that is checked is shown to both verifiers."""
    from lying import Stage

    class BothAsked(Stage):  # type: ignore[misc]
        asked = 0

        def check(self, bundle: Bundle | bytes, *options: str | Path, has_key: bool = True) -> Any:
            answer = super().check(bundle, *options, has_key=has_key)
            data = bundle if isinstance(bundle, bytes) else format_bundle(bundle)
            named = dict(zip(map(str, options[::2]), options[1::2], strict=True))
            id_key = None if "--id-key" not in named else id_key_of(named["--id-key"])
            about = None if "--about" not in named else str(named["--about"])
            try:
                key = self.public_key if has_key else None
                verdict, found = other.Examination(other.read_bundle(data), key, id_key, about).report()
            except other.Fault:
                verdict, found = "malformed", {}
            assert (EXIT_CODES[verdict], {c: v for c, (v, _w) in found.items()}) == (answer.code, dict(answer.verdicts))
            BothAsked.asked += 1
            return answer

    return BothAsked(tmp_path_factory.mktemp("attacks"))


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
def test_both_verifiers_answer_a_lie_alike(stage: Any, name: str) -> None:
    before = type(stage).asked
    acts = list(importlib.import_module(name).tell(stage))
    assert acts
    assert type(stage).asked > before
