"""Use somebody who opted out: a photo is trained on though its owner said no.

The list comes from the verifier: whoever is on it must not be in any update.
"""

from __future__ import annotations

from collections.abc import Iterator

from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    policy = stage.room() / "no.toml"
    policy.with_name("no.txt").write_text("photos:5\n")
    policy.write_text('format = "fgtrac-policies/v1"\n[[opt-out]]\nname = "letter"\nsamples = "no.txt"\n')
    asked = ("check", stage.trace.path, "--policy", policy, "--key", stage.public_key)
    yield caught(stage.fgtrac(*asked), "opt-out letter")


if __name__ == "__main__":
    main(tell)
