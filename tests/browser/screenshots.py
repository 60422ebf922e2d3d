"""`make screenshots`: takes the pictures of docs/explorer.md anew, from the demos' traces."""

from __future__ import annotations

import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from browser.addresses import some_ids
from browser.chromium import Browser, missing, running_browser
from browser.explored import Explorer, User, exploring, make_demos

IMAGES = Path(__file__).parents[2] / "docs/images"
OWN_DATA = Path(__file__).parents[2] / "src/fgtrac/demo/own_data.py"


def main() -> None:
    """All pictures; stops with a word where something is missing."""
    if words := missing():
        sys.exit(words)
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, running_browser() as browser:
        user = User(Path(folder))
        make_demos(user)
        # named from beside it: no picture shows where it lies on this machine
        with exploring(user, Path("runs"), "--with", f"{OWN_DATA}:small_digits") as explorer:
            for name, (path, scheme) in pages(user).items():
                take(browser, explorer, path, scheme, name)
        take_proof(browser, user)


def pages(user: User) -> dict[str, tuple[str, str]]:
    """Where each picture is taken, and in which colours."""
    train, test = some_ids(user.runs / "digits.trace")
    return {
        "run": ("/run/digits", "light"),
        "run-dark": ("/run/icons", "dark"),
        "samples": ("/run/digits/samples?sort=helpful", "light"),
        "sample": (f"/run/digits/sample/{train}", "light"),
        "prediction": (f"/run/digits/prediction/{test}", "light"),
        "suspects": ("/run/digits/suspects", "light"),
        "mine": ("/run/digits/mine?q=archive:69", "light"),
        "log": ("/run/digits/log", "light"),
        "compare": ("/compare?a=digits&b=icons", "light"),
        "runs": ("/", "light"),  # last: both were checked by then
    }


def take(browser: Browser, explorer: Explorer, path: str, scheme: str, name: str) -> None:
    """One page, when all of it is there and its verdict is known."""
    with browser.page(explorer.at(path), scheme=scheme) as page:
        if path.startswith("/run/"):
            page.wait("['holds', 'refuted', 'cannot tell'].includes(document.querySelector('.standing').dataset.state)")
        page.wait_until_done()
        page.run("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
        page.wait("[...document.images].every((image) => image.complete)")
        page.screenshot(IMAGES / f"explorer-{name}.png")
    shrink(IMAGES / f"explorer-{name}.png")


def take_proof(browser: Browser, user: User) -> None:
    """The page that verifies by itself, from a file."""
    page_file = user.home / "proof.html"
    train, _test = some_ids(user.runs / "digits.trace")
    user.fgtrac("export", "html", user.runs / "digits.trace", f"id:{train}", "-o", page_file)
    key = user.fgtrac("show", user.runs / "digits.trace", "--vkey").strip()
    with browser.page(f"{page_file.as_uri()}#key={key}", offline=True) as page:
        page.wait("document.getElementById('verdict').dataset.verdict !== 'unchecked'")
        page.screenshot(IMAGES / "explorer-proof.png")
    shrink(IMAGES / "explorer-proof.png")


def shrink(path: Path) -> None:
    """The same picture with a palette."""
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    small.save(file, "PNG", optimize=True)
    path.write_bytes(file.getvalue())


if __name__ == "__main__":
    main()
