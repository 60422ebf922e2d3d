"""Compiles the contract: `python tests/anchor/compile_contract.py` writes its artifact anew, and a test compares."""

from __future__ import annotations

import json
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

FOLDER = Path(str(files("fgtrac.anchor.contract")))
SOURCE, ARTIFACT = FOLDER / "tree_heads.vy", FOLDER / "tree_heads.json"


def compile_contract() -> bytes:
    """The artifact's bytes, as they are committed."""
    from eth_utils import keccak
    from vyper import compile_code

    made = compile_code(
        SOURCE.read_text(), output_formats=["bytecode", "bytecode_runtime", "abi", "method_identifiers"]
    )
    events = [f"{e['name']}({','.join(i['type'] for i in e['inputs'])})" for e in made["abi"] if e["type"] == "event"]
    artifact: dict[str, Any] = {
        "compiler": f"vyper {version('vyper')}",
        "source": SOURCE.name,
        "abi": made["abi"],
        "selectors": made["method_identifiers"],
        "topics": {event: "0x" + keccak(text=event).hex() for event in events},
        "creation": made["bytecode"],
        "runtime": made["bytecode_runtime"],
    }
    return (json.dumps(artifact, indent=1) + "\n").encode()


if __name__ == "__main__":
    ARTIFACT.write_bytes(compile_contract())
