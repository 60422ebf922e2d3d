"""`fgtrac export html` writes one file that asks for nothing, with the very bundle and one script of a known digest."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from fgtrac.verify.bundle import parse_bundle
from fgtrac.web.proof_page import PAGE, proof_page, verifier_digest
from lives import Life


def parts(page: str) -> tuple[str, bytes]:
    """The script of a page, and the bundle in it."""
    bundle, script = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    return script, base64.b64decode(bundle)


def test_of_a_trace_and_a_sample_or_of_a_bundle(life: Life, run, tmp_path: Path) -> None:
    bundle, page, again = tmp_path / "b.json", tmp_path / "p.html", tmp_path / "q.html"
    assert run("prove", life.path, "digits:0", "--claim", "history", "--entries", "-o", bundle).code == 0
    done = run("export", "html", life.path, "digits:0", "--claim", "history", "--entries", "-o", page)
    assert done.code == 0
    assert done.out.splitlines()[0] == parse_bundle(bundle.read_bytes()).words
    assert run("export", "html", bundle, "-o", again).code == 0
    assert page.read_bytes() == again.read_bytes()
    script, inside = parts(page.read_text(encoding="utf-8"))
    assert inside == bundle.read_bytes()
    assert hashlib.sha256(script.encode()).hexdigest() == verifier_digest()
    said = run("export", "html", bundle, "-o", page, "--force", "--json").json
    assert said == {
        "path": str(page), "bytes": page.stat().st_size, "script_sha256": verifier_digest(),
        "words": parse_bundle(inside).words,
    }  # fmt: skip


def test_the_policy_permits_its_own_script_and_style_and_nothing_else(run, tmp_path: Path) -> None:
    page = tmp_path / "v.html"
    assert run("export", "html", "--empty", "-o", page).code == 0
    text = page.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert style is not None
    digests = [base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() for part in (parts(text)[0], style[1])]
    assert policy[1] == (
        f"default-src 'none'; script-src 'sha256-{digests[0]}'; style-src 'sha256-{digests[1]}'; "
        "base-uri 'none'; form-action 'none'"
    )
    assert not re.search(r"https?://|\bsrc=|\bstyle=|\bon\w+=\"|@import|url\(", text)
    assert parts(text)[1] == b""


def test_no_script_or_bundle_can_close_its_element_or_be_read_otherwise(life: Life) -> None:
    for name in PAGE:
        text = files("fgtrac.web").joinpath("proof", name).read_bytes().decode()
        assert not re.search(r"</|<!--|\r|\x00", text), name
        assert text.startswith("// "), name


def test_the_digest_is_printed(run) -> None:
    assert run("export", "html", "--verifier-digest").out == f"{verifier_digest()}\n"
    assert run("export", "html", "--verifier-digest", "--json").json == {"script_sha256": verifier_digest()}


def test_a_page_is_compared_with_ones_own_as_the_docs_say(life: Life, run, tmp_path: Path) -> None:
    """With a true script, digest and policy in it, another page is another page."""
    proof, own = tmp_path / "proof.html", tmp_path / "verifier.html"
    assert run("export", "html", life.path, "digits:0", "-o", proof).code == 0
    assert run("export", "html", "--empty", "-o", own).code == 0
    true = proof.read_text(encoding="utf-8")
    (policy,) = re.findall(r'<meta http-equiv="Content-Security-Policy"[^>]*>', true)
    green = '<main><strong class="holds">\u2714 holds</strong></main><main hidden>'
    pages = {
        true: True,
        own.read_text(encoding="utf-8"): True,
        true.replace("<main>", green): False,
        f"<!doctype html>\n<!--\n{policy}\n-->\n<script>evil()</script>{true}": False,
        true.replace('id="bundle">', 'id="bundle">AAAA</script><script id="bundle">'): False,
        true.replace('id="bundle">', 'id="bundle">AAAA-->'): False,
        true.replace("Not checked yet.", "Holds."): False,
        true + "<p>Holds.</p>": False,
        true.replace("\n", '\n<p id="bundle">Holds</p>', 1): False,
    }
    docs = (Path(__file__).parents[2] / "docs" / "proof-page.md").read_text()
    (command,) = (line.strip() for line in docs.splitlines() if line.strip().startswith("sed "))
    for page, is_own in pages.items():
        proof.write_text(page, encoding="utf-8")
        done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (done.stdout == "the same\n") == (done.returncode == 0) == is_own, page[:200]


def test_mistakes_are_one_line_and_end_with_2(life: Life, run, tmp_path: Path) -> None:
    page, bundle, odd = tmp_path / "p.html", tmp_path / "b.json", tmp_path / "odd.json"
    run("prove", life.path, "digits:0", "-o", bundle)
    odd.write_text("{}")
    for arguments, words in (
        ((), "-o FILE.html"),
        (("-o", page), "--empty"),
        ((life.path, "-o", page), "name the sample"),
        ((bundle, "digits:0", "-o", page), "SAMPLE belongs to a trace"),
        ((bundle, "--entries", "-o", page), "--entries belongs to a trace"),
        ((bundle, "--empty", "-o", page), "--empty writes a page without a bundle"),
        ((odd, "-o", page), "is no bundle"),
        ((tmp_path / "nowhere", "-o", page), "there is no file or trace"),
        ((bundle, "-o", tmp_path / "no" / "p.html"), "there is no folder"),
        (("--verifier-digest", "-o", page), "takes nothing else; leave out -o"),
        (("--verifier-digest", "--empty"), "leave out --empty"),
        (("--verifier-digest", "--claim", "used"), "leave out --claim"),
        (("--verifier-digest", "--force"), "leave out --force"),
    ):
        done = run("export", "html", *arguments)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1), (arguments, done)
        assert words in done.err, done.err
    assert not page.exists()
    page.write_text("mine")
    done = run("export", "html", bundle, "-o", page)
    assert (done.code, page.read_text()) == (2, "mine")


@pytest.mark.parametrize("words", ["</script><script>alert(1)</script>", "<!--<script>"])
def test_what_a_bundle_says_is_no_markup(life: Life, run, tmp_path: Path, words: str) -> None:
    bundle = tmp_path / "b.json"
    run("prove", life.path, "digits:0", "-o", bundle)
    bundle.write_text(bundle.read_text().replace("The sample", words))
    text = proof_page(bundle.read_bytes()).decode()
    assert words not in text
    assert parts(text)[1] == bundle.read_bytes()


def test_the_scripts_are_written_to_be_read() -> None:
    for path in files("fgtrac.web").joinpath("proof").iterdir():
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) < 400, path.name
        assert max(map(len, lines)) <= 120, path.name
