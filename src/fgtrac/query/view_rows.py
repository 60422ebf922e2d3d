"""The rows that entries of a log give each view, but `samples`: for whoever goes over a range of them in order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fgtrac.errors import FormatError, ProofError
from fgtrac.events.schema import ROLES, decode_event
from fgtrac.query.log import SealedLog
from fgtrac.query.view_files import ViewFile, lists, optional, words
from fgtrac.query.view_setting import Setting
from fgtrac.query.view_uses import UsesBuilder

AT_ONCE = 1 << 16  # rows of small entries that are put into columns together
_US = np.uint64(1000)  # nanoseconds in a microsecond
_MISSING = 2**64 - 1


class RangeRows:
    """Takes every entry of a range in order and gives each view its rows; `counted` says how many of each kind."""

    def __init__(
        self,
        log: SealedLog,
        setting: Setting,
        roles: NDArray[np.uint8],
        files: Mapping[str, ViewFile],
        waiting: Path | None = None,
    ) -> None:
        """`roles` (n,) are the codes of the roles in force before the range; they are changed. `waiting` as
        `UsesBuilder` takes it."""
        self.counted: Counter[str] = Counter()
        self._log, self._setting, self._roles, self._files = log, setting, roles, files
        self._numbers = setting.blocks.numbers
        self._uses = UsesBuilder(files["uses"], setting, waiting)
        self._logged: list[tuple[int, int, int, str, float]] = []
        self._listed: list[tuple[int, str, int, bytes, int, int, int]] = []

    def add(self, number: int, data: bytes) -> None:
        """Take an entry's bytes. Of one that says nothing here, ProofError first where it is not the sealed one."""
        try:
            self._take(number, decode_event(data), len(data))
        except FormatError as error:
            self._log.entry(number)
            raise FormatError(f"entry {number}: {error}") from error
        except ProofError:
            self._log.entry(number)
            raise

    def _take(self, number: int, event: Mapping[str, Any], size: int) -> None:
        self.counted[event["kind"]] += 1
        take = _TAKE.get(event["kind"])
        if take is not None:
            take(self, number, event)
        self._list(number, event, size)

    def finish(self) -> None:
        """Write what waits."""
        self._uses.finish()
        self._write_metrics()
        self._write_entries()

    def _use(self, number: int, event: Mapping[str, Any]) -> None:
        self._uses.add(number, event, self._roles)

    def _role(self, number: int, event: Mapping[str, Any]) -> None:
        mine, code = self._numbers(number, event), ROLES[event["role"]]
        self._roles[mine] = code
        n = len(mine)
        role = words(np.full(n, code - 1), list(ROLES))
        self._files["roles"].add(sample=mine, entry=np.full(n, number), time=_times([event["time"]] * n), role=role)

    def _checkpoint(self, number: int, event: Mapping[str, Any]) -> None:
        _, standing = self._state(event["writer"], event["seq"])
        self._files["checkpoints"].add(
            entry=[number], time=_times([event["time"]]), step=[event["step"]], epoch=[event.get("epoch")],
            val_loss=[event.get("val_loss")], learning_rates=[event.get("learning_rates")],
            digest=[event["digest"].hex() if "digest" in event else None], kept=[event["kept"]],
            standing=_same(standing, 1), rule=[event["rule"]], writer=_same(event["writer"].hex(), 1),
        )  # fmt: skip

    def _metrics(self, number: int, event: Mapping[str, Any]) -> None:
        said = (number, event["time"], event["step"])
        self._logged += [(*said, name, float(value)) for name, value in event["values"].items()]
        if len(self._logged) >= AT_ONCE:
            self._write_metrics()

    def _contribution(self, number: int, event: Mapping[str, Any]) -> None:
        mine, said = self._about(number, event)
        n = len(mine)
        said |= {"standing": _same(said["standing"], n), "target": _same(event["target"], n)}
        self._files["contributions"].add(**said, method=_same(event["method"], n), score=event["scores"])

    def _prediction(self, number: int, event: Mapping[str, Any]) -> None:
        mine, said = self._about(number, event)
        n = len(mine)
        outputs = event["outputs"].reshape(n, -1) if "outputs" in event and n else None
        self._files["predictions"].add(
            **{name: said[name] for name in ("sample", "entry", "checkpoint", "step")},
            loss=event.get("losses", [None] * n), outputs=[None] * n if outputs is None else lists(outputs),
        )  # fmt: skip

    def _attention(self, number: int, event: Mapping[str, Any]) -> None:
        mine, said = self._about(number, event)
        m, n = len(event["modalities"]), len(mine)
        many = {name: np.repeat(said[name], m) for name in ("sample", "entry", "step")}
        checkpoint = np.full(n * m, said["checkpoint"][0]) if n else np.empty(0, np.uint64)
        modality = words(np.tile(np.arange(m), n), list(event["modalities"]))
        standing = _same(said["standing"], n * m)
        self._files["attention"].add(
            **many, checkpoint=checkpoint, modality=modality, weight=event["weights"], standing=standing
        )

    def _about(self, number: int, event: Mapping[str, Any]) -> tuple[NDArray[np.uint32], dict[str, Any]]:
        """The samples that an entry about a model state names, and the columns that such entries share; with what
        became of the state. ProofError where it is no checkpoint."""
        mine = self._numbers(number, event)
        n = len(mine)
        said: dict[str, Any] = {
            "sample": mine,
            "entry": np.full(n, number),
            "step": np.full(n, event["step"], np.uint64),
        }
        if "checkpoint" not in event:
            return mine, said | {"checkpoint": [None] * n, "standing": None}
        entry, standing = self._state(*event["checkpoint"])
        return mine, said | {"checkpoint": np.full(n, entry), "standing": standing}

    def _state(self, writer: bytes, seq: int) -> tuple[int, str]:
        """The entry of a model state, and what became of it. ProofError where there is none."""
        if (writer, seq) not in self._setting.states:
            raise ProofError(f"number {seq} of writer {writer.hex()} is named as a checkpoint; run fgtrac verify")
        return self._setting.states[writer, seq]

    def _list(self, number: int, event: Mapping[str, Any], size: int) -> None:
        step = event.get("step", _MISSING)
        if event["kind"] == "use":
            known = step[step != np.uint64(_MISSING)]
            step = int(known.max()) if len(known) else _MISSING
        self._listed.append((number, event["kind"], event["time"], event["writer"], event["seq"], step, size))
        if len(self._listed) == AT_ONCE:
            self._write_entries()

    def _write_metrics(self) -> None:
        if not self._logged:
            return
        entry, time, step, name, value = zip(*self._logged, strict=True)
        self._logged = []
        self._files["metrics"].add(entry=entry, time=_times(time), step=step, name=_words(name), value=value)

    def _write_entries(self) -> None:
        if not self._listed:
            return
        number, kind, time, writer, seq, step, size = zip(*self._listed, strict=True)
        self._listed = []
        steps = np.array(step, np.uint64)
        self._files["entries"].add(
            number=number, kind=_words(kind), time=_times(time), writer=_words([w.hex() for w in writer]), seq=seq,
            step=optional(steps, steps == np.uint64(_MISSING)), size=size,
        )  # fmt: skip


_TAKE: dict[str, Callable[[RangeRows, int, Mapping[str, Any]], None]] = {
    "use": RangeRows._use, "roles": RangeRows._role, "checkpoint": RangeRows._checkpoint,
    "metrics": RangeRows._metrics, "contribution": RangeRows._contribution, "prediction": RangeRows._prediction,
    "attention": RangeRows._attention,
}  # fmt: skip


def _words(texts: Sequence[str]) -> Any:
    """Texts of which many are equal."""
    code = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    return words(np.array([code[text] for text in texts], np.int32), list(code))


def _same(text: str, n: int) -> Any:
    """One text n times."""
    return words(np.zeros(n, np.int8), [text])


def _times(nanoseconds: Any) -> NDArray[np.int64]:
    """Times of entries in microseconds."""
    return (np.asarray(nanoseconds, np.uint64) // _US).astype(np.int64)
