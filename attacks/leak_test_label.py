"""Leak one test label: among the seeds that a graph network is trained on is one node of the test set.

That its features reach the others is allowed; its loss in an update is not. The policy tells the two apart, and nobody
can prove of that node that its label was never used, as can be done of the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, holds, main
from true_graph import TEST, TRAIN, train_on_ring


def tell(stage: Stage) -> Iterator[Act]:
    room = stage.room()
    run = train_on_ring(room, [*TRAIN, TEST[0]])
    trace, asked = TraceDir.open(run.path), ("--key", room / "key.pem")
    yield holds(stage.fgtrac("verify", run.path, *asked), says="registered before it")
    named = 'the first is sample ring:key:"photo-20" in step '
    yield caught(stage.fgtrac("check", run.path, *asked), "held-out", says=named)
    said = stage.prove('ring:key:"photo-21"', "--claim", "label never used", trace=trace)
    yield holds(stage.check(said, *asked, has_key=False), says="ever used its label")
    leaked = stage.prove('ring:key:"photo-20"', "--claim", "history", trace=trace)
    lie = replace(leaked, claim=said.claim, words=said.words.replace("photo-21", "photo-20"))
    yield caught(stage.check(lie, *asked, has_key=False), "claim")


if __name__ == "__main__":
    main(tell)
