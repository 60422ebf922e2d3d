"""Random histories of samples, as entries: blocks registered in parts and again, used, transformed and named."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import numpy as np

from fgtrac.events.identity import block_id
from fgtrac.events.schema import check_event

NO_STEP = 2**64 - 1
Event = dict[str, Any]


def digest(*words: object) -> bytes:
    return hashlib.sha256(repr(words).encode()).digest()


def entry(kind: str, **fields: Any) -> Event:
    event = {"kind": kind, "time": 0, "writer": bytes(16), "seq": 0, **fields}
    check_event(event)
    return event


class History:
    """Random entries over random blocks, some of whose registrations a crash cut short."""

    def __init__(self, seed: int, entries: int) -> None:
        self.random = random.Random(seed)
        self.events: list[Event] = []
        self.blocks: dict[bytes, list[bytes]] = {}
        while len(self.events) < entries or not self.blocks:
            self.step()

    def step(self) -> None:
        chosen = self.random.random()
        if not self.blocks or chosen < 0.25:
            self.register()
        elif chosen < 0.6:
            self.use()
        elif chosen < 0.75:
            self.transform()
        elif chosen < 0.8:
            self.events.append(entry("metrics", step=1, values={}))
        else:
            self.name()

    def register(self) -> None:
        again = self.random.random() < 0.2 and self.blocks
        names = range(1 + self.random.randrange(9))
        tag = self.random.randrange(3)  # few tags: the same samples stand in several blocks
        ids = self.pick_ids() if again else sorted({digest("id", tag, n) for n in names})
        split = 1 + self.random.randrange(len(ids))
        pieces = [ids[i : i + split] for i in range(0, len(ids), split)]
        cut = self.random.randrange(len(pieces)) if self.random.random() < 0.3 else len(pieces)
        for part, piece in enumerate(pieces[:cut]):
            fields: Event = {"dataset": "d", "block": block_id(b"".join(ids)), "part": part, "parts": len(pieces)}
            if self.random.random() < 0.5:
                fields["contents"] = b"".join(digest("content", self.random.randrange(4)) for _ in piece)
            self.events.append(entry("samples", ids=b"".join(piece), **fields))
        if cut == len(pieces):
            self.blocks[block_id(b"".join(ids))] = ids

    def pick_ids(self) -> list[bytes]:
        return self.blocks[self.pick_block()]

    def pick_block(self) -> bytes:
        return self.random.choice(sorted(self.blocks))

    def ordinals(self, block: bytes, most: int = 6) -> Any:
        n = len(self.blocks[block])
        return np.array([self.random.randrange(n) for _ in range(self.random.randrange(most))], dtype="<u4")

    def use(self) -> None:
        block, batches = self.pick_block(), 1 + self.random.randrange(4)
        hops = self.random.choice([0, 1, 2])
        each = [self.ordinals(block) for _ in range(batches)]
        near = [self.ordinals(block, 3) for _ in range(batches * hops)]
        status = [self.random.choice([1, 1, 2, 3]) for _ in each]
        step = [self.random.randrange(5) if s == 1 else NO_STEP for s in status]  # out of order on purpose
        more: Event = {}
        if hops:
            more = {
                "graph": "sampled",
                "hops": hops,
                "hop_count": np.array([len(o) for o in near], dtype="<u4"),
                "hop_ordinals": np.concatenate(near).astype("<u4"),
            }
        self.events.append(
            entry(
                "use",
                loader=0,
                optimizer=0,
                block=block,
                epoch=np.zeros(batches, "<u4"),
                batch=np.arange(batches, dtype="<u4"),
                step=np.array(step, dtype="<u8"),
                status=np.array(status, dtype="<u1"),
                attribution=np.array([self.random.choice([1, 2, 3]) for _ in each], dtype="<u1"),
                count=np.array([len(o) for o in each], dtype="<u4"),
                ordinals=np.concatenate(each).astype("<u4"),
                **more,
            )
        )

    def transform(self) -> None:
        block, child = self.pick_block(), self.pick_block()
        fields: Event = {"kept": self.ordinals(block), "dropped": self.ordinals(block)}
        if self.random.random() < 0.5:
            parents = self.ordinals(block)
            children = [self.random.randrange(len(self.blocks[child])) for _ in parents]
            fields |= {"child_block": child, "parents": parents, "children": np.array(children, dtype="<u4")}
        self.events.append(entry("transform", stage="s", operation="record", block=block, **fields))

    def name(self) -> None:
        block = self.pick_block()
        ordinals = self.ordinals(block)
        n = len(ordinals)
        fields: Event = {"block": block, "ordinals": ordinals}
        ref = [bytes(16), 0]
        made = {
            "roles": {"role": self.random.choice(["train", "validation", "test", "excluded"])},
            "attention": {"checkpoint": ref, "step": 2, "modalities": ["a"], "weights": np.zeros(n, "<f4")},
            "contribution": {"checkpoint": ref, "step": 3, "target": "t", "method": "m", "scores": np.zeros(n, "<f4")},
            "prediction": {"step": 4},
            "erasure": {"pseudonym": bytes(32), "artifacts": []},
        }
        kind = self.random.choice(sorted(made))
        self.events.append(entry(kind, **fields, **made[kind]))
