"""Roll back: the signer restores an older copy of the whole folder, from before the last epoch.

Nothing in it is false, so nothing in it can tell. Who kept a newer head can (--since), and the signer's own memory
refuses to seal it again.
"""

from __future__ import annotations

from collections.abc import Iterator

from lying import Act, Stage, caught, main, passes, refused


def tell(stage: Stage) -> Iterator[Act]:
    older = stage.copy("older")
    yield passes(stage.verify(older), says="not rolled back, or rewritten and signed again, is not shown")
    kept = stage.trace.path / "checkpoint"
    yield caught(stage.verify(older, "--since", kept), "since")
    yield refused(stage.seal(older), 1, says="rolled back")


if __name__ == "__main__":
    main(tell)
