"""A trace whose every text is hostile: markup, scripts, control characters, a key of 10 MB; recorded as users do."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset, TensorDataset

import fgtrac

MARKED = "hostile7f3a"  # stands in every text, so that a page that shows one is known to
SCRIPT = f"</script></title><script>document.title='{MARKED}';alert('{MARKED}')</script>"
ATTRIBUTE = f"\"'><img src=x onerror=alert('{MARKED}')>"
VECTOR = f"<svg onload=alert('{MARKED}')><style>*{{display:none}}</style>"
LINK = f"javascript:alert('{MARKED}')//http://elsewhere.example/{MARKED}"
TEMPLATE = f"{{{{ 7*7 }}}}{{% raw %}}${{alert(1)}}{MARKED}&lt;b&gt;"
CONTROLS = f"\x1b]0;{MARKED}\x07\x1b[31mred\x1b[0m\x00\x08\r\n\u2028\u2029\x85"
BACKWARDS = f"\u202e{MARKED}\u2066gpj.exe\u200b\ufeff"
PATH = f"../../../../etc/passwd\\..\\{MARKED}%2e%2e%2f?a=1#b"
TEXTS = (SCRIPT, ATTRIBUTE, VECTOR, LINK, TEMPLATE, CONTROLS, BACKWARDS, PATH)
LONG = MARKED + "<b>" + "A" * 10_000_000
TRACE_NAME = "<b>&\"'`;$(id) %2e%2e\u202e.trace"  # of the folder


def make_hostile_trace(folder: Path, *, long: bool = True) -> Path:
    """The trace, fully sealed, with kept checkpoints, factors, contributions, predictions and a vault; with `long` one
    of its samples has the key LONG."""
    torch.manual_seed(0)
    rows = 24
    inputs, labels = torch.randn(rows, 3), torch.arange(rows) % 2
    data = TensorDataset(inputs, labels)
    keys = [*TEXTS, *(f"{MARKED}-{n}" for n in range(len(TEXTS), rows - 1)), LONG if long else f"{MARKED}-last"]
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    config = {text: text for text in TEXTS} | {"nested": [list(TEXTS), {SCRIPT: {ATTRIBUTE: VECTOR}}], "lr": 0.5}
    trace = folder / TRACE_NAME
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        with fgtrac.start_run(trace, config=config, keep="all", key=folder / "key.pem", ids="public") as run:
            run.register(data, name=SCRIPT, key=keys)
            kept = run.transform(VECTOR, data, {ATTRIBUTE: SCRIPT}).filter(lambda row: bool(row[1] < 2))
            train, validation = Subset(kept, range(16)), Subset(kept, range(16, rows))
            loss = torch.nn.functional.cross_entropy
            run.register(train, role="train")
            run.score_with(loss=loss, train=train, validation=validation, test=validation)
            loader = run.watch(DataLoader(train, batch_size=8, shuffle=True), role="train")
            for epoch in range(3):
                for x, y in loader:
                    optimizer.zero_grad()
                    losses = loss(model(x), y, reduction="none")
                    run.losses(losses)
                    losses.mean().backward()
                    optimizer.step()
                run.log(**{text: float(epoch + 1) for text in TEXTS})
                run.checkpoint(model, optimizer, val_loss=1.0 / (epoch + 1))
            with torch.no_grad():
                outputs = model(inputs[16:])
            run.predictions(validation, outputs, losses=loss(outputs, labels[16:], reduction="none"))
    return trace
