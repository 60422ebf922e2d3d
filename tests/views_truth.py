"""What the tables of a trace must hold, row by row in plain Python from its entries: a second way, for comparison."""

from __future__ import annotations

import datetime
import math
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from fgtrac.events.schema import ATTRIBUTION, NO_STEP, STATUS, decode_event
from fgtrac.store.trace_dir import TraceDir
from fgtrac.tlog.tiles import read_entries

Row = dict[str, Any]
WORDS = {name: {code: word for word, code in codes.items()} for name, codes in (("s", STATUS), ("a", ATTRIBUTION))}


def tables_of(path: Path) -> dict[str, list[Row]]:
    """View -> its rows, for the newest full seal."""
    trace = TraceDir.open(path)
    size = max(trace.full_seals())
    raw = list(read_entries(trace, 0, size, size))
    return Truth(list(enumerate(map(decode_event, raw))), raw).tables


class Truth:
    def __init__(self, log: list[tuple[int, Row]], raw: list[bytes]) -> None:
        self.log = log
        self.tables: dict[str, list[Row]] = defaultdict(list)
        self.ranks = {e["writer"]: e["rank"] for _, e in log if e["kind"] == "join"}
        self.resumes = [(n, e["step"]) for n, e in log if e["kind"] == "resume"]
        self.blocks = self._blocks()
        registered = {i for _, e in log if e["kind"] == "samples" for i in cut(e["ids"])}
        self.number = {sample: place for place, sample in enumerate(sorted(registered))}
        self.samples = {i: self._sample(i) for i in sorted(registered)}
        self.roles: dict[bytes, str] = {}
        self.children: dict[bytes, set[bytes]] = defaultdict(set)
        self.sums: dict[str, Counter[bytes]] = defaultdict(Counter)
        for number, event in log:
            getattr(self, f"_{event['kind']}", lambda number, event: None)(number, event)
            self._entry(number, event, len(raw[number]))
        method = "tracin" if "tracin" in self.sums else min(self.sums, default=None)
        for i, row in self.samples.items():
            known = method is not None and i in self.sums[method]
            row["contribution"] = self.sums[method][i] if known and method else None
            row["contribution_method"] = method if known else None
            row["role"] = self.roles.get(i)
        for i, row in self.samples.items():
            made = [self.samples[child] for child in self._made_from(i)]
            perhaps = "perhaps" if any(child["perhaps"] for child in made) else None
            row["through"] = "used" if any(child["uses"] + child["neighbours"] for child in made) else perhaps
        self.tables["samples"] = list(self.samples.values())

    def _blocks(self) -> dict[bytes, list[bytes]]:
        parts: dict[bytes, dict[int, bytes]] = defaultdict(dict)
        whole = {}
        for _, event in self.log:
            if event["kind"] == "samples":
                mine = parts[event["block"]]
                for later in [part for part in mine if part >= event["part"]]:
                    del mine[later]
                mine[event["part"]] = event["ids"]
                if len(mine) == event["parts"]:
                    whole[event["block"]] = cut(b"".join(mine[part] for part in sorted(mine)))
        return whole

    def _made_from(self, i: bytes) -> set[bytes]:
        found: set[bytes] = set()
        waiting = [i]
        while waiting:
            new = self.children[waiting.pop()] - found
            found |= new
            waiting += new
        return found

    def _sample(self, i: bytes) -> Row:
        said = [(n, e, cut(e["ids"]).index(i)) for n, e in self.log if e["kind"] == "samples" and i in cut(e["ids"])]
        found: Row = {
            "sample": self.number[i],
            "id": i.hex(),
            "dataset": said[-1][1]["dataset"],
            "registered": said[0][0],
        }
        for field, name in (("contents", "content"), ("subjects", "subject")):
            found[name] = next((cut(e[field])[at].hex() for _, e, at in reversed(said) if field in e), None)
        counts = dict.fromkeys(("uses", "perhaps", "neighbours", "deliveries", "predictions"), 0)
        return {**found, **counts, "dropped": False, "erased": False, "first_step": None, "last_step": None}

    def _named(self, event: Row, column: str = "ordinals") -> list[bytes]:
        return [self.blocks[event["block"]][ordinal] for ordinal in event[column].tolist()]

    def _superseded(self, number: int, step: int) -> bool:
        return step != NO_STEP and any(n > number and start < step for n, start in self.resumes)

    def _standing(self, writer: bytes, seq: int) -> tuple[int, str]:
        at, state = next((n, e) for n, e in self.log if (e["writer"], e["seq"]) == (writer, seq))
        if self._superseded(at, state["step"]):
            return at, "superseded"
        same = [
            (n, e)
            for n, e in self.log
            if e["kind"] == "checkpoint" and (e["step"], e.get("digest")) == (state["step"], state.get("digest"))
        ]
        displaced = "digest" in state and any(n > at and not e["kept"] for n, e in same)
        return at, "kept" if state["kept"] and not displaced else "dropped"

    # -- kinds ----------------------------------------------------------------------------------------------------

    def _use(self, number: int, event: Row) -> None:
        at, seeds, hops = 0, self._named(event), self._named(event, "hop_ordinals") if "hops" in event else []
        for batch, count in enumerate(event["count"].tolist()):
            said = {name: int(event[name][batch]) for name in ("epoch", "batch", "step", "status", "attribution")}
            for place in range(at, at + count):
                loss = float(event["losses"][place]) if "losses" in event else math.nan
                self._part(number, event, said, seeds[place], 0, None if math.isnan(loss) else loss)
            at += count
            for hop in range(event.get("hops", 0)):
                for _ in range(int(event["hop_count"][batch * event["hops"] + hop])):
                    self._part(number, event, said, hops.pop(0), hop + 1, None)

    def _part(self, number: int, event: Row, said: Row, i: bytes, hop: int, loss: float | None) -> None:
        step = None if said["step"] == NO_STEP else said["step"]
        row = {
            **said, "sample": self.number[i], "entry": number, "step": step, "loader": event["loader"],
            "optimizer": event["optimizer"], "status": WORDS["s"][said["status"]], "hop": hop,
            "attribution": WORDS["a"][said["attribution"]], "role": self.roles.get(i), "loss": loss,
            "superseded": self._superseded(number, said["step"]), "rank": self.ranks.get(event["writer"]),
            "writer": event["writer"].hex(), "fit": event.get("fit"),
        }  # fmt: skip
        self.tables["uses"].append(row)
        mine = self.samples[i]
        if row["status"] != "applied":
            mine["deliveries"] += hop == 0
        elif hop == 0 and row["attribution"] == "among":
            mine["perhaps"] += 1
        else:
            mine["neighbours" if hop else "uses"] += 1
            mine["first_step"] = step if mine["first_step"] is None else min(mine["first_step"], step)
            mine["last_step"] = step if mine["last_step"] is None else max(mine["last_step"], step)

    def _roles(self, number: int, event: Row) -> None:
        for i in self._named(event):
            self.roles[i] = event["role"]
            said = {"sample": self.number[i], "entry": number, "time": time_of(event), "role": event["role"]}
            self.tables["roles"].append(said)

    def _transform(self, number: int, event: Row) -> None:
        for i in self._named(event, "dropped") if "dropped" in event else ():
            self.samples[i]["dropped"] = True
        if "children" in event:
            born = self._named({"block": event["child_block"], "ordinals": event["children"]})
            for parent, child in zip(self._named(event, "parents"), born, strict=True):
                self.children[parent].add(child)

    def _erasure(self, number: int, event: Row) -> None:
        for i in self._named(event):
            self.samples[i]["erased"] = True

    def _checkpoint(self, number: int, event: Row) -> None:
        rates, digest = event.get("learning_rates"), event.get("digest")
        self.tables["checkpoints"].append({
            "entry": number, "time": time_of(event), "step": event["step"], "epoch": event.get("epoch"),
            "val_loss": event.get("val_loss"), "learning_rates": None if rates is None else rates.tolist(),
            "digest": None if digest is None else digest.hex(), "kept": event["kept"], "rule": event["rule"],
            "standing": self._standing(event["writer"], event["seq"])[1], "writer": event["writer"].hex(),
        })  # fmt: skip

    def _metrics(self, number: int, event: Row) -> None:
        for name, value in event["values"].items():
            said = {"entry": number, "time": time_of(event), "step": event["step"], "name": name, "value": float(value)}
            self.tables["metrics"].append(said)

    def _about(self, number: int, event: Row, i: bytes) -> Row:
        found = {"sample": self.number[i], "entry": number, "step": event["step"], "checkpoint": None}
        if "checkpoint" in event:
            found["checkpoint"], found["standing"] = self._standing(*event["checkpoint"])
        return found

    def _contribution(self, number: int, event: Row) -> None:
        for i, score in zip(self._named(event), event["scores"].tolist(), strict=True):
            said = self._about(number, event, i)
            self.tables["contributions"].append(
                {**said, "target": event["target"], "method": event["method"], "score": score}
            )
            if event["target"] == "validation" and said["standing"] == "kept":
                self.sums[event["method"]][i] += score

    def _prediction(self, number: int, event: Row) -> None:
        named = self._named(event)
        width = len(event.get("outputs", ())) // max(1, len(named))
        for place, i in enumerate(named):
            self.samples[i]["predictions"] += 1
            said = self._about(number, event, i)
            said.pop("standing", None)
            outputs = event["outputs"][place * width : (place + 1) * width].tolist() if "outputs" in event else None
            loss = float(event["losses"][place]) if "losses" in event else None
            self.tables["predictions"].append({**said, "loss": loss, "outputs": outputs})

    def _attention(self, number: int, event: Row) -> None:
        weights = iter(event["weights"].tolist())
        for i in self._named(event):
            for modality in event["modalities"]:
                said = self._about(number, event, i)
                self.tables["attention"].append({**said, "modality": modality, "weight": next(weights)})

    def _entry(self, number: int, event: Row, size: int) -> None:
        step = event.get("step")
        if event["kind"] == "use":
            step = max((s for s in event["step"].tolist() if s != NO_STEP), default=None)
        said = {"number": number, "kind": event["kind"], "time": time_of(event), "writer": event["writer"].hex()}
        self.tables["entries"].append({**said, "seq": event["seq"], "step": step, "size": size})


def cut(joined: bytes) -> list[bytes]:
    return [joined[at : at + 32] for at in range(0, len(joined), 32)]


def time_of(event: Row) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=event["time"] // 1000)
