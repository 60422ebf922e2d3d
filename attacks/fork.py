"""Fork: the signer shows two logs of one size to two people, each with a head of its own.

Each of the two holds alone. As soon as one of them sees the other's head (--since), or a proof that was made under it,
one of the logs is refuted.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import find, reseal_with, size_of
from fgtrac.verify.bundle import format_bundle
from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    mine, yours = stage.trace, stage.copy()
    number, event = find(yours, "metrics")
    reseal_with(yours, number, event | {"values": {"accuracy": 1.0}}, stage.key)
    assert size_of(mine) == size_of(yours)
    for one in (mine, yours):
        yield passes(stage.verify(one), says="not rolled back, or rewritten and signed again, is not shown")
    yield caught(stage.verify(mine, "--since", yours.path / "checkpoint"), "since")
    proof = stage.room() / "proof.bundle"
    proof.write_bytes(format_bundle(stage.prove("photos:5")))
    yield caught(stage.verify(yours, "--since", proof), "since")


if __name__ == "__main__":
    main(tell)
