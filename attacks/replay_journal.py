"""Replay the journal of another run: its entries, sealed elsewhere, are put where this trace's wait to be sealed.

They are whole, and no part of this log. Where the signer is made to seal them, the log has two `run` entries.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.api.run import start_run
from fgtrac.demo.forge import all_entries, put
from fgtrac.events.schema import decode_event
from fgtrac.store.journal import encode_frame, segment_name
from fgtrac.store.trace_dir import TraceDir
from lying import Act, Stage, caught, main, undecided


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    with start_run(trace.path.with_name("other"), key=trace.path.with_name("key.pem")) as run:
        run.log(loss=0.5)
    entries = [(decode_event(entry), entry) for entry in all_entries(TraceDir.open(run.path))]
    writer = entries[0][0]["writer"]
    frames = b"".join(encode_frame(entry) for event, entry in entries if event["writer"] == writer)
    put(trace, f"journal/{segment_name(writer, 0)}", frames)
    yield undecided(stage.verify(trace), "journal")
    stage.seal(trace)
    yield caught(stage.verify(trace), "run")


if __name__ == "__main__":
    main(tell)
