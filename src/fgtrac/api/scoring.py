"""Scoring beside the training: factors at each kept checkpoint, and contributions toward the validation samples."""

from __future__ import annotations

import copy
import hashlib
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import torch

from fgtrac.api.contributions import record_contributions
from fgtrac.api.cost import Cost, in_words, say, shown
from fgtrac.api.factor_passes import Files, StatePass
from fgtrac.api.first_look import estimate, prepare
from fgtrac.api.learning_rates import rate_now, rate_then
from fgtrac.api.ledger import Ledger, read_state
from fgtrac.api.leftovers import alone_in_making, find_rows, find_unnamed, remove_unnamed
from fgtrac.api.naming import key_of, words_of
from fgtrac.api.same_scoring import check_all_layers, check_named_layers, check_same_loss
from fgtrac.api.scored_rows import ScoredRows, check_same, has_labels, read_labels
from fgtrac.api.spread_passes import Spread, give_out
from fgtrac.api.wish import Wish
from fgtrac.capture.checkpoint import load_state
from fgtrac.capture.recorder import Recorder
from fgtrac.capture.step import Grounding
from fgtrac.commit.signer import Signer
from fgtrac.errors import ScoreError, TamperError
from fgtrac.score.calls import unwrapped
from fgtrac.score.factor_files import (
    FOLDER,
    ROWS_PATH,
    STATE_PATH,
    Rows,
    ShardHead,
    State,
    encode_rows,
    parse_head,
    parse_rows,
    rows_path,
    shard_path,
)
from fgtrac.score.factors import FactorPass
from fgtrac.score.finite import SamplesNotFinite
from fgtrac.score.gradients import Layer
from fgtrac.score.kernel import Progress
from fgtrac.score.layers import left_out
from fgtrac.score.one_thread import one_thread
from fgtrac.score.untouched import untouched
from fgtrac.store.tensor_files import open_tensors
from fgtrac.store.trace_dir import TraceDir
from fgtrac.store.vault import Vault


class Writing(Protocol):
    """What scoring needs of a run."""

    _trace: TraceDir
    _recorder: Recorder
    _ledger: Ledger
    _grounding: Grounding
    _vault: Vault
    _signer: Signer


class Scoring:
    """Factors of `rows` (one for each role, training rows first) as `wish` says, in the trace of `run`.

    ScoreError where the trace has factors of other samples.
    """

    def __init__(self, run: Writing, wish: Wish, rows: Sequence[ScoredRows], *, strict: bool) -> None:
        self._run = run
        self._wish = wish
        self._rows = rows
        self._strict = strict
        self._labelled: dict[str, tuple[bytes, bool]] = {}  # role -> the rows file, and whether the log names it
        self._prepared: tuple[Any, FactorPass] | None = None  # the model (as it is wrapped), and its passes
        self._layers: tuple[Layer, ...] = self._layers_before()
        self.cost: Cost | None = None
        self._limit = ""
        self.rates: tuple[float, ...] = ()  # of the scored layers, at the checkpoint under way
        self._skips = True
        self._is_same_loss = False  # as that of factors which the trace has from before: not looked at yet
        for one in rows:
            self._find_rows(one)
        with self._alone():
            remove_unnamed(run._trace, run._ledger.scored_files(), stays=self._is_for_later)

    # -- beside the training --------------------------------------------------------------------------------------

    def before_checkpoint(
        self, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None, rates: Sequence[float]
    ) -> str:
        """Look at the model, and give what the log is to say behind the reason of a checkpoint that is kept. `rates`
        are those of the checkpoint.

        ValueError or ScoreError where the model cannot be scored as asked; nothing has been written then.
        """
        self.rates, self._skips = (), True
        if self._wish.when == "later":
            return ""
        try:
            self._check_loss(lambda: copy.deepcopy(model))
            with self._unseen(model):
                weights = self._prepare(model, self._run._grounding.step).weights
        except SamplesNotFinite as error:
            self._warn(self._run._grounding.step, error)
            return ""
        self._skips = False
        self.rates = tuple(rate_now(self._run._grounding, weight, optimizer, rates) for weight in weights)
        self._limit = self._limit or self._reached()
        return f"; without factors: {self._limit}" if self._limit else ""

    def at_checkpoint(self, model: torch.nn.Module, state: State) -> None:
        """The checkpoint was kept: make its factors. What cannot be computed raises in strict mode only."""
        if self._skips or self._limit:
            return
        try:
            with self._alone():
                self._score(model, state, self.rates, lambda rows: None)
        except ScoreError as error:
            self._warn(state.step, error)

    def _check_loss(self, copied: Callable[[], torch.nn.Module]) -> None:
        """ScoreError where the trace has factors of another loss. Looks once; a state is put into the copy."""
        scored, self._is_same_loss = ([] if self._is_same_loss else self._scored_states()), True
        if scored:
            self._load(mine := copied(), scored[0])
            head = self._heads(scored[0].folder)[0]
            with self._unseen(mine):
                factors = self._prepare(mine, scored[0].step)
                check_same_loss(self._run._trace, shard_path(head, 0), head, scored[0], self._rows[0], factors)

    def _warn(self, step: int, error: ScoreError) -> None:
        if self._strict:
            raise error
        warnings.warn(f"fgtrac: step {step} is not scored: {error}", RuntimeWarning, stacklevel=4)

    def _reached(self) -> str:
        """The limit that the next checkpoint would pass, in words."""
        assert self.cost is not None
        wish, ledger = self._wish, self._run._ledger
        made = sum(ledger.sizes[path] for path in ledger.scored_files())
        reached = ""
        if wish.max_kept is not None and len(self._scored_states()) >= wish.max_kept:
            reached = f"max_kept={wish.max_kept} is reached"
        elif wish.factor_budget_bytes is not None and made + self.cost.size_bytes > wish.factor_budget_bytes:
            reached = f"factor_budget_bytes={wish.factor_budget_bytes:,} does not hold {in_words(self.cost.size_bytes)}"
            reached += f" more than {in_words(made)}"
        if reached:
            say(f"{reached}: no factors are made from now on")
        return reached

    def _scored_states(self) -> list[State]:
        """Those whose training factors are complete."""
        scored = []
        for state in self._run._ledger.states:
            heads = self._heads(state.folder)
            if heads and sum(head.stop - head.start for head in heads) == heads[0].total:
                scored.append(state)
        return scored

    # -- at once, or afterwards -----------------------------------------------------------------------------------

    def complete(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        progress: Progress | None,
        spread: Spread | None = None,
    ) -> None:
        """Make what is missing of every kept checkpoint, from its saved state put into a copy of the model; with
        `spread` by its workers, and with one thread each.

        ScoreError where no checkpoint is kept, the model is of another architecture, or factors are not finite.
        """
        ledger = self._run._ledger
        if not ledger.states:
            raise ScoreError(f"{self._run._trace.path.name} has no kept checkpoint; record some with run.checkpoint()")
        with self._alone(), nullcontext() if spread is None else one_thread():
            self._complete(model, optimizer, progress, spread)

    def _complete(
        self,
        model: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
        progress: Progress | None,
        spread: Spread | None,
    ) -> None:
        ledger = self._run._ledger
        mine = copy.deepcopy(model)
        self._load(mine, ledger.states[0])
        self._check_loss(lambda: mine)
        with self._unseen(mine):
            factors = self._prepare(mine, ledger.states[0].step)
        todo = self._todo()
        done, show = self._done(todo, factors), shown(progress)
        total = sum(map(len, self._rows)) * len(todo)

        def advance(more: int) -> None:
            nonlocal done
            done += more
            show(done, total)

        show(done, total)
        passes = [self._pass(state, factors, self._rates_then(state, model, mine, optimizer)) for state in todo]
        if spread is not None and not spread.is_here:
            with self._unseen(mine):

                def rows_digest(rows: ScoredRows) -> bytes:
                    return hashlib.sha256(self._rows_file(rows, mine, Files(self._run._trace))).digest()

                named = ledger.scored_files()
                give_out(spread, self._run._trace, ledger.states[0], self._rows, passes, named, rows_digest, advance)
        for one in passes:
            self._load(mine, one.state)
            self._score(mine, one.state, one.learning_rates, advance)

    def _todo(self) -> list[State]:
        """The states to look at: those that have factors, and as many others as the limits allow."""
        scored, limit = self._scored_states(), self._wish.max_kept
        others = [state for state in self._run._ledger.states if state not in scored]
        if limit is not None:
            others = others[: max(0, limit - len(scored))]
        budget = self._wish.factor_budget_bytes
        if budget is not None and self.cost is not None:
            made = sum(self._run._ledger.sizes[path] for path in self._run._ledger.scored_files())
            others = others[: max(0, budget - made) // max(1, self.cost.size_bytes)]
        return [state for state in self._run._ledger.states if state in scored or state in others]

    def _done(self, todo: Sequence[State], factors: FactorPass) -> int:
        """How many rows of these states need no pass any more, as far as the names of files tell."""
        named = self._run._ledger.scored_files()
        there = named | set(find_unnamed(self._run._trace, named))
        passes = [self._pass(state, factors, ()) for state in todo]
        return sum(one.done(rows, there) for one in passes for rows in self._rows)

    def _rates_then(
        self,
        state: State,
        model: torch.nn.Module,
        mine: torch.nn.Module,
        optimizer: torch.optim.Optimizer | None,
    ) -> tuple[float, ...]:
        """Of each layer, at a state of the past: as factors of it say already, or as its checkpoint does."""
        heads = self._heads(state.folder)
        if heads:
            return heads[0].learning_rates
        names = {id(p): name for name, p in mine.named_parameters()}
        weights = [model.get_parameter(names[id(weight)]) for weight in self._prepare(mine, state.step).weights]
        rates = self._run._ledger.learning_rates(state)
        return tuple(rate_then(state.step, weight, optimizer, rates) for weight in weights)

    def _heads(self, folder: str) -> list[ShardHead]:
        """What the shards of training rows that the log names say of themselves."""
        named = sorted(p for p in self._run._ledger.scored_files() if p.startswith(f"{folder}/train-"))
        return [parse_head(open_tensors(self._run._trace.plain(path)).metadata) for path in named]

    def _load(self, model: torch.nn.Module, state: State) -> None:
        data = read_state(self._run._trace, state)
        load_state(model, data, f"the checkpoint of step {state.step}")

    # -- what the trace has already -------------------------------------------------------------------------------

    def _layers_before(self) -> tuple[Layer, ...]:
        """The layers of factors that there are: further factors are of these. ScoreError where others are named."""
        folders = {path.rpartition("/")[0] for path in self._run._ledger.scored_files() if "/train-" in path}
        layers = next((self._heads(folder)[0].layers for folder in sorted(folders)), ())
        check_named_layers(layers, self._wish.layer)
        return layers

    def _find_rows(self, rows: ScoredRows) -> None:
        """Take the file of these rows where the log names it: with it, their labels."""
        run = self._run
        paths = sorted(p for p in run._ledger.scored_files() if p.startswith(f"{FOLDER}/rows-{rows.role}-"))
        before: list[Rows] = []
        for path in paths:
            if hashlib.sha256(run._trace.read(path)).digest() != run._ledger.artifacts[path]:
                raise TamperError(f"{path} is not the file that the log names; restore it from a copy")
            before.append(parse_rows(open_tensors(run._trace.plain(path))))
        same = check_same(rows.role, rows.rows, before)
        if same is not None:
            path = paths[next(n for n, found in enumerate(before) if found is same)]
            self._labelled[rows.role] = (run._trace.read(path), True)

    def _is_for_later(self, path: str) -> bool:
        """Whether an unnamed file is one that the pass over its state may go on from."""
        roles = {rows.role for rows in self._rows}
        if match := ROWS_PATH.fullmatch(path):
            return match[1] in roles - self._labelled.keys()
        match = STATE_PATH.fullmatch(path)
        folders = {state.folder for state in self._run._ledger.states}
        return match is not None and match[1] in folders and (match[3] or "train") in roles

    def _rows_file(self, rows: ScoredRows, model: torch.nn.Module, files: Files) -> bytes:
        """The bytes of the rows file; it is written where the log does not name it yet."""
        data, is_named = self._labelled.get(rows.role, (b"", False))
        named = self._run._ledger.scored_files()
        if not data:
            targets_of = partial(self._targets, model)
            data = find_rows(files.trace, named, rows.role, lambda left: has_labels(rows, left, targets_of))
        if not data:
            labels = read_labels(rows, self._wish.batch_size, targets_of)
            data = encode_rows(replace(rows.rows, labels=labels), rows.role)
        if not is_named:
            self._labelled[rows.role] = (data, False)
            mine = f"{FOLDER}/rows-{rows.role}-"
            remove_unnamed(files.trace, named, stays=lambda path: not path.startswith(mine))
            files.write(rows_path(rows.role, data), data, f"which sample each row of factors is: {rows.about}")
        return data

    def _targets(self, model: torch.nn.Module, batch: Any) -> Any:
        if self._wish.forward is None:
            return batch[1]
        with torch.no_grad():
            return self._wish.forward(model, batch)[1]

    def _name_of(self, rows: ScoredRows, row: int) -> str:
        sample_id = rows.ids[row].tobytes()
        known = self._run._vault.find_by_id(sample_id)
        return f"id:{sample_id.hex()}" if known is None else words_of(known.dataset, key_of(known.key))

    # -- one state ------------------------------------------------------------------------------------------------

    def _score(
        self, model: torch.nn.Module, state: State, rates: tuple[float, ...], advance: Callable[[int], None]
    ) -> None:
        """Files, then entries, then contributions; what fails leaves no file, and what is interrupted whole ones."""
        run, wish, began = self._run, self._wish, time.perf_counter()
        files, named = Files(run._trace), run._ledger.scored_files()
        with self._unseen(model):
            factors = self._prepare(model, state.step)
            one = self._pass(state, factors, rates)
            missing = [rows for rows in self._rows if one.missing(rows, named)]
            try:
                for rows in missing:
                    data = self._rows_file(rows, model, files)
                    one.run(rows, hashlib.sha256(data).digest(), files, named, advance)
            except Exception as error:
                files.remove()
                remove_unnamed(run._trace, named, state.folder)
                if not isinstance(error, OSError):
                    raise
                run._recorder.lose("factors could not be written", error)
                return
        size = files.name_all(run._recorder, run._ledger)
        run._recorder.flush()
        self._labelled |= {rows.role: (self._labelled[rows.role][0], True) for rows in missing}
        if any(rows.role == "validation" for rows in self._rows):
            record_contributions(run._trace, run._recorder, run._ledger, state, wish.method)
            run._recorder.flush()
        if len(missing) == len(self._rows) and not files.found and self.cost is not None:
            self.cost.add(time.perf_counter() - began, size)

    def _pass(self, state: State, factors: FactorPass, rates: tuple[float, ...]) -> StatePass:
        wish = self._wish
        how = (self._layers, rates, wish.dtype, wish.batch_size, wish.ggn)
        return StatePass(state, factors, *how, self._name_of)

    def _alone(self) -> AbstractContextManager[None]:
        return alone_in_making(self._run._trace, self._run._signer.lock_path.with_suffix(".scoring"))

    @contextmanager
    def _unseen(self, model: torch.nn.Module) -> Iterator[None]:
        """Neither the training nor its record notices a pass over the model."""
        with self._run._grounding.unseen(), untouched(model):
            yield

    def _prepare(self, model: torch.nn.Module, step: int) -> FactorPass:
        """The pass over this model; with the first one, the estimate of what it costs."""
        if self._prepared is not None and self._prepared[0] is model:
            return self._prepared[1]
        wish, train = self._wish, self._rows[0]
        given: dict[str, Any] = {"loss": wish.loss, "forward": wish.forward, "layer": self._layers or wish.layer}

        def make(batch: Any) -> FactorPass:
            if wish.layer == "all" and self._layers and self.cost is None:
                check_all_layers(self._layers, FactorPass.prepare(model, batch, **given | {"layer": "all"}).layers)
            return FactorPass.prepare(model, batch, **given, hessians=wish.ggn)

        factors = prepare(train, wish, step, make, lambda row: self._name_of(train, row))
        self._layers = self._layers or factors.layers
        self._prepared = (model, factors)
        if self.cost is None:
            self.cost = estimate(factors, self._rows, wish, self._layers, self._run._trace)
            where = ", ".join(layer.name or "the model itself" for layer in self._layers)
            say(f"scoring a kept checkpoint takes {self.cost.estimate}, layer {where}")
            if wish.layer == "all" and (out := left_out(unwrapped(model), factors.weights)):
                say(f'layer="all" leaves out {out}')
        return factors
