"""What is proved of a source row through the stages behind it: all verifiers hold it, with spans in the entries."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import fgtrac
from fgtrac.verify.bundle import parse_bundle
from fgtrac.verify.claims import check_bundle
from page_verifier import PageVerifier, agrees
from staged_run import staged_run


def test_all_verifiers_hold_uses_and_absence_through_join_windows_and_packing(
    tmp_path: Path, other: ModuleType, page: PageVerifier | None
) -> None:
    made = staged_run(tmp_path)
    trace = fgtrac.open(made.path, key=made.key)
    for row, claim in ((0, "used"), (2, "never used"), (5, "never used")):
        data = trace.prove(f"documents:{row}", claim)
        assert str(check_bundle(parse_bundle(data), made.verifier, None).verdict) == "holds"
        verdict, found = other.Examination(other.read_bundle(data), made.verifier.public_key, None).report()
        assert verdict == "holds", found
        assert agrees(page, "holds", data, made.verifier)
    with pytest.raises(ValueError, match="used"):
        trace.prove("documents:0", "never used")
