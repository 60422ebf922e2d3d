"""The page of `fgtrac export html` answers every lie of attacks/ that is told with a bundle as `fgtrac verify` does."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import Browser
from browser.proof_pages import check_again, opened
from fgtrac.web.proof_page import proof_page

ATTACKS = Path(__file__).parents[2] / "attacks"
LIES = sorted(p.stem for p in ATTACKS.glob("*.py") if "stage.check(" in p.read_text())


@dataclass(frozen=True)
class Lie:
    """What was shown, with which key and questions, and the verdict of `fgtrac verify`."""

    data: bytes
    key: str
    id_key: str
    about: str
    expected: str


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The stage of attacks/, which remembers each bundle that it was asked to check."""
    sys.path.append(str(ATTACKS))
    from fgtrac.api.bundles import read_id_key
    from fgtrac.commit.keys import load_key
    from fgtrac.store.trace_dir import TraceDir
    from fgtrac.verify.bundle import Bundle, format_bundle
    from lying import Stage

    class Remembered(Stage):  # type: ignore[misc]
        lies: list[Lie]

        def check(self, bundle: Bundle | bytes, *options: str | Path, has_key: bool = True) -> Any:
            answer = super().check(bundle, *options, has_key=has_key)
            named = dict(zip(map(str, options[::2]), options[1::2], strict=True))
            key, id_key = self.public_key if has_key else "", ""
            if "--key" in named:
                key = load_key(Path(named["--key"])).public_key().public_bytes_raw().hex()
            if vault := named.get("--id-key"):
                head = TraceDir(Path(vault).with_suffix(".trace")).head() if isinstance(vault, Path) else None
                trace_id = bytes(16) if head is None else bytes.fromhex(head.origin.partition("/")[2])
                id_key = read_id_key(str(vault), trace_id).hex()
            data = bundle if isinstance(bundle, bytes) else format_bundle(bundle)
            told = {0: "holds", 1: "refuted", 2: "malformed", 3: "cannot tell"}[answer.code]
            self.lies.append(Lie(data, key, id_key, str(named.get("--about", "")), told))
            return answer

    return Remembered(tmp_path_factory.mktemp("attacks"))


@pytest.mark.parametrize("name", LIES)
def test_it_answers_each_lie_of_attacks_as_fgtrac_does(browser: Browser, stage: Any, tmp_path: Path, name: str) -> None:
    stage.lies = []
    acts = list(importlib.import_module(name).tell(stage))
    assert acts
    assert stage.lies
    for number, lie in enumerate(stage.lies):
        path = tmp_path / f"lie-{number}.html"
        is_bundle = lie.expected != "malformed"  # what is none is exported into no page
        path.write_bytes(proof_page(lie.data if is_bundle else None))
        with opened(browser, path) as page:
            page.run("document.querySelector('details').open = true")
            for field, value in (("key", lie.key), ("id-key", lie.id_key), ("about", lie.about)):
                page.fill(f"#{field}", value)
            if is_bundle:
                assert check_again(page) == lie.expected
            else:
                page.put_file("#other", "lie.json", lie.data)
                page.wait("kind => document.getElementById('verdict').dataset.verdict === kind", "malformed")
