"""`fgtrac export html`: the page verifies offline from a file, is green only with the key, and tells what it found."""

from __future__ import annotations

import colorsys
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from browser.chromium import Browser, Page
from browser.explored import User
from browser.proof_pages import check_again, opened, verdict, wait
from fgtrac.events.codec import decode
from fgtrac.events.identity import preimage, public_id
from fgtrac.verify.bundle import format_bundle, parse_bundle
from fgtrac.web.proof_page import proof_page
from forged_bundles import KEYS, PUBLIC, sign, words_of
from lives import live

GREEN, RED, AMBER = range(90, 171), [*range(340, 360), *range(21)], range(21, 66)  # hues in degrees


@dataclass(frozen=True)
class Proof:
    """A page that proves what happened to a sample, its bundle, the key that its log is signed with, and the trace."""

    page: Path
    bundle: Path
    key: str
    trace: Path


@pytest.fixture(scope="module")
def owner(tmp_path_factory: pytest.TempPathFactory) -> User:
    return User(tmp_path_factory.mktemp("owner"))


@pytest.fixture(scope="module")
def proof(owner: User, tmp_path_factory: pytest.TempPathFactory) -> Proof:
    folder, trace = tmp_path_factory.mktemp("proof"), live(owner.home / "life").path
    vkey = owner.fgtrac("show", trace, "--vkey").strip()
    found = Proof(folder / "proof.html", folder / "bundle.json", vkey, trace)
    asked = (trace, "digits:0", "--claim", "history", "--entries")
    owner.fgtrac("prove", *asked, "-o", found.bundle)
    owner.fgtrac("export", "html", *asked, "-o", found.page)
    owner.fgtrac("export", "html", "--empty", "-o", folder / "verifier.html")
    return found


@pytest.fixture(scope="module")
def used(owner: User, proof: Proof) -> Path:
    """A bundle that says how a sample was used that nothing was made from."""
    path = proof.bundle.with_name("used.json")
    owner.fgtrac("prove", proof.trace, "digits:3", "-o", path)
    return path


def hue(page: Page) -> int:
    """Of the verdict's words, in degrees."""
    said = page.run("getComputedStyle(document.querySelector('#verdict strong')).color")
    red, green, blue = (int(part) / 255 for part in re.findall(r"\d+", said)[:3])
    at, _light, saturation = colorsys.rgb_to_hls(red, green, blue)
    assert saturation > 0.25
    return round(at * 360) % 360


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

        page.fill("#about", "digits:0")
        assert check_again(page) == "cannot tell"
        assert "you named both a sample and a file" in page.text("#verdict")


def test_the_verdict_says_where_the_key_came_from_and_no_address_replaces_what_was_typed(
    browser: Browser, proof: Proof
) -> None:
    key = proof.key.replace("+", "%2B")
    for address in (key, f"{key}%0A", f"%0D{key}"):
        with opened(browser, proof.page, address) as page:
            assert verdict(page) == "holds"
            assert "the key that came with this page's address" in page.text("#verdict")
            assert "that you named" not in page.text("#verdict")
            page.fill("#key", proof.key)
            assert check_again(page) == "holds"
            assert page.text("#verdict").endswith("with the key that you named.")
            page.fill("#key", "00" * 32)
            assert check_again(page) == "refuted"
            for fragment in (f"key={'11' * 32}", "top", ""):
                page.run("fragment => { location.hash = fragment; return 0; }", fragment)
                assert page.run("document.getElementById('key').value") == "00" * 32
            assert verdict(page) == "refuted"
    with opened(browser, proof.page, key) as page:
        page.run("document.getElementById('verdict').dataset.verdict = 'unchecked'")
        page.run("key => { location.hash = key; return 0; }", f"key={'11' * 32}")
        wait(page)
        page.run("location.hash = 'top'")
        page.run("new Promise((resume) => setTimeout(resume, 100))")
        assert page.run("document.getElementById('key').value") == "11" * 32
        assert verdict(page) == "refuted"
        assert "the key that came with this page's address" in page.text("#verdict")


CLAIM_LIKE = "row 7, which was never used in any optimizer update, as committed at size 19. It had the role excluded. "


def named(bundle: Path, key: str) -> tuple[bytes, str]:
    """The bundle for a sample with this key, signed by the log's key, and that."""
    true = parse_bundle(bundle.read_bytes())
    said = preimage("digits", key)
    made = replace(true, preimage=said, id=public_id(said), opening=None, entries=())
    signed = sign(made, {}, decode(made.seal), KEYS[0], False)
    return format_bundle(replace(signed, words=words_of(signed))), PUBLIC[0].hex()


@pytest.mark.parametrize("filling", ["\u2800" * 20_500, "\n" * 60_000, " x" * 15_000])
def test_the_claim_is_told_whole_whatever_the_sample_is_called(
    browser: Browser, used: Path, tmp_path: Path, filling: str
) -> None:
    data, key = named(used, CLAIM_LIKE + filling)
    path = tmp_path / "long.html"
    path.write_bytes(proof_page(data))
    with opened(browser, path, key) as page:
        assert verdict(page) == "holds"
        (row,) = page.run("[...document.querySelectorAll('#findings tr')].slice(-1).map((tr) => tr.innerText)")
        for told in (page.text("#claim"), row):
            assert re.search(r'of data set\s"digits" was used \d+ times in optimizer updates', told)
            assert told.strip().endswith("It had the role train.")
            assert len(told) < 1200
            assert "\u2800" not in told
        box = page.run("document.getElementById('claim').getBoundingClientRect().bottom")
        assert box < 800, "the claim is seen without scrolling"
        assert page.axe() == []
        page.click("#claim summary")
        assert len(page.text("#claim")) > len(filling)


def test_what_nobody_would_see_is_written_out(browser: Browser, used: Path, tmp_path: Path) -> None:
    hidden = "\u061c\u00ad\u2060\u206a\u180e\u2800\ufe0f\U000e0041\u200b\u202e\x85"
    data, key = named(used, f"a{hidden}b")
    said = json.loads(data)
    assert any(c in said["words"] for c in hidden)
    for words, expected in ((said["words"], "holds"), (said["words"] + hidden, "refuted")):
        path = tmp_path / f"{expected}.html"
        path.write_bytes(proof_page(json.dumps(said | {"words": words}).encode()))
        with opened(browser, path, key) as page:
            assert verdict(page) == expected
            assert not set(hidden) & set(page.text())
            assert "\\u2060" in page.text("#claim")


LIMITS = {
    "history": ["as its signer committed to it at this size", "never recorded", "have in mind was not asked"],
    "used": ["as its signer committed", "never recorded", "What was recorded after this size", "was not asked"],
    "never registered": ["as its signer committed", "never recorded", "was not asked", "An absence says something"],
}


@pytest.mark.parametrize("claim", LIMITS)
def test_what_a_bundle_does_not_show_is_said(
    browser: Browser, proof: Proof, owner: User, tmp_path: Path, claim: str
) -> None:
    bundle = tmp_path / "b.json"
    name = "digits:98765" if claim == "never registered" else "digits:0"
    owner.fgtrac("prove", proof.trace, name, "--claim", claim, "-o", bundle)
    said = json.loads(bundle.read_text())
    said["seal"]["proof"] += "\u2014 witness.example/one " + "AAAA" * 17 + "\n"
    path = tmp_path / "p.html"
    path.write_bytes(proof_page(json.dumps(said).encode()))
    with opened(browser, path, proof.key.replace("+", "%2B")) as page:
        expected = [*LIMITS[claim], "lines of witness.example/one were not looked at", "was revoked since is not known"]
        told = page.texts("#limits li")
        assert [words in line for words, line in zip(expected, told, strict=True)] == [True] * len(told)
        page.click("summary")
        page.fill("#about", name)
        check_again(page)
        assert not any("was not asked" in line for line in page.texts("#limits li"))


PADDED = " " * 30_000_000
FORGET = "document.getElementById('key').dispatchEvent(new Event('input', { bubbles: true }));"
WHILE_VERIFYING = f"crypto.subtle.verify = (...given) => {{ {FORGET} return verify(...given); }};"
DROP = """padding => {
  const transfer = new DataTransfer();
  const bytes = Uint8Array.from(atob(document.getElementById('bundle').textContent), (c) => c.charCodeAt(0));
  transfer.items.add(new File([bytes, padding], "b.json"));
  document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  %s
  return 0;
}"""


def test_a_check_that_was_overtaken_tells_nothing(browser: Browser, proof: Proof) -> None:
    with opened(browser, proof.page, proof.key.replace("+", "%2B")) as page:
        for press in ("document.querySelector('#ask button').click();", DROP.partition("\n")[2].rpartition("%s")[0]):
            page.run(f"padding => {{ {press} {FORGET} return 0; }}", "")
            page.run("new Promise((resume) => setTimeout(resume, 700))")
            assert verdict(page) == "unchecked"
            assert "press Check" in page.text("#verdict")
        page.run("key => { document.getElementById('key').value = key; return 0; }", "no key")
        page.run(f"document.querySelector('#ask button').click(); {FORGET} 0")
        page.run("new Promise((resume) => setTimeout(resume, 700))")
        assert not page.text("#key-problem"), "nobody is told off while he is typing"
        page.run("key => { document.getElementById('key').value = key; return 0; }", proof.key)
        page.run(f"const verify = crypto.subtle.verify.bind(crypto.subtle); {WHILE_VERIFYING} 0")
        page.run("document.querySelector('#ask button').click(), new Promise((resume) => setTimeout(resume, 700))")
        assert verdict(page) == "unchecked"
        page.run("delete crypto.subtle.verify, 0")
        page.run(DROP % "", PADDED)
        page.wait("no => document.getElementById('progress').hidden === no", False)
        page.run(f"{FORGET} 0")
        page.run("new Promise((resume) => setTimeout(resume, 1500))")
        assert verdict(page) == "unchecked"
        assert page.run("document.getElementById('progress').hidden"), "it goes on no longer"
        assert check_again(page) == "holds"


def test_a_bundle_that_is_being_read_is_not_lost(browser: Browser, proof: Proof) -> None:
    with opened(browser, proof.page) as page:
        page.run("key => { document.getElementById('key').value = key; return 0; }", proof.key)
        page.run(DROP % FORGET, PADDED)
        assert check_again(page) == "holds"
    path = proof.page.with_name("padded.html")
    path.write_bytes(proof_page(proof.bundle.read_bytes() + PADDED.encode()))
    with browser.page(path.as_uri(), offline=True) as page:
        page.fill("#key", proof.key)
        page.wait("no => document.getElementById('verdict').innerText.includes(no)", "press Check")
        assert check_again(page) == "holds"
        assert page.download("#save-bundle")[1] == proof.bundle.read_bytes() + PADDED.encode()


def test_a_file_that_is_dropped_on_a_field_for_files_is_for_that_field(browser: Browser, proof: Proof) -> None:
    with opened(browser, proof.page, proof.key.replace("+", "%2B")) as page:
        page.click("summary")
        for field in ("#content", "#other"):
            page.drop_file(field, "photo.png", b"no bundle")
            assert verdict(page) == "holds"
        assert page.text("#bundle-name") == "The bundle that this page was made with."
        page.drop_file("#about", "photo.png", b"no bundle")
        page.wait("kind => document.getElementById('verdict').dataset.verdict === kind", "malformed")


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
    with opened(browser, proof.page, proof.key.replace("+", "%2B")) as page:
        page.run("crypto.subtle.digest = async () => new ArrayBuffer(32), 0")
        assert check_again(page) == "cannot tell"
        assert "computes another SHA-256" in page.text("#verdict")


def test_without_scripts_it_says_that_nothing_was_checked(browser: Browser, proof: Proof) -> None:
    with browser.page(proof.page.as_uri(), script=False) as page:
        assert "Not checked yet" in page.text("#verdict")
        assert "nothing was checked: cannot tell" in page.text("noscript")
