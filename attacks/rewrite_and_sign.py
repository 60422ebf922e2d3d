"""Rewrite the past and sign it again: the signer names another sample in an old batch, and builds everything anew.

The new log agrees with itself under the right key. Who kept an older head can tell (--since), and the signer's own
memory refuses to seal it again.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.forge import find, reseal_with, with_another_sample
from lying import Act, Stage, caught, main, passes, refused


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    number, event = find(trace, "use")
    reseal_with(trace, number, with_another_sample(event), stage.key)
    yield passes(stage.verify(trace), says="not rolled back, or rewritten and signed again, is not shown")
    kept = stage.trace.path / "checkpoint"
    yield caught(stage.verify(trace, "--since", kept), "since")
    yield refused(stage.seal(trace), 1, says="was signed with root")


if __name__ == "__main__":
    main(tell)
