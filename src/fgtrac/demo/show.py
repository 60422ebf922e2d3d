"""The demo's figures as tables: one function a section, each given the figures that the JSON form prints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from fgtrac.demo.pictures import side_by_side

Figures = Mapping[str, Any]


def section(console: Console, title: str, rows: Sequence[tuple[str, str]]) -> None:
    """A titled table of two columns."""
    table = grid(title, "what", "measured")
    table.columns[1].justify = "left"
    for name, value in rows:
        table.add_row(name, value)
    console.print(table)


def grid(title: str, *columns: str) -> Table:
    """An empty table with a title and headed columns."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def data(console: Console, f: Figures) -> None:
    """What went in, what was planted, and what preprocessing made of it."""
    rows = [
        ("source", f"{f['origin']}"),
        ("planted on purpose", f"{f['copies_planted']} exact copies, {f['blanks_planted']} blank scans, 1 leak"),
        ("dropped by filter", f"{f['blanks_dropped']} blank scans"),
        ("dropped by deduplicate", f"{f['copies_dropped']} copies"),
        ("train / validation / test", f"{f['train']:,} / {f['validation']:,} / {f['test']:,} images"),
        ("labels flipped on purpose", f"{f['labels_flipped']} of {f['train']:,}, by a traced map"),
        ("arrived late, straight into test", f"{f['late']} images, one of them a copy of a training image"),
    ]
    section(console, "1. The data, prepared under trace", rows)


def trained(console: Console, f: Figures) -> None:
    """The same training, with and without."""
    table = grid(
        f"2. A CNN trained twice: {f['epochs']} epochs, {f['steps']} updates, one thread", "", "with fgtrac", "without"
    )
    table.add_row("accuracy on test", f"{f['accuracy_with']:.4f}", f"{f['accuracy_without']:.4f}")
    table.add_row("weights, SHA-256", f["weights_with"][:16], f["weights_without"][:16])
    table.add_row("random generators, SHA-256", f["generators_with"][:16], f["generators_without"][:16])
    console.print(table)
    console.print(f"Weights bit-identical: {yes(f['weights_identical'])}.", end=" ")
    console.print(f"Generator states identical: {yes(f['generators_identical'])}.\n")


def cost(console: Console, f: Figures) -> None:
    """What recording took, in time and in bytes."""
    own = f"{f['own_s'] * 1e3:.0f} ms of {f['loop_s']:.2f} s, {f['own_time_share_without_checkpoints']:.2%}"
    together = f"{f['own_time_share_each_epoch']:.2%}"
    rows = [
        ("fgtrac's own time inside the loop", own),
        ("... with checkpoints and their seals", together),
        ("a checkpoint, on the training thread", f"{f['checkpoint_ms']:.1f} ms (of {f['checkpoints']})"),
        ("sample uses recorded", f"{f['events']:,}"),
        ("entries in the log", f"{f['entries']:,}"),
        ("bytes a use, in the log", f"{f['log_bytes_per_event']:.2f}"),
        ("bytes a use, in the index", f"{f['index_bytes_per_event']:.2f}"),
        ("the log / the index / saved models", " / ".join(size(f[n]) for n in ("log_b", "index_b", "artifacts_b"))),
        ("full seal", f"{f['seal_s']:.2f} s"),
    ]
    if f["attention_s"]:
        words = f"{f['attention_s'] / f['checkpoints'] * 1e3:.1f} ms a checkpoint, not in the above"
        rows.insert(3, ("the model's passes for modality weights", words))
    section(console, "3. What recording cost", rows)


def verified(console: Console, f: Figures) -> None:
    """Every check of the full verification."""
    table = grid(f"4. Verified from disk in {f['verify_s']:.2f} s: {f['verdict']}", "check", "answer", "rests on")
    for finding in f["findings"]:
        table.add_row(finding["check"], finding["verdict"], brief(finding["words"]))
    console.print(table)
    for note in f["notes"]:
        console.print(f"note: {escape(note)}")
    console.print()


def history(console: Console, title: str, lines: Sequence[tuple[str, str]]) -> None:
    """One sample's history: (entry, what happened)."""
    table = grid(title, "entry", "what happened")
    for number, words in lines:
        table.add_row(number, escape(words))
    console.print(table)


def contents(console: Console, f: Figures) -> None:
    """What equal source bytes gave away."""
    rows = [
        ("groups of equal images", f"{f['groups']} ({f['samples']} samples)"),
        ("equal to a planted copy", f"{f['copies_found']} of {f['copies_planted']}"),
        ("in train and in test", ", ".join(f"{a} = {b}" for a, b in f["leaks"]) or "none"),
    ]
    section(console, "6. Copies and leaks, found by content in the index", rows)


def scoring(console: Console, f: Figures) -> None:
    """What the factors cost, as estimated before and as measured."""
    rows = [
        ("kept checkpoints scored", f"{f['states']} of {f['checkpoints']}, layer {f['layer']}"),
        ("one forward pass at each, estimated", f"{1e3 * f['estimated_s']:.0f} ms and {size(f['estimated_b'])}"),
        ("measured, with writing it down", f"{1e3 * f['measured_s']:.0f} ms and {size(f['measured_b'])}"),
        ("of the training's time", f"{f['share']:.1%}"),
        ("contributions toward validation, in the log", f"{f['contributions']:,}"),
    ]
    section(console, "7. What scoring cost", rows)


def explained(console: Console, f: Figures) -> None:
    """One wrong prediction: who lowered its loss and who raised it, with pictures."""
    mistake, toward = f["mistake"], f["answer"]["toward"][0]
    console.print(
        f"[bold]8. Who taught it this? {mistake['sample']}: a {mistake['label']}, taken for a {mistake['said']}[/]"
    )
    for line in side_by_side(f["pictures"]):
        console.print(f"  {escape(line)}", highlight=False)
    table = grid("", "", "sample", "its label", "score", f"of it at steps {', '.join(map(str, f['steps']))}")
    for kind in ("proponents", "opponents"):
        for number, sample in enumerate(toward[kind]):
            shares = " ".join(f"{100 * share / sample['score']:.0f}" for share in sample["trace"])
            row = sample["name"], str(sample["label"]), f"{sample['score']:+.4g}", f"{shares} %"
            table.add_row(kind if number == 0 else "", *map(escape, row))
    console.print(table)
    free = ", ".join(f"{sample['name']} {sample['score']:.3g}" for sample in toward["baseline"])
    console.print(f"For comparison, free: the highest training losses of its class: {escape(free)}.", soft_wrap=True)
    console.print(f"{escape(f['basis'])}.", soft_wrap=True)
    if f["page"]:
        console.print(f"With pictures: {escape(f['page'])}", soft_wrap=True)
    console.print()


def suspects(console: Console, f: Figures) -> None:
    """How well flipped labels are found, beside what costs nothing."""
    table = grid(f"9. Flipped labels among the first {f['flipped']} suspects", "ranked by", "found", "precision", "AUC")
    for name in ("self_influence", "mean_loss"):
        by = f[name]
        table.add_row(by["words"], f"{by['found']} of {f['flipped']}", f"{by['precision']:.3f}", f"{by['auc']:.3f}")
    console.print(table)
    console.print(f"{f['better']}\n")


def proofs(console: Console, rows: Sequence[Figures]) -> None:
    """Bundles and what checking them offline said."""
    table = grid("10. Proofs that need no trace: each checked from its file alone", "claim", "size", "answer")
    for row in rows:
        table.add_row(brief(row["claim"]), f"{row['bytes']:,} bytes", row["verdict"])
    console.print(table)


def lies(console: Console, rows: Sequence[Figures]) -> None:
    """Lies told about copies, and what caught each."""
    table = grid("11. Lies told about copies of the trace", "lie", "what was done", "refuted by", "in words")
    for row in rows:
        table.add_row(row["lie"], row["done"], row["check"], brief(row["words"]))
    console.print(table)


def anchored(console: Console, f: Figures) -> None:
    """The receipt of the head on a chain, and what four verifications said."""
    rows = [
        ("chain", f"id {f['chain_id']}, in this process: it ends with it, and proves nothing to anybody else"),
        ("contract", f"{f['contract']}, deployed for {f['gas_deployment']:,} gas"),
        ("the head", f"{f['size']} entries, root {f['root'][:8]}…, by {f['sender']}"),
        ("stands in", f"block {f['block']}, transaction {f['transaction'][:8]}…, for {f['gas']:,} gas"),
        ("the receipt", f"{f['receipt_b']} bytes, {f['receipt']}"),
        ("took, with the deployment", f"{1e3 * f['anchor_s']:.0f} ms"),
    ]
    section(console, "12. The head anchored in a contract", rows)
    table = grid("... and what a full verification says", "of", "answer", "because of", "in words")
    for row in f["answers"]:
        table.add_row(row["question"], row["verdict"], ", ".join(row["checks"]), brief(row["words"]))
    console.print(table)
    console.print("The rewriting has another sample in one batch; its owner made everything fit and signed it again.")
    console.print("This chain ends with the command: of a trace that is kept, fgtrac verify then says cannot tell.")
    console.print("A chain that lasts: fgtrac anchor TRACE --evm RPC_URL --account KEYFILE\n")


def closing(console: Console, failures: Sequence[str]) -> None:
    """What all of it came to."""
    if failures:
        console.print("[red]These claims did not hold:[/]")
        for words in failures:
            console.print(f"  {words}")
    else:
        console.print("[green]Every claim above was measured in this run, and holds.[/]")


def look(console: Console, command: str) -> None:
    """How to look at a trace that is kept."""
    console.print(f"With pictures in the browser: {escape(command)}", soft_wrap=True, highlight=False)


def brief(words: str) -> str:
    """Words for a table: of long runs of hex digits only the beginning."""
    return escape(re.sub(r"\b([0-9a-f]{8})[0-9a-f]{24,}", r"\1…", words))


def size(count: int) -> str:
    """A number of bytes for reading."""
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def yes(value: bool) -> str:
    """yes or NO."""
    return "[green]yes[/]" if value else "[red]NO[/]"
