"""Which stage stands over which data: `run.transform` for data sets and for tables."""

from __future__ import annotations

from typing import Any

from fgtrac.capture.hf_datasets import HfDictStage, HfStage
from fgtrac.capture.hf_rows import is_hf_dataset, is_hf_dict
from fgtrac.capture.lineage import Lineage
from fgtrac.capture.table_stage import TableStage
from fgtrac.capture.tables import libraries_of
from fgtrac.capture.transform import Stage


def stage_over(lineage: Lineage, data: Any) -> Any:
    """The stage with the verbs for this kind of data."""
    if (library := libraries_of(data)) is not None:
        return TableStage(lineage, data if isinstance(data, list | tuple) else [data], library)
    if is_hf_dataset(data):
        return HfStage(lineage, data)
    if is_hf_dict(data):
        return HfDictStage(lineage, data)
    return Stage(lineage, data)
