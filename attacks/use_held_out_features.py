"""Use held-out features: a network that was to see no test node is trained beside them, with their labels held back.

That is how most graphs are trained, and `held-out` allows it, with a count. A policy file that asks for more names the
node, the hop and the step.
"""

from __future__ import annotations

from collections.abc import Iterator

from lying import Act, Stage, caught, holds, main
from true_graph import train_on_ring


def tell(stage: Stage) -> Iterator[Act]:
    room, policy = stage.room(), 'format = "fgtrac-policies/v1"\n[held-out-contents]\non = false\n'
    run = train_on_ring(room)
    for name, more in (("labels", ""), ("features", "[held-out-features]\n")):
        (room / name).write_text(policy + more)
    asked = ("check", run.path, "--key", room / "key.pem", "--policy")
    yield holds(stage.fgtrac(*asked, room / "labels"), says="were neighbours, with their features alone")
    yield caught(stage.fgtrac(*asked, room / "features"), "held-out-features")


if __name__ == "__main__":
    main(tell)
