"""A trace as tables: `samples`, `uses` and so on as Arrow, and SQL over them. Needs the extra `query`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fgtrac.api.naming import key_of, words_of
from fgtrac.api.read_by_workers import MEMORY
from fgtrac.api.scored_trace import ScoredTrace
from fgtrac.errors import not_installed

if TYPE_CHECKING:
    from fgtrac.query.views import Answer, View, Views


class TabledTrace(ScoredTrace):
    """The tables of a trace's newest full seal, whose columns docs/tables.md lists.

    They are built when the first one is asked for, from every entry of the log, each hashed; and kept in the user's
    cache for as long as the seal is the newest. Every verb here raises ProofError where the log is not what was sealed,
    TamperError or FormatError for damaged files, and ValueError, with the remedy, without pyarrow and duckdb.
    """

    _opened_views: Views | None = None

    def samples(self) -> View:
        """A row for each registered sample: who it is, its role, and how often it was used."""
        return self.views().view("samples")

    def uses(self) -> View:
        """A row for each place of a sample in a batch: as a seed (hop 0) or as a neighbour."""
        return self.views().view("uses")

    def checkpoints(self) -> View:
        """A row for each `checkpoint` entry."""
        return self.views().view("checkpoints")

    def contributions(self) -> View:
        """A row for each signed score of a sample at a checkpoint."""
        return self.views().view("contributions")

    def predictions(self) -> View:
        """A row for each recorded prediction of a sample."""
        return self.views().view("predictions")

    def attention(self) -> View:
        """A row for each weight of a modality of a sample at a checkpoint."""
        return self.views().view("attention")

    def sql(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Answer:
        """The answer to a SELECT over `samples`, `uses`, `checkpoints`, `contributions`, `predictions`, `attention`,
        `metrics`, `roles`, `entries`, and where there is a vault `names`. ValueError, on one line, for a statement that
        does more than read these, or fails."""
        return self.views().sql(sql, parameters)

    def views(
        self,
        progress: Callable[[int, int], None] | None = None,
        *,
        engine: str | None = None,
        memory_bytes: int = MEMORY,
    ) -> Views:
        """All tables at once; `progress` is called with (entries done, all) while they are built. `engine` says where:
        "local" (a process for each core; a small log is read in this one), "local:N", "ray" or "ray://HOST:PORT"; by
        default what FGTRAC_ENGINE names, else "local". About `memory_bytes` are for all workers together, and then for
        what queries hold; of less, fewer work at a time, and rows wait and are sorted on disk. The tables are the same
        wherever they are built. Only the first call's counts. EngineError where workers are lost; what is done stays,
        and the next call goes on from there."""
        if self._opened_views is None:
            try:
                from fgtrac.query.views import Views
            except ModuleNotFoundError as error:
                if str(error.name).startswith("fgtrac"):
                    raise
                raise not_installed("tables and SQL need", error.name, "query") from error
            rests_on = self._rests_on  # a wrong signature is told before anything is built
            self._opened_views = Views(
                self._directory, self.id, self._seal, rests_on, self.pending, self._table_of_names, progress, engine,
                memory_bytes,
            )  # fmt: skip
        return self._opened_views

    def _table_of_names(self) -> dict[str, list[Any]] | None:
        """What the vault calls each sample, in columns; None without a vault."""
        if self._vault is None:
            return None
        names: dict[str, list[Any]] = {"id": [], "name": [], "subject_name": []}
        for name in self._vault.names():
            names["id"].append(name.id.hex())
            names["name"].append(words_of(name.dataset, key_of(name.key)))
            names["subject_name"].append(None if name.subject is None else str(name.subject))
        return names
