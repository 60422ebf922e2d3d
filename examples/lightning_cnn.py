"""Lightning under trace, with two lines added: a small CNN learns 1,797 handwritten digits.

Afterwards: fgtrac history runs/digits.trace Digits:7
"""

import lightning.pytorch as lightning
import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset, random_split

from fgtrac.frameworks.lightning import LightningTrace  # fgtrac


class Digits(TensorDataset):
    """Images (1, 8, 8) and their digits."""

    def __init__(self) -> None:
        digits = load_digits()
        super().__init__(torch.tensor(digits.images[:, None] / 16).float(), torch.tensor(digits.target))


class Cnn(lightning.LightningModule):
    """Two convolutions and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Conv2d(8, 16, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
            torch.nn.Flatten(), torch.nn.Linear(64, 10),
        )  # fmt: skip

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        images, digits = batch
        return cross_entropy(self.layers(images), digits)

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        images, digits = batch
        self.log("val_loss", cross_entropy(self.layers(images), digits))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=3e-3)


lightning.seed_everything(0, verbose=False)
train, held = random_split(Digits(), [1500, 297])
trainer = lightning.Trainer(
    max_epochs=3,
    accelerator="cpu",
    logger=False,
    enable_checkpointing=False,
    enable_progress_bar=False,
    callbacks=[
        LightningTrace("runs/digits", monitor="val_loss"),  # fgtrac
    ],
)
trainer.fit(Cnn(), DataLoader(train, batch_size=64, shuffle=True), DataLoader(held, batch_size=297))
print(f"validation loss {trainer.callback_metrics['val_loss']:.4f}")
