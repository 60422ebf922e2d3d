"""Sign as a stranger: log, index and head are rewritten and signed with another key, all of it consistent.

The verifier names the key that he trusts, and never takes it from the trace.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.demo.lies import sign_with_another_key
from lying import Act, Stage, caught, main


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    sign_with_another_key(trace, stage.key)
    yield caught(stage.verify(trace), "signature")


if __name__ == "__main__":
    main(tell)
