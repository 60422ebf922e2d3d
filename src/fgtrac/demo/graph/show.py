"""The graph demo's figures as tables: those sections that the CNN's demo has not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from fgtrac.demo.graph.network import MODALITIES
from fgtrac.demo.pictures import side_by_side
from fgtrac.demo.show import brief, grid, section, yes

Figures = Mapping[str, Any]


def data(console: Console, f: Figures) -> None:
    """What went in, and what preprocessing made of it."""
    rows = [
        ("source", f"{f['icons']:,} Tabler icons in {f['categories']} categories, the largest has {f['largest']:.0%}"),
        ("image", f"{f['pixels']} x {f['pixels']} pixels, the coverage of each in 0 to 1"),
        ("words", f"{f['words']} words of the tags"),
        ("fitted on training nodes only", yes(f["fitted_on_train"] and f["fitted_on_train_in_log"])),
        ("words of categories' names left", ", ".join(f["category_words_left"]) or "none"),
        ("edges", f"{f['edges']:,} from shared tags; {f['in_category']:.0%} join icons of one category"),
        ("train / validation / test", f"{f['train']:,} / {f['validation']:,} / {f['test']:,} nodes"),
        ("equal sources", f"{f['dropped']} dropped before the split, {f['equal_sources_left']} left"),
        ("owners", f"{f['owners']}, made up"),
    ]
    section(console, "1. The graph, prepared under trace", rows)


def trained(console: Console, f: Figures) -> None:
    """The same training, with and without, and what the parts alone come to."""
    title = f"2. Trained twice, on one thread: {f['epochs']} epochs, {f['steps']} updates"
    table = grid(title, "", "with fgtrac", "without")
    table.add_row("accuracy on test", f"{f['accuracy_with']:.4f}", f"{f['accuracy_without']:.4f}")
    table.add_row("weights, SHA-256", f["weights_with"][:16], f["weights_without"][:16])
    table.add_row("random generators, SHA-256", f["generators_with"][:16], f["generators_without"][:16])
    console.print(table)
    console.print(f"Weights bit-identical: {yes(f['weights_identical'])}.", end=" ")
    console.print(f"Generator states identical: {yes(f['generators_identical'])}.")
    alone = ", ".join(f"{name} alone {accuracy:.4f}" for name, accuracy in f["alone"].items())
    console.print(f"The model is that of step {f['best_step']}, the best on validation. Without the graph: {alone}.\n")


def histories(console: Console, asked: Sequence[Figures], truth: Figures) -> None:
    """What happened to a training node and to a test node."""
    for number, f in enumerate(asked):
        console.print(f"[bold]5.{number + 1} {escape(f['sample'])}[/]")
        console.print(escape(f["text"]), soft_wrap=True, highlight=False)
        console.print()
    console.print(
        "Against what a hook in the training without fgtrac counted along the edges that the network received, step by "
        f"step and hop by hop: {truth['updates_that_differ']} of {truth['updates']:,} updates in the log differ, the "
        f"index of {truth['samples_that_differ']} of {truth['samples']:,} nodes, and {truth['histories_that_differ']} "
        f"of {truth['histories']} histories. {truth['uses']:,} uses are as a seed, {truth['neighbours']:,} as a "
        "neighbour.\n",
        soft_wrap=True,
    )


def owner(console: Console, f: Figures) -> None:
    """All icons of one owner."""
    console.print(f"[bold]6. What happened to everything that {f['owner']} owns?[/]")
    console.print(escape(f["text"]), soft_wrap=True, highlight=False)
    console.print()


def mistake(console: Console, f: Figures, messages: Figures) -> None:
    """One wrong prediction: who lowered its loss and who raised it by training, its modality weights, its messages."""
    toward = f["answer"]["toward"][0]
    console.print(f"[bold]8. Who taught it this? {escape(f['title'])}[/]")
    for line in side_by_side(f["pictures"], gap=2):
        console.print(f"  {escape(line)}", highlight=False)
    table = grid("", "", "sample", "its category", "score")
    for kind in ("proponents", "opponents"):
        for number, sample in enumerate(toward[kind]):
            row = sample["name"], f["categories"][sample["label"]], f"{sample['score']:+.4g}"
            table.add_row(kind if number == 0 else "", *map(escape, row))
    console.print(table)
    weights = "; ".join(f"step {one['step']}: {means(one['weights'])}" for one in (f["weights"][0], f["weights"][-1]))
    console.print(f"Its modality weights, at the first and the last kept checkpoint: {weights}.", soft_wrap=True)
    console.print(f"{escape(f['basis'])}.\n", soft_wrap=True)
    table = grid(
        "... and apart from that, through messages", "neighbour", "hop", "role", "category", "occlusion", "estimate"
    )
    for row in messages["rows"]:
        said = row["name"], str(row["hop"]), ", ".join(row["roles"]), row["category"]
        table.add_row(*map(escape, said), f"{row['occlusions'][-1]:+.4g}", f"{row['estimates'][-1]:+.4g}")
    console.print(table)
    console.print(f"{escape(messages['basis'])}; {messages['caution']}.", soft_wrap=True)
    if f["page"]:
        console.print(f"With pictures: {escape(f['page'])}", soft_wrap=True)
    console.print()


def attention(console: Console, f: Figures) -> None:
    """How much each modality weighed."""
    console.print(
        f"[bold]9. How much each modality weighs at each kept checkpoint, the mean of {f['nodes']:,} nodes[/]"
    )
    table = grid("", "step", *f["modalities"])
    for one in f["mean"]:
        table.add_row(str(one["step"]), *(f"{weight:.3f}" for weight in one["weights"]))
    console.print(table)
    for name, one in f["most"].items():
        console.print(f"Leans most on {name}: {escape(one['sample'])}, {means(one['weights'])}.", soft_wrap=True)
    console.print(
        f"Of {f['equal']} of {f['recomputed']} random nodes the weights are just what the committed checkpoint gives.\n"
    )


def policies(console: Console, honest: Figures, leak: Figures, dropped: int, command: str | None) -> None:
    """What the policies say of the honest run, and of one in which a test label leaked; how many equal sources were
    dropped before, and the command that asks again, where the trace is kept."""
    table = grid(
        "11. Held to policies: this run, and one where a test node got among the seeds",
        "run",
        "policy",
        "answer",
        "in words",
    )
    for run, f in (("this one", honest), ("leaked", leak)):
        for number, row in enumerate(f["policies"]):
            table.add_row(run if number == 0 else "", row["policy"], row["verdict"], brief(row["words"]))
    console.print(table)
    console.print(
        "The policy file switches held-out-contents off: digests of contents are made under each owner's key, and "
        f"those of two owners cannot be compared. {dropped} nodes with equal sources were dropped before the split.",
        soft_wrap=True,
    )
    if command is not None:
        console.print(f"To ask again: {escape(command)}", soft_wrap=True, highlight=False)
    console.print()


def means(weights: Sequence[float]) -> str:
    """Modality weights for reading."""
    return ", ".join(f"{name} {weight:.3f}" for name, weight in zip(MODALITIES, weights, strict=True))
