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
        ("image", f"{f['pixels']} x {f['pixels']} pixels, rendered by a traced map"),
        ("words", f"{f['words']} words of the tags, fitted on training nodes; no category's name among them"),
        ("edges", f"{f['edges']:,} from shared tags; {f['in_category']:.0%} join icons of one category"),
        ("train / validation / test", f"{f['train']:,} / {f['validation']:,} / {f['test']:,} nodes"),
        ("owners", "made up, one for each icon"),
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


def histories(console: Console, asked: Sequence[Figures], everybody: Figures) -> None:
    """What happened to a training node and to a test node."""
    for number, f in enumerate(asked):
        console.print(f"[bold]5.{number + 1} {escape(f['sample'])}[/]")
        console.print(escape(f["text"]), soft_wrap=True, highlight=False)
        console.print()
    console.print(
        f"Of {everybody['agreeing']:,} of {everybody['nodes']:,} nodes the log has just the uses that a hook on the "
        f"forward pass of the training without fgtrac counted: {everybody['seeds']:,} as a seed, "
        f"{everybody['beside']:,} as a neighbour.\n",
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
    for line in side_by_side(f["pictures"]):
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


def policies(console: Console, honest: Figures, leak: Figures) -> None:
    """What the policies say of the honest run, and of one in which a test label leaked."""
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
        "held-out-contents is switched off by the policy file: each owner has a key of its own, so equal icons of two "
        "owners are not linked.\n",
        soft_wrap=True,
    )


def means(weights: Sequence[float]) -> str:
    """Modality weights for reading."""
    return ", ".join(f"{name} {weight:.3f}" for name, weight in zip(MODALITIES, weights, strict=True))
