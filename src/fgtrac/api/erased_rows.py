"""The check `erased-rows`: no file that the log still names holds rows of an erased subject, or may hold some.

A list of rows says whose they are; shards of factors name their list, and hold the samples' inputs themselves. A file
of a target's gradients does not say of whom they are, so none from before an erasure may be left.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fgtrac.errors import ProofError
from fgtrac.score import target_files
from fgtrac.score.factor_files import ROWS_PATH, is_shard, parse_head, parse_rows
from fgtrac.store.tensor_files import TensorFile, open_tensors
from fgtrac.store.trace_dir import TraceDir
from fgtrac.verify.auditor import Audit
from fgtrac.verify.checks import CannotTell, TraceFiles
from fgtrac.verify.erasures import Erasures
from fgtrac.verify.facts import Artifact


def check_erased_rows(trace: TraceFiles, audit: Audit) -> str:
    """In words why nothing is left. ProofError naming the file and the `erasure` entry; CannotTell outside a folder.
    What is missing or altered is the check of artifacts' to refute."""
    facts, listed = audit.facts, set[bytes]()
    left = [artifact for artifact in facts.artifacts if artifact.path not in facts.withdrawn]
    lists, shards = ([a for a in left if is_one(a.path)] for is_one in (ROWS_PATH.fullmatch, is_shard))
    for artifact, file in _opened(trace, lists):
        _check_list(artifact, file, facts.erasures)
        listed.add(artifact.sha256)
    for artifact, file in _opened(trace, shards):
        if parse_head(file.metadata).rows not in listed:
            raise ProofError(
                f"{artifact.path} may hold rows of an erased subject: the list that says whose they are is not there "
                "any more; it had to be withdrawn too"
            )
    for artifact in left:
        if artifact.path.startswith(f"{target_files.FOLDER}/") and artifact.number < facts.erasures.last:
            raise ProofError(
                f"{artifact.path} may hold gradients of an erased subject: it is older than entry "
                f"{facts.erasures.last} (erasure), which had to withdraw it"
            )
    held = f"{len(lists)} lists of rows and {len(shards)} shards of factors are left"
    return f"{held}, and none has a row of an erased subject"


def _opened(trace: TraceFiles, artifacts: list[Artifact]) -> Iterator[tuple[Artifact, TensorFile]]:
    if artifacts and not isinstance(trace, TraceDir):
        raise CannotTell("not checked: factors are read from a trace that lies in a folder")
    present = set(trace.names())
    for artifact in artifacts:
        if isinstance(trace, TraceDir) and artifact.path in present:
            yield artifact, open_tensors(trace.plain(artifact.path))


def _check_list(artifact: Artifact, file: TensorFile, erasures: Erasures) -> None:
    rows = parse_rows(file)
    for which, block in enumerate(rows.blocks):
        mine = rows.ordinals if rows.which is None else rows.ordinals[rows.which == which]
        for number, ordinals in erasures.in_block(block):
            held = np.intersect1d(mine, ordinals)
            if len(held):
                raise ProofError(
                    f"{artifact.path} holds rows of an erased subject: {len(held)} samples that entry {number} "
                    f"(erasure) names, the first is ordinal {held[0]} of block {block.hex()}; it had to be withdrawn"
                )
