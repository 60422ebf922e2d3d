"""`fgtrac export html`: the page verifies offline from a file, is green only with the key, and refuses each lie."""

from __future__ import annotations

import colorsys
import importlib
import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from browser.chromium import Browser, Page
from browser.explored import User
from fgtrac.web.proof_page import proof_page
from lives import live

ATTACKS = Path(__file__).parents[2] / "attacks"
LIES = sorted(p.stem for p in ATTACKS.glob("*.py") if "stage.check(" in p.read_text())
GREEN, RED, AMBER = range(90, 171), [*range(340, 360), *range(21)], range(21, 66)  # hues in degrees


@dataclass(frozen=True)
class Proof:
    """A page that proves what happened to a sample of the demo, its bundle, and the key that its log is signed with."""

    page: Path
    bundle: Path
    key: str


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> User:
    return User(tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def proof(owner: User, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    folder, trace = tmp_path_factory.mktemp("proof"), live(owner.home / "life").path
    found = Proof(folder / "proof.html", folder / "bundle.json", owner.fgtrac("show", trace, "--vkey").strip())
    asked = (trace, "digits:0", "--claim", "history", "--entries")
    owner.fgtrac("prove", *asked, "-o", found.bundle)
    owner.fgtrac("export", "html", *asked, "-o", found.page)
    owner.fgtrac("export", "html", "--empty", "-o", folder / "verifier.html")
    return found


@contextmanager
def opened(browser: Browser, path: Path, key: str = "", **options: Any) -> Iterator[Page]:
    """The page from a file, offline, once it has told its verdict. It asked for nothing but itself."""
    with browser.page(path.as_uri() + (f"#key={key}" if key else ""), offline=True, **options) as page:
        wait(page)
        yield page
        seen = page.seen()
        assert not [*seen.console, *seen.errors, *seen.failed, *seen.dialogs]
        assert {r["url"].partition("#")[0] for r in seen.requests if not r["url"].startswith("blob:")} == {
            path.as_uri()
        }


def wait(page: Page) -> None:
    page.wait("no => document.getElementById('verdict').dataset.verdict !== no", "unchecked")


def verdict(page: Page) -> str:
    return str(page.run("document.getElementById('verdict').dataset.verdict"))


def hue(page: Page) -> int:
    """Of the verdict's words, in degrees."""
    said = page.run("getComputedStyle(document.querySelector('#verdict strong')).color")
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", said)[:3])
    at, _light, saturation = colorsys.rgb_to_hls(red, green, blue)
    assert saturation > 0.25
    return round(at * 360) % 360


def check_again(page: Page) -> str:
    """Presses the button; the verdict."""
    page.run("document.getElementById('verdict').dataset.verdict = 'unchecked'")
    page.click("#ask button")
    wait(page)
    return verdict(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_with_the_key_it_is_green_without_amber_and_axe_finds_nothing(
    browser: Browser, proof: Proof, scheme: str
) -> None:
    with opened(browser, proof.page, scheme=scheme) as page:
        assert verdict(page) == "cannot tell"
        assert hue(page) in AMBER
        assert "no public key was named" in page.text("#verdict")
        assert page.axe() == []
        page.fill("#key", proof.key)
        assert check_again(page) == "holds"
        assert hue(page) in GREEN
        assert page.text("#claim") == json.loads(proof.bundle.read_text())["words"]
        assert {"seal", "signature", "index", "evidence", "claim"} <= set(page.texts("#findings th"))
        assert set(page.texts("#findings td:nth-child(2)")) == {"✔ holds"}
        assert "fgtrac verify TRACE" in page.text("#limits")
        assert page.axe() == []
        page.fill("#key", proof.key[:-1])
        assert verdict(page) == "unchecked", "what holds with one key is not green beside another"
        assert not page.count("#checks:visible")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_changed_word_or_another_key_turns_it_red(
    browser: Browser, proof: Proof, owner: User, tmp_path: Path, scheme: str
) -> None:
    lie = tmp_path / "lie.json"
    lie.write_text(proof.bundle.read_text().replace("The whole history", "The whole true history"))
    owner.fgtrac("export", "html", lie, "-o", tmp_path / "lie.html")
    for path, key in ((tmp_path / "lie.html", proof.key), (proof.page, "00" * 32)):
        with opened(browser, path, key.replace("+", "%2B"), scheme=scheme) as page:
            assert verdict(page) == "refuted"
            assert hue(page) in RED
            assert "✘ refuted" in page.texts("#findings td:nth-child(2)")
            assert page.axe() == []


def test_by_keyboard_alone(browser: Browser, proof: Proof) -> None:
    with opened(browser, proof.page) as page:
        order = page.tab_order()
        assert all(stop["visible"] for stop in order)
        assert [
            name for name in ("save-bundle", "key", "other") if not any(f'id="{name}"' in s["html"] for s in order)
        ] == []
        page.run("document.getElementById('key').focus()")
        page.run("document.getElementById('verdict').dataset.verdict = 'unchecked'")
        page.type(proof.key)
        page.press("Enter")
        wait(page)
        assert verdict(page) == "holds"


def test_what_cannot_be_read_is_said_beside_its_field(browser: Browser, proof: Proof) -> None:
    with opened(browser, proof.page) as page:
        for field in ("key", "about", "id-key"):
            page.run("name => (document.getElementById(name).closest('details') ?? {}).open = true", field)
            page.fill(f"#{field}", "no such thing")
            assert check_again(page) == "cannot tell"
            assert page.text(f"#{field}-problem")
            assert page.run("name => document.getElementById(name).getAttribute('aria-invalid')", field) == "true"
            assert page.axe() == []
            page.fill(f"#{field}", "")


def test_it_is_about_whom_the_reader_asks_about(browser: Browser, proof: Proof) -> None:
    own = json.loads(proof.bundle.read_text())["id"]["value"]
    with opened(browser, proof.page, proof.key.replace("+", "%2B")) as page:
        assert verdict(page) == "holds"
        page.click("summary")
        for name, expected in ((f"id:{own}", "holds"), (f"id:{'0' * 64}", "refuted")):
            page.fill("#about", name)
            assert check_again(page) == expected
        page.fill("#about", "")
        page.put_file("#content", "photo.png", b"not in there")
        assert check_again(page) == "refuted", "a history is no claim about a file"


def test_a_bundle_is_dropped_on_ones_own_copy_and_saved_from_a_page(
    browser: Browser, proof: Proof, owner: User
) -> None:
    with opened(browser, proof.page) as page:
        saved = page.download("#save-bundle")
        assert saved == ("bundle.json", proof.bundle.read_bytes())
    with opened(browser, proof.page.with_name("verifier.html")) as page:
        assert verdict(page) == "cannot tell"
        assert page.text("#script-digest") == owner.fgtrac("export", "html", "--verifier-digest").strip()
        page.fill("#key", proof.key)
        for data, expected in ((saved[1], "holds"), (saved[1][:-9], "malformed"), (b"", "malformed")):
            page.run("document.getElementById('verdict').dataset.verdict = 'unchecked'")
            page.drop_file("body", "a bundle.json", data)
            wait(page)
            assert verdict(page) == expected
            assert page.axe() == []


def test_without_webcrypto_nothing_is_told_but_that(browser: Browser, proof: Proof) -> None:
    with opened(browser, proof.page, proof.key.replace("+", "%2B")) as page:
        page.run("Object.defineProperty(globalThis, 'crypto', { value: {} }), 0")
        assert check_again(page) == "cannot tell"
        assert "open this file in another browser" in page.text("#verdict")
        assert page.run("document.getElementById('checks').hidden")


def test_without_scripts_it_says_that_nothing_was_checked(browser: Browser, proof: Proof) -> None:
    with browser.page(proof.page.as_uri(), script=False) as page:
        assert "Not checked yet" in page.text("#verdict")
        assert "nothing was checked: cannot tell" in page.text("noscript")


# -- every lie of attacks/ that is told with a bundle ---------------------------------------------------------------


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
def test_it_answers_each_lie_of_attacks_as_fgtrac_does(
    browser: Browser, proof: Proof, stage: Any, tmp_path: Path, name: str
) -> None:
    stage.lies = []
    acts = list(importlib.import_module(name).tell(stage))
    assert acts
    assert stage.lies
    for number, lie in enumerate(stage.lies):
        path = proof.page.with_name("verifier.html")
        if lie.expected != "malformed":  # what is no bundle is exported into no page
            path = tmp_path / f"lie-{number}.html"
            path.write_bytes(proof_page(lie.data))
        with opened(browser, path) as page:
            page.run("document.querySelector('details').open = true")
            for field, value in (("key", lie.key), ("id-key", lie.id_key), ("about", lie.about)):
                page.fill(f"#{field}", value)
            if lie.expected == "malformed":
                page.put_file("#other", "lie.json", lie.data)
                page.wait("kind => document.getElementById('verdict').dataset.verdict === kind", "malformed")
            else:
                assert check_again(page) == lie.expected
