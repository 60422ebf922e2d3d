"""Reorganise the chain: the blocks that had the heads are replaced by others that do not.

What the chain no longer has counts no longer, whatever the receipt says.
"""

from __future__ import annotations

from collections.abc import Iterator

from anchored import Act, AnchoredStage, holds, main, undecided
from services.anvil import running_anvil


def tell(stage: AnchoredStage) -> Iterator[Act]:
    trace = stage.copy()
    stage.keep_only(trace)
    with running_anvil(stage.room()) as chain:
        done = stage.fgtrac("anchor", trace.path, "--evm", chain.url, "--account", chain.account)
        assert done.code == 0, done.rest
        yield holds(stage.verify(trace, "--evm", chain.url), says="1 head kept by")
        chain.ask("anvil_reorg", 1, [])
        yield undecided(stage.verify(trace, "--evm", chain.url), "evm")


if __name__ == "__main__":
    main(tell)
