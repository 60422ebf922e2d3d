"""Use a stolen key: a thief signs entries of his own, after the owner has revoked it.

The thief leaves the rotation out, and who trusts the old key sees a log that holds; the owner's own log tells him to
ask for the new one. Who names that refuses what the thief signed.
"""

from __future__ import annotations

from collections.abc import Iterator

from fgtrac.commit.keys import load_key
from fgtrac.demo.forge import find, reseal_with, with_another_sample
from lying import Act, Stage, caught, main, passes, undecided


def tell(stage: Stage) -> Iterator[Act]:
    owners, thiefs, stolen = stage.copy(), stage.copy(), stage.key
    key_file = owners.path.with_name("key.pem")
    rotated = stage.fgtrac("key", "rotate", "--revoke", owners.path, key_file=key_file)
    assert rotated.code == 0, rotated.rest
    number, event = find(thiefs, "use")
    reseal_with(thiefs, number, with_another_sample(event), stolen)
    yield passes(stage.verify(thiefs), says="not rolled back, or rewritten and signed again, is not shown")
    yield undecided(stage.verify(owners), "signature")
    new = load_key(key_file).public_key().public_bytes_raw().hex()
    yield caught(stage.fgtrac("verify", thiefs.path, "--key", new), "signature")


if __name__ == "__main__":
    main(tell)
