"""Relabel rows: in the vault, the names of two samples change places.

Histories read through the vault are then of the wrong sample. Its names and secrets must give the registered ids.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from lying import Act, Stage, caught, main, passes


def tell(stage: Stage) -> Iterator[Act]:
    trace = stage.copy()
    with sqlite3.connect(trace.vault_path) as vault:
        table = "SELECT number, rows FROM row_pages JOIN row_columns USING (number) WHERE dataset = 'photos'"
        ((number, rows),) = vault.execute(table).fetchall()
        changed = rows[4:8] + rows[:4] + rows[8:]
        vault.execute("UPDATE row_pages SET rows = ? WHERE number = ?", (changed, number))
    vault.close()
    yield passes(stage.verify(trace), says="that the registered ids are those of the samples' names is not shown")
    yield caught(stage.verify(trace, "--vault", trace.vault_path), "vault")


if __name__ == "__main__":
    main(tell)
