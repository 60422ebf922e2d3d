"""Data whose rows are samples that are known already: a data set over a table that is registered."""

import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

import fgtrac


class Halved(Dataset):
    """The rows of another data set, as new tensors."""

    def __init__(self, data):
        self.data = data

    def __len__(self):
        return len(self.data)

    def __getitem__(self, row):
        return self.data[row][0] / 2, row


def test_the_rows_of_a_registered_table_are_the_samples_of_a_data_set_over_them(tmp_path):
    table = TensorDataset(torch.arange(12.0).reshape(12, 1))
    chosen = Subset(table, [7, 3, 5])
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with fgtrac.start_run(tmp_path / "a", ids="public") as run:
        run.register(table, name="table")
        rows = Halved(chosen)
        run.register(rows, rows=chosen, role="train")
        for inputs, _row in run.watch(DataLoader(rows, batch_size=2)):
            model(inputs).sum().backward()
            optimizer.step()
    trace = fgtrac.open(tmp_path / "a.trace")
    assert [trace.history(f"table:{row}").uses for row in (7, 3, 5, 4)] == [1, 1, 1, 0]


def test_a_data_set_of_another_length_has_other_rows(tmp_path):
    table = TensorDataset(torch.arange(12.0).reshape(12, 1))
    with (
        fgtrac.start_run(tmp_path / "a") as run,
        pytest.raises(ValueError, match="this Halved has 3 rows, and its samples are 12"),
    ):
        run.register(Halved(Subset(table, [1, 2, 3])), rows=table)
