"""docs/reproduction.md, written from docs/reproduction.json alone: its figures are computed here from measured ones."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any

Figures = dict[str, Any]
ARMS = {"plain": "without", "capture": "capture", "scoring": "capture and scoring"}
TRACED = ("capture", "scoring", "witnessed")
TITLES = {"cnn": "A convolutional network", "graph": "A multimodal graph network"}
BUSY = 1.15  # wall over processor seconds of one thread's training: above it, it waited for other programs
STOPPED = {"refuted", "refused", "malformed"}

INTRODUCTION = """\
# Reproduction

FG-Trac ([arXiv:2601.14971](https://arxiv.org/abs/2601.14971)) describes two experiments: a canonical convolutional
network, and a multimodal graph network of several message-passing steps. **The paper's own figures are not available to
this project, and nothing here is compared with them.** What stands below was measured here, on what was built after the
paper's description. `make reproduction` measures everything again and writes this page, from
[reproduction.json](reproduction.json) alone.
"""
DESCRIBED = (
    (
        "instrumentation that leaves the training as it is",
        "hooks of torch; loop and objective stay, the weights are bit-identical",
    ),
    (
        "logs of user mapping, training role and modality attention; two more that are not named in what is public",
        "entries `samples`, `roles` and `attention`; beside them `use`, `contribution`, `prediction` and others",
    ),
    ("a user is the SHA-256 of its name", "keyed pseudonyms: a plain hash of a name can be guessed"),
    ("checkpoints kept where the validation loss improved substantially", "the same; by default from 1 % on"),
    (
        "signed contributions at each kept checkpoint: TracInCP on the final prediction layer, no replay of the data",
        "the same: see [contributions](contributions.md)",
    ),
    (
        "commitments on a chain",
        "a signed Merkle log, whose heads a chain, a time-stamping service or a witness can hold; none is asked here: "
        "see [anchors](anchors.md)",
    ),
    ("histories reconstructed from the logs", "a verifiable index by sample"),
    ("predictive performance is preserved", "measured below; and with the same seed, the same weights bit for bit"),
)


def render(figures: Figures) -> str:
    """The whole page."""
    parts = [INTRODUCTION, table(["the paper describes", "here"], DESCRIBED), conditions(figures)]
    for name, pipeline in figures["pipelines"].items():
        parts += [f"## {TITLES[name]}\n", RECIPES[name](pipeline), costs(pipeline), measured_words(pipeline)]
        parts += [completeness(pipeline), verification(pipeline)]
    parts += ["## Tampering\n", tampering(figures)]
    if wrong := failures(figures):
        parts += ["## What does not hold\n", "".join(f"* {words}\n" for words in wrong)]
    return "\n".join(parts)


def failures(figures: Figures) -> list[str]:
    """The claims of the page that do not hold, in words."""
    wrong = []
    for name, pipeline in figures["pipelines"].items():
        for arm in TRACED:
            for run, plain in pairs(pipeline, arm):
                who, found = f"{name}, {arm}, seed {run['seed']}", run["verification"]
                wrong += [f"{who}: other {what}" for what in ("weights", "generators") if run[what] != plain[what]]
                wrong += [f"{who}: {found['verdict']}: {words}" for words in found["failures"]]
        for run in pipeline["runs"]["witnessed"]:
            who, truth = f"{name}, seed {run['seed']}", run["truth"]
            wrong += [f"{who}: {truth[key]} {key}" for key in truth if key.endswith("_that_differ") and truth[key]]
            wrong += [f"{who}: not as promised: {lie['lie']}" for lie in run["lies"] if not lie["as_promised"]]
    return wrong + [
        f"attacks/{lie['name']}.py: not as promised" for lie in figures["attacks"]["lies"] if not lie["as_promised"]
    ]


def pairs(pipeline: Figures, arm: str) -> Iterable[tuple[Figures, Figures]]:
    """The runs of an arm, each with the one of the same seed without fgtrac."""
    return zip(pipeline["runs"][arm], pipeline["runs"]["plain"], strict=True)


# -- sections -----------------------------------------------------------------------------------------------------


def conditions(figures: Figures) -> str:
    """Where and when it was measured, and how busy it was there."""
    said, moments = figures["machine"], moments_of(figures)
    software = ", ".join(f"{name} {number}" for name, number in {"Python": said["python"], **said["libraries"]}.items())
    runs = [run for p in figures["pipelines"].values() for arm in ARMS for run in p["runs"][arm]]
    loads = [run["began"]["load"] for run in runs]
    plain = [run for p in figures["pipelines"].values() for run in p["runs"]["plain"]]
    waited = statistics.median(run["train_s"] / run["train_cpu_s"] for run in plain)
    remarks = ""
    if waited > BUSY:
        remarks += "**The machine was busy with other work: compare processor times, not wall times.** "
    if figures["epochs"] is not None:
        remarks += f"**This is a trial: trainings were cut to {figures['epochs']} epochs.** "
    return paragraph(
        f"Measured from {clock(min(one['at'] for one in moments))} to {clock(max(one['at'] for one in moments))} UTC "
        f"at {commits(moments)}: "
        f"{said['processor']}, {said['cores']} cores, {said['memory_b'] / 2**30:.0f} GiB; {software}. Each training is "
        f"a process of its own, on one thread. The load average before each that is timed was {min(loads):.1f} to "
        f"{max(loads):.1f}, and one without fgtrac took {waited:.2f} times its processor time (median). {remarks}"
        f"Seeds for each kind of training: {figures['seeds']}; figures are means over them, ± is the standard error."
    )


def moments_of(figures: Figures) -> list[Figures]:
    """When, at which commit and beside what load each run began and ended."""
    runs = [run for p in figures["pipelines"].values() for kind in p["runs"].values() for run in kind]
    runs += [p["data"] for p in figures["pipelines"].values()]
    return [run[end] for run in (*runs, figures["attacks"]) for end in ("began", "ended")]


def clock(at: str) -> str:
    """A moment in minutes."""
    return at[:16].replace("T", " ")


def commits(moments: Sequence[Figures]) -> str:
    """All commits at which something was measured."""
    names = sorted({f"`{one['commit']}`{' (changed)' if one['is_changed'] else ''}" for one in moments})
    return f"commit{'s' if len(names) > 1 else ''} {', '.join(names)}"


def recipe_cnn(pipeline: Figures) -> str:
    """Data and recipe of the convolutional half."""
    data, run = pipeline["data"], pipeline["runs"]["plain"][0]
    return paragraph(
        f"{data['origin']}: {data['train']:,} to train (the labels of {data['flipped']:,} of them changed on purpose), "
        f"{data['validation']:,} to validate, {data['test']:,} to test; filtered, deduplicated, split and relabelled "
        f"under trace. A LeNet of {data['weights']:,} weights with batch normalisation and dropout; SGD with momentum, "
        f"batches of {data['batch']}, {run['epochs']} epochs, {run['updates']:,} updates."
    )


def recipe_graph(pipeline: Figures) -> str:
    """Data and recipe of the graph half."""
    data, runs = pipeline["data"], pipeline["runs"]["plain"]
    updates = [run["updates"] for run in runs]
    equal = data["nodes"] - data["train"] - data["validation"] - data["test"]
    without = f"{equal:,} are equal to another one, and have no role and no edge; all others" if equal else "all nodes"
    return paragraph(
        f"{data['origin']}: {data['nodes']:,} nodes of {data['classes']} classes, {data['edges']:,} edges; the labels "
        f"of {data['train']:,} train, of {data['validation']:,} validate, of {data['test']:,} test; {without} take "
        f"part in messages. A network of {data['weights']:,} weights: attention over "
        f"{' and '.join(data['modalities'])} for each node, then {data['hops']} message-passing steps; batches of "
        f"{data['batch']} seeds with sampled neighbours, at most {runs[0]['epochs']} epochs with early stopping: "
        f"{statistics.fmean(updates):,.0f} updates on average."
    )


RECIPES: dict[str, Callable[[Figures], str]] = {"cnn": recipe_cnn, "graph": recipe_graph}


def costs(pipeline: Figures) -> str:
    """Performance, time, memory and disk by arm."""

    def row(words: str, form: Callable[[float], str], value: Callable[[Figures], float | None]) -> list[str]:
        return [words, *(estimate([value(run) for run in pipeline["runs"][arm]], form) for arm in ARMS)]

    def same(words: str, name: str) -> list[str]:
        equal = [[run[name] == plain[name] for run, plain in pairs(pipeline, arm)] for arm in ("capture", "scoring")]
        return [words, "", *(f"{sum(seeds)} of {len(seeds)}" for seeds in equal)]

    def over(words: str, name: str) -> list[str]:
        ratios = [[run[name] / plain[name] for run, plain in pairs(pipeline, arm)] for arm in ("capture", "scoring")]
        return [words, "", *(estimate(seeds, "{:.3f}".format) for seeds in ratios)]

    def disk(words: str, name: str) -> list[str]:
        return row(f"on disk: {words}", size, lambda run: run["disk"][name] if "disk" in run else None)

    seconds = "{:.2f} s".format
    rows = [
        row("accuracy on test", "{:.4f}".format, lambda run: run["accuracy"]),
        same("weights bit-identical to those without", "weights"),
        same("random generators left in the same state", "generators"),
        row("training, wall time", seconds, lambda run: run["train_s"]),
        row("training, processor time", seconds, lambda run: run["train_cpu_s"]),
        over("... over that without", "train_cpu_s"),
        row("... in checkpoints, scored in the last column", seconds, lambda run: run.get("checkpoints_cpu_s")),
        row("... in passes for modality weights", seconds, lambda run: run.get("attention_cpu_s")),
        row("own time, a checkpoint each pass", "{:.2%}".format, lambda run: run.get("own_time_share_each_epoch")),
        row("own time without checkpoints", "{:.2%}".format, lambda run: run.get("own_time_share_without_checkpoints")),
        row("everything, to the sealed trace, wall time", seconds, lambda run: run["whole_s"]),
        row("peak memory", "{:.0f} MiB".format, lambda run: run["peak_b"] / 2**20),
        disk("log", "log"),
        disk("index", "index"),
        disk("saved states", "states"),
        disk("factors", "factors"),
        disk("names and keys, in the vault", "vault"),
    ]  # fmt: skip
    return table(["", *ARMS.values()], [cells for cells in rows if any(cells[1:])])


def measured_words(pipeline: Figures) -> str:
    """What the figures of time are of."""
    runs = pipeline["runs"]["capture"]
    apart = [plain["loop_s"] / run["checkpoints"] for run, plain in pairs(pipeline, "capture")]
    passes = (
        "Each checkpoint keeps the modality weights of all nodes: to check and to write them counts as own time, the "
        "model's pass that gives them does not, and has a row of its own. "
    )
    return paragraph(
        f"Training is the whole of it, with validation and checkpoints; its processor time is that of all threads of "
        f"the process. Own time is what fgtrac itself takes, measured where it is spent, over the loop's time without "
        f"validation: hooks, the thread that writes, checkpoints and their seals. With a checkpoint after each pass, "
        f"here every {statistics.fmean(apart):.2f} s, it is `own_time_share_each_epoch` of the benchmarks "
        f"`capture_overhead.py` and `graph_overhead.py`, whose `own_time_share` has one every few seconds instead. "
        f"{passes if any(run['attention_s'] for run in runs) else ''}Under trace, everything and peak memory are with "
        f"the preparation of the data; the training without is given what came of it."
    )


def completeness(pipeline: Figures) -> str:
    """The log against what the model received."""
    truths = [run["truth"] for run in pipeline["runs"]["witnessed"]]
    uses, neighbours = (sum(truth[name] for truth in truths) for name in ("uses", "neighbours"))
    around = f" and {neighbours:,} appearances as a neighbour" if neighbours else ""

    def row(words: str, name: str) -> list[str]:
        every, wrong = (sum(truth[key] for truth in truths) for key in (name, f"{name}_that_differ"))
        return [words, f"{every - wrong:,} of {every:,}"]

    rows = [
        row("updates of which the log names exactly these samples", "updates"),
        row("samples of which the index names exactly these places", "samples"),
        row("histories, asked for as a user asks, that name exactly these", "histories"),
    ]
    text = paragraph(
        f"A layer in front of the model noted what each training step really received, in a training of its own for "
        f"each seed: {uses:,} uses{around}. What the trace says is compared with it."
    )
    return f"{text}\n{table(['compared', 'as received'], rows)}"


def verification(pipeline: Figures) -> str:
    """What verifying all traces of a pipeline said."""
    runs = pipeline["runs"]
    verdicts = [run["verification"]["verdict"] for arm in TRACED for run in runs[arm]]
    of = {arm: [run["verification"] for run in runs[arm]] for arm in ("capture", "scoring")}
    seconds = {arm: estimate([one["seconds"] for one in found], "{:.2f} s".format) for arm, found in of.items()}
    return paragraph(
        f"A full verification under the run's key: {verdicts.count('holds')} of {len(verdicts)} traces hold, "
        f"{sum(of['scoring'][0]['checks'].values())} checks each. It takes {seconds['capture']} with scoring off and "
        f"{seconds['scoring']} with scoring on, where scores are recomputed."
    )


def tampering(figures: Figures) -> str:
    """Lies about these traces, and the scripts of attacks/."""
    told = {
        f"lies about the traces above: {TITLES[name].lower()}": [
            lie for run in pipeline["runs"]["witnessed"] for lie in run["lies"]
        ]
        for name, pipeline in figures["pipelines"].items()
    }
    told["scripts of [attacks](../attacks/README.md)"] = scripts = figures["attacks"]["lies"]
    rows = [[words, str(len(lies)), str(sum(lie["as_promised"] for lie in lies))] for words, lies in told.items()]
    rest = [lie["promised"] for lie in scripts if not STOPPED & set(lie["promised"])]
    silent = sum(any(words.startswith("not caught") for words in promised) for promised in rest)
    text = paragraph(
        f"As promised: refuted by exactly the checks that the design names, or answered as it says. Of the scripts "
        f"{len(scripts) - len(rest)} tell a lie that is refuted or refused, {len(rest) - silent} one of which fgtrac "
        f"answers that it cannot tell or that it is true, and {silent} one that no check of the log alone can catch: "
        f"there the answer, or the table of promises in [the design](design.md), says so."
    )
    return f"{table(['', 'told', 'answered as promised'], rows)}\n{text}"


# -- words --------------------------------------------------------------------------------------------------------


def estimate(values: Sequence[float | None], form: Callable[[float], str]) -> str:
    """Mean and standard error; without one where all values are the same, and nothing where they are none or zero."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values) or not any(numbers):
        return ""
    if min(numbers) == max(numbers):
        return form(numbers[0])
    return f"{form(statistics.fmean(numbers))} ± {form(statistics.stdev(numbers) / math.sqrt(len(numbers)))}"


def size(count: float) -> str:
    """Bytes for reading."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def paragraph(words: str) -> str:
    """One paragraph in lines of at most 120 characters."""
    return textwrap.fill(words, 120, break_long_words=False, break_on_hyphens=False) + "\n"
