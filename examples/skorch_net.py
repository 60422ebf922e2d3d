"""skorch under trace, with two lines added: a small net learns to tell two half moons apart.

Afterwards: fgtrac history runs/moons.trace moons:7
"""

import torch
from sklearn.datasets import make_moons
from skorch import NeuralNetClassifier

from fgtrac.frameworks.skorch import SkorchTrace  # fgtrac

torch.manual_seed(0)
points, labels = make_moons(400, noise=0.2, random_state=0)
net = NeuralNetClassifier(
    torch.nn.Sequential(torch.nn.Linear(2, 16), torch.nn.Tanh(), torch.nn.Linear(16, 2), torch.nn.Softmax(dim=-1)),
    max_epochs=5,
    lr=0.3,
    iterator_train__shuffle=True,
    verbose=0,
    callbacks=[
        SkorchTrace("runs/moons", name="moons"),  # fgtrac
    ],
)
net.fit(points.astype("float32"), labels)
print(f"validation loss {net.history[-1, 'valid_loss']:.4f}")
