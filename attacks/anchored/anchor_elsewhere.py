"""Anchor elsewhere: the rewritten heads go into another contract of the same code, or come from another account.

On the chain all of it is true, so who names neither contract nor account is only told which ones they are. Who names
those of before is told that they keep another history.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from anchored import Act, AnchoredStage, caught, holds, main
from fgtrac.store import durable

OTHER_KEY = b"0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d"  # anvil's second account


def tell(stage: AnchoredStage) -> Iterator[Act]:
    chain = stage.services.chain
    other = stage.room() / "other.hex"
    durable.write_file(other, OTHER_KEY, mode=0o600)
    for account, where in ((chain.account, []), (other, ["--contract", stage.contract])):
        trace = stage.copy()
        stage.rewrite(trace)
        shutil.rmtree(trace.path / "receipts")
        done = stage.fgtrac("anchor", trace.path, "--evm", chain.url, "--account", account, *where)
        assert done.code == 0, done.rest
        yield holds(stage.verify(trace, "--evm", chain.url), says="(as the receipts name it) in contract")
        yield caught(stage.verify(trace, *stage.by("evm")), "evm")


if __name__ == "__main__":
    main(tell)
