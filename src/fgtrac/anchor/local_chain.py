"""A chain in this process, for tests and the demo: it convinces nobody else, and ends with the process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fgtrac.anchor.json_rpc import needs_evm
from fgtrac.store import durable

KEY_FILE = "local-chain-account.hex"


class LocalChain:
    """An EVM chain in memory (web3's eth-tester with py-evm) and an account that has a million ether there.

    Every transaction is its own block at once, and nothing else makes blocks. A block's time is this machine's clock,
    but at least a second after the block before: many blocks in a row have times in the future.
    """

    provider: Any
    account: Path

    def __init__(self, folder: Path) -> None:
        """`account`, in the folder, is the key's file. ValueError without the extra `evm`."""
        web3 = needs_evm("web3")
        needs_evm("eth_tester")
        self.provider = web3.EthereumTesterProvider()
        key = self.provider.ethereum_tester.backend.account_keys[0]  # everybody's who installs eth-tester
        self.account = folder / KEY_FILE
        durable.write_file(self.account, f"{key}\n".encode(), mode=0o600)
