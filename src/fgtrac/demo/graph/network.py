"""The demo's graph network: two modalities weighed for each node, three message-passing steps, one linear head."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional
from torch_geometric.data import Data
from torch_geometric.nn import SAGEConv

from fgtrac.demo.graph.features import PIXELS

MODALITIES = ("image", "words")
STEPS = 3
WIDTH, CHANNELS, DROPOUT = 96, 4, 0.5
ONE_MISSING = 0.4  # of the training nodes: one modality is hidden; with less, some seeds learn words alone


class IconNetwork(nn.Module):
    """Categories from `data.image` (n, 24, 24) in 0 to 1, `data.words` (n, m) and `data.edge_index`.

    Each node's modalities are added with softmax weights of its own (attention as in arXiv:1903.07293, eq. 7, but for
    each node); then come three steps of GraphSAGE (arXiv:1706.02216), and `output`, which sees one node's vector.
    """

    def __init__(self, words: int, classes: int, modalities: tuple[str, ...] = MODALITIES) -> None:
        super().__init__()
        self.modalities = modalities
        self.encoders = nn.ModuleDict({name: encoder(name, words) for name in modalities})
        self.question = nn.Linear(WIDTH, 1)
        self.convolutions = nn.ModuleList([SAGEConv(WIDTH, WIDTH) for _ in range(STEPS)])
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH) for _ in range(STEPS)])
        self.output = nn.Linear(WIDTH, classes)

    def forward(self, data: Data) -> torch.Tensor:
        """(n, classes) logits for every node of the graph or of the batch."""
        hidden = self.node_vectors(data)
        out: torch.Tensor = self.output(functional.dropout(hidden, DROPOUT, self.training))
        return out

    def node_vectors(self, data: Data) -> torch.Tensor:
        """(n, 96): what the head sees of each node, after all message passing."""
        encoded = self._encoded(data)
        weights = self._weights(encoded)
        hidden = (weights[..., None] * encoded.relu()).sum(1)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            message = norm(convolution(hidden, data.edge_index)).relu()
            hidden = hidden + functional.dropout(message, DROPOUT, self.training)
        return hidden

    def modality_weights(self, data: Data) -> torch.Tensor:
        """(n, modalities): how much each modality of each node weighs; rows sum to 1."""
        return self._weights(self._encoded(data))

    def _encoded(self, data: Data) -> torch.Tensor:
        return torch.stack([self.encoders[name](data[name]) for name in self.modalities], dim=1)

    def _weights(self, encoded: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.question(encoded.tanh()).squeeze(-1)
        if self.training and len(self.modalities) > 1:
            hidden = torch.rand(len(scores), 1) < ONE_MISSING
            which = torch.randint(len(self.modalities), (len(scores), 1))
            scores = scores.masked_fill(hidden & (torch.arange(len(self.modalities)) == which), -1e9)
        return scores.softmax(dim=1)


def encoder(modality: str, words: int) -> nn.Module:
    """From a modality of n nodes to (n, 96): images by three convolutions of stride 2, words by one linear layer."""
    if modality == "words":
        return nn.Sequential(nn.Linear(words, WIDTH), nn.Dropout(DROPOUT))
    layers: list[nn.Module] = [nn.Unflatten(1, (1, PIXELS))]
    channels = 1
    for wide in (CHANNELS, 2 * CHANNELS, 4 * CHANNELS):
        layers += [nn.Conv2d(channels, wide, 3, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
        channels = wide
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (PIXELS // 8) ** 2, WIDTH))
