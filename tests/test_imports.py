"""What importing fgtrac costs: an auditor needs neither torch nor anything that talks to a network."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

NETWORK = {"socket", "_socket", "ssl", "_ssl", "http", "http.client", "urllib.request", "asyncio", "requests", "httpx"}

SERVICES = (
    "web3", "eth_account", "rfc3161_client", "starlette", "uvicorn", "anyio", "jinja2", "pyarrow", "duckdb", "prov",
    "mlflow",
)  # fmt: skip


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter has after running `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "code",
    [
        "import fgtrac, fgtrac.verify",
        "import fgtrac.verify.auditor, fgtrac.verify.bundle, fgtrac.verify.claims",
        "import fgtrac; fgtrac.open",
        "import fgtrac.cli.main",
    ],
)
def test_reading_and_verifying_loads_neither_torch_nor_a_network_library(code: str) -> None:
    modules = loaded_by(code)
    assert "fgtrac" in modules
    assert not {m for m in modules if m.partition(".")[0] in ("torch", "safetensors", *SERVICES)}
    assert not modules & NETWORK


def test_a_server_is_loaded_when_one_is_started() -> None:
    assert not {m for m in loaded_by("import fgtrac.web.tiles_server") if m.partition(".")[0] in SERVICES}


def test_who_has_no_graph_does_not_pay_for_torch_geometric() -> None:
    modules = loaded_by("import fgtrac; fgtrac.start_run, fgtrac.GraphNodes; import fgtrac.api.watching")
    assert "torch" in modules
    assert "torch_geometric" not in modules


def test_loading_the_chain_s_library_leaves_the_recursion_limit_where_nested_json_ends_in_an_error() -> None:
    code = "import sys; from fgtrac.anchor.json_rpc import needs_evm; before = sys.getrecursionlimit(); "
    assert "web3" in loaded_by(code + "needs_evm('web3'); assert sys.getrecursionlimit() == before")


def test_importing_fgtrac_alone_loads_nothing_else_of_it() -> None:
    assert {m for m in loaded_by("import fgtrac") if m.startswith("fgtrac")} == {"fgtrac"}


def test_the_public_names_are_found_and_others_are_not() -> None:
    import fgtrac

    assert set(fgtrac.__all__) <= set(dir(fgtrac))
    assert callable(fgtrac.open)
    assert fgtrac.errors.FgtracError.__name__ == "FgtracError"
    with pytest.raises(AttributeError, match="no attribute 'close'"):
        _ = fgtrac.close  # type: ignore[attr-defined]
