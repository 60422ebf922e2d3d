"""Losses of samples: torch's own on a batch of one sample is what each of them must be."""

from __future__ import annotations

import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fgtrac.errors import ScoreError
from fgtrac.score.losses import per_sample

N = 7
WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.25])


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


CLASSES = torch.tensor([0, 3, 1, 1, 2, 0, 3])
SOFT = draw(N, 4).softmax(1)
LABELS = (draw(N, 4) > 0).float()
TOKENS = torch.tensor([[0, 1, -100, 2, 3]] * (N - 1) + [[1, -100, -100, -100, -100]])
IMAGE = (draw(N, 3, 2) > 0).long()

BY_ONE = [
    (nn.CrossEntropyLoss(), draw(N, 4), CLASSES),
    (nn.CrossEntropyLoss(reduction="sum"), draw(N, 4), CLASSES),
    (nn.CrossEntropyLoss(label_smoothing=0.1), draw(N, 4), CLASSES),
    (nn.CrossEntropyLoss(weight=WEIGHTS, reduction="sum"), draw(N, 4), CLASSES),
    (nn.CrossEntropyLoss(), draw(N, 4), SOFT),
    (nn.CrossEntropyLoss(), draw(N, 4, 5), TOKENS),
    (nn.CrossEntropyLoss(reduction="sum"), draw(N, 4, 5), TOKENS),
    (nn.CrossEntropyLoss(), draw(N, 4, 3, 2), IMAGE),
    (nn.CrossEntropyLoss(), draw(N, 4, 4), TOKENS[:, :4]),  # of both readings, torch's own
    (nn.NLLLoss(), draw(N, 4).log_softmax(1), CLASSES),
    (nn.BCEWithLogitsLoss(), draw(N, 4), LABELS),
    (nn.BCEWithLogitsLoss(pos_weight=WEIGHTS, reduction="sum"), draw(N, 4), LABELS),
    (nn.BCELoss(), draw(N, 4).sigmoid(), LABELS),
    (nn.MultiLabelSoftMarginLoss(), draw(N, 4), LABELS),
    (nn.MSELoss(), draw(N, 3, 2), draw(N, 3, 2) + 1),
    (nn.MSELoss(), draw(N), draw(N) + 1),
    (nn.HuberLoss(delta=0.3), draw(N, 3), draw(N, 3) * 2),
    (nn.SmoothL1Loss(reduction="sum"), draw(N, 3), draw(N, 3) * 2),
    (nn.L1Loss(), draw(N, 3), draw(N, 3) * 2),
    (nn.KLDivLoss(reduction="batchmean"), draw(N, 4).log_softmax(1), SOFT),
    (F.cross_entropy, draw(N, 4), CLASSES),
    (F.mse_loss, draw(N, 3), draw(N, 3) * 2),
    (functools.partial(F.cross_entropy, label_smoothing=0.2, reduction="sum"), draw(N, 4), CLASSES),
    (functools.partial(F.cross_entropy, ignore_index=2), draw(N, 4, 5), TOKENS.clamp(min=1)),
    (functools.partial(F.huber_loss, delta=0.5), draw(N, 3), draw(N, 3) * 2),
]


@pytest.mark.parametrize("case", range(len(BY_ONE)))
def test_each_loss_is_what_torch_makes_of_that_sample_alone(case):
    loss, outputs, targets = BY_ONE[case]
    alone = torch.stack([loss(outputs[i : i + 1], targets[i : i + 1]) for i in range(N)])
    assert alone.ndim == 1
    torch.testing.assert_close(per_sample(loss)(outputs, targets), alone)


def test_with_class_weights_a_sample_counts_its_class():
    terms = per_sample(nn.CrossEntropyLoss(weight=WEIGHTS))(draw(N, 4), CLASSES)
    torch.testing.assert_close(terms, WEIGHTS[CLASSES] * F.cross_entropy(draw(N, 4), CLASSES, reduction="none"))


def test_the_loss_module_keeps_its_reduction():
    loss = nn.CrossEntropyLoss()
    per_sample(loss)(draw(N, 4), CLASSES)
    assert loss.reduction == "mean"


def test_next_words_may_have_their_classes_last():
    logits = draw(N, 5, 4)
    found = per_sample(nn.CrossEntropyLoss())(logits, TOKENS)
    torch.testing.assert_close(found, per_sample(nn.CrossEntropyLoss())(logits.movedim(-1, 1), TOKENS))


def test_a_sample_of_ignored_words_only_has_no_loss():
    ignored = torch.full((2, 5), -100)
    assert per_sample(nn.CrossEntropyLoss())(draw(2, 5, 4), ignored).tolist() == [0, 0]


def test_a_function_of_ones_own_is_taken_as_it_is():
    outputs, targets = draw(N, 3), draw(N, 3) + 1
    found = per_sample(lambda o, t: (o - t).abs().amax(1))(outputs, targets)
    torch.testing.assert_close(found, (outputs - targets).abs().amax(1))


def test_a_loss_of_ones_own_with_a_reduction_is_taken_without_it():
    class Focal(nn.Module):
        reduction = "mean"

        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            terms = F.cross_entropy(outputs, targets, reduction="none")
            terms = (1 - torch.exp(-terms)) * terms
            return terms.mean() if self.reduction == "mean" else terms

    assert per_sample(Focal())(draw(N, 4), CLASSES).shape == (N,)


def test_one_number_for_a_batch_of_one_is_that_samples_loss():
    assert per_sample(lambda o, t: (o - t).pow(2).mean())(draw(1, 3), draw(1, 3)).shape == (1,)


def test_one_number_for_many_samples_is_refused_with_the_remedy():
    with pytest.raises(ScoreError, match=r'without per-sample terms.*reduction="none"'):
        per_sample(lambda o, t: (o - t).pow(2).mean())(draw(N, 3), draw(N, 3))


@pytest.mark.parametrize("loss", [lambda o, t: (o - t) ** 2, nn.MSELoss(reduction="none")])
def test_several_numbers_a_sample_are_refused_with_their_shape(loss):
    with pytest.raises(ValueError, match=r"\(7, 3\)"):
        per_sample(loss)(draw(N, 3), draw(N, 3))


@pytest.mark.parametrize("loss", [lambda o, t: 0.5, lambda o, t: [1.0] * N, lambda o, t: t.long()])
def test_what_is_no_tensor_of_losses_is_refused(loss):
    with pytest.raises(TypeError, match="the loss returned"):
        per_sample(loss)(draw(N), draw(N))


@pytest.mark.parametrize(
    "loss", [nn.MSELoss(), nn.HuberLoss(), F.l1_loss, functools.partial(F.smooth_l1_loss, reduction="none")]
)
def test_outputs_and_targets_that_torch_would_pair_each_with_each_are_refused_with_both_shapes(loss):
    with pytest.raises(ValueError, match=r"outputs are of shape \(7, 1\) and targets of \(7,\).*one shape"):
        per_sample(loss)(draw(N, 1), draw(N))
