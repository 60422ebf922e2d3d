"""What a factor pass refuses: one line that says what is wrong and what to do, before anything is written."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from fgtrac.errors import ScoreError
from fgtrac.score.factors import FactorPass
from fgtrac.score.finite import NotFinite
from fgtrac.score.untouched import untouched
from score.models import CNN, MLP, GraphNet, LanguageModel, factors, next_word

N = 6
X, Y = torch.randn(N, 6, generator=torch.Generator().manual_seed(0)), torch.arange(N) % 4
NODES = torch.arange(N)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def refused(model, match, *, batch=(X, Y), loss=F.cross_entropy, error=ScoreError, **options):
    with pytest.raises(error, match=match) as caught:
        factors(model, batch, loss, **options)
    assert "\n" not in str(caught.value)
    assert not any(module._forward_hooks for module in model.modules())
    assert torch.is_grad_enabled()


def test_a_name_that_does_not_exist_lists_those_that_do():
    refused(MLP(), r"no layer 'tail'; could be scored: 'first', 'head'", layer="tail", error=ValueError)
    refused(MLP(), r"no layer 'head.more'; could", layer=["first", "head.more"], error=ValueError)


@pytest.mark.parametrize("names", [[], ["head", "head"]])
def test_no_name_and_one_name_twice_are_refused(names):
    refused(MLP(), "at least one, and each weight once", layer=names, error=ValueError)


def test_a_frozen_layer_is_refused_with_the_remedy():
    model = MLP()
    model.head.weight.requires_grad_(False)
    refused(model, "'head' is frozen.*requires_grad=False; train it, or could be scored: 'first'", layer="head")


def test_a_layer_of_another_kind_is_refused():
    refused(CNN(), "'norm' is a BatchNorm2d, not a linear", batch=(torch.randn(N, 2, 8, 8), Y % 3), layer="norm")
    transposed = nn.Sequential(nn.ConvTranspose1d(1, 1, 1), nn.Flatten(), nn.Linear(6, 4))
    refused(transposed, "'0' is a ConvTranspose1d", batch=(X[:, None], Y), layer="0")


def test_a_weight_that_is_computed_from_others_is_refused():
    model = MLP()
    parametrizations.weight_norm(model.head)
    refused(model, r"'head' is computed from others \(parametrized\); could be scored: 'first'", layer="head")
    assert factors(model, (X, Y), F.cross_entropy)[0].layers[0].name == "first"


def test_a_layer_that_is_not_called_is_refused():
    model = MLP()
    model.spare = nn.Linear(3, 3)
    refused(model, "does not depend on a call of layer 'spare'", layer="spare")


def test_a_model_without_a_layer_to_score_is_refused():
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(6))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    refused(
        Scale(),
        "depends on no call of a trained linear or convolution layer; no layer of this model could be scored",
        batch=(X, Y),
    )


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_forward_pass_without_gradients_is_refused(mode):
    refused(
        MLP(),
        "the forward pass runs without gradients",
        forward=mode()(lambda model, batch: (model(batch[0]), batch[1])),
    )


def contrastive(outputs: torch.Tensor, _targets: torch.Tensor) -> torch.Tensor:
    normal = F.normalize(outputs)
    return F.cross_entropy(normal @ normal.roll(1, 0).T, torch.arange(len(outputs)), reduction="none")


def test_losses_that_mix_the_samples_of_a_batch_are_refused():
    for loss in (
        contrastive,
        lambda outputs, targets: (outputs.logsumexp(1) - outputs.mean()) ** 2,
        lambda outputs, targets: (outputs[:, 0] - outputs[:, 0].mean()) ** 2,
        lambda outputs, targets: F.cross_entropy(outputs, targets, reduction="none").mean().expand(len(outputs)),
    ):
        refused(MLP(), "a loss without per-sample terms: a sample's loss depends on the others", loss=loss)


def by_size(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(outputs, targets, reduction="none") / len(targets)


def margin(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Pushes samples apart that lie near each other."""
    near = F.relu(0.5 - torch.cdist(outputs, outputs)) * (targets[:, None] != targets)
    return F.cross_entropy(outputs, targets, reduction="none") + near.sum(1)


def test_a_loss_that_knows_the_size_of_the_batch_is_refused():
    words = "a loss without per-sample terms: a sample's loss depends on the others of its batch.*takes sample i only"
    refused(MLP(), words, loss=by_size)
    refused(MLP().bfloat16(), words, batch=(X.bfloat16(), Y), loss=by_size)
    refused(MLP(), words, loss=lambda o, t: by_size(*o), forward=lambda m, b: ((m(b[0]), b[1]), None))


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [0, 2, 1, 3], [0, 2, 3, 1]])
def test_samples_that_are_mixed_in_a_later_batch_only_are_refused_there(order):
    near = X[[0, 0, 2, 3]] * torch.tensor([1.0, 1.0, 30.0, -30.0])[:, None]
    model = MLP()
    with untouched(model):
        prepared = FactorPass.prepare(model, (X[:4] * 30, Y[:4]), loss=margin)
        with pytest.raises(ScoreError, match=r"depends on the others of its batch.*for \d of \d samples"):
            prepared((near[order], Y[:4]))


@pytest.mark.parametrize(
    "loss",
    [
        nn.CrossEntropyLoss(label_smoothing=0.1),
        lambda o, t: F.cross_entropy(o.squeeze(), t, reduction="none"),
        lambda o, t: F.cross_entropy(o, Y, reduction="none"),
        lambda o, t: F.cross_entropy(o.t().contiguous().t(), t, reduction="none") * 1e4,
    ],
    ids=["plain", "squeezed", "of one size", "large"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loss_of_each_sample_is_not_taken_for_a_mixing_one(loss, dtype):
    factors(MLP().to(dtype), (X.to(dtype), Y), loss)


def test_hooks_on_a_weight_neither_run_nor_matter_and_stay():
    model, fired = MLP(), []

    def clip(grad: torch.Tensor) -> torch.Tensor:
        fired.append(len(grad))
        return grad.clamp(-0.001, 0.001)

    plain = factors(model, (X, Y), F.cross_entropy, layer="all")[1]
    handles = [parameter.register_hook(clip) for parameter in model.parameters()]
    found = factors(model, (X, Y), F.cross_entropy, layer="all")[1]
    assert fired == []
    for one, other in zip(plain.gradients, found.gradients, strict=True):
        assert (one.whole() == other.whole()).all()
    F.cross_entropy(model(X), Y).backward()
    assert len(fired) == 4
    assert all(parameter.grad.abs().max() <= 0.001 for parameter in model.parameters())
    handles[0].remove()
    F.cross_entropy(model(X), Y).backward()
    assert len(fired) == 7


def test_mixing_that_hardly_shows_in_the_losses_shows_in_the_gradients():
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, targets, reduction="none") + 1e-4 * outputs.pow(2).sum()

    refused(MLP(), "'head' feed several samples: a loss without per-sample terms", loss=loss)


def test_losses_that_mix_samples_are_refused_later_where_the_first_batch_had_only_one():
    model = MLP()
    with untouched(model):
        prepared = FactorPass.prepare(model, (X[:1], Y[:1]), loss=lambda o, t: (o[:, 0] + o.mean()) ** 2)
        with pytest.raises(ScoreError, match="depends on the others of its batch"):
            prepared((X, Y))


def test_a_loss_of_one_number_is_refused():
    refused(MLP(), "a loss without per-sample terms: one number", loss=lambda o, t: F.cross_entropy(o, t))


def test_a_layer_in_front_of_what_mixes_samples_is_refused():
    refused(
        GraphNet(), "rows of layer 'first' feed several samples.*behind the mixing", batch=(NODES, Y % 3), layer="all"
    )


@pytest.mark.parametrize("layer", ["first", "head"])
def test_a_model_in_training_mode_is_refused(layer):
    model = MLP()
    with pytest.raises(ScoreError, match=r"training mode.*untouched"):
        FactorPass.prepare(model, (X, Y), loss=F.cross_entropy, layer=layer)
    with untouched(model):
        prepared = FactorPass.prepare(model, (X, Y), loss=F.cross_entropy, layer=layer)
    with pytest.raises(ScoreError, match=r"training mode.*untouched"):
        prepared((X, Y))


def test_a_weight_that_also_acts_outside_its_layer_is_refused():
    class Reused(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(x)) + x[:, :4] * self.head.weight[:, 0]

    class Cosine(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.linear(x, F.normalize(self.weight), self.bias)

    class Shared(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) * self.head.bias

    model = MLP()
    model.head = Cosine(8, 4)
    for one in (Reused(), Shared(), model):
        refused(one, "weight or bias of layer 'head' act on the loss in other ways", layer="head")
    opposite = X[[0, 0, 1, 1]], torch.tensor([1.0, -1.0, 1.0, -1.0])  # as at a minimum, all gradients sum to 0
    refused(Reused(), "act on the loss in other ways", batch=opposite, loss=lambda o, t: o.sum(1) * t)


@pytest.mark.parametrize("option", [{"scale_grad_by_freq": True}, {"max_norm": 1.0}])
def test_a_tied_embedding_whose_share_cannot_be_written_down_is_refused(option):
    model = LanguageModel()
    model.embed = nn.Embedding(11, 8, **option)
    model.head.weight = model.embed.weight
    words = (torch.randint(0, 11, (N, 5)),)
    refused(
        model,
        f"embedding 'embed' with {next(iter(option))}",
        batch=words,
        loss=nn.CrossEntropyLoss(),
        forward=next_word,
    )


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_a_lazy_layer_that_has_seen_no_batch_is_refused():
    with pytest.raises(ScoreError, match=r"weight is not initialised"):
        FactorPass.prepare(nn.Sequential(nn.LazyLinear(4)).eval(), (X, Y), loss=F.cross_entropy)


def test_hessians_of_several_layers_or_of_many_positions_are_refused():
    refused(MLP(), r"ggn \(hessians\) is of one layer", layer="all", hessians=True)
    images = torch.randn(N, 2, 8, 8), Y % 3
    refused(CNN(), r"ggn \(hessians\) is of one layer", batch=images, layer="one", hessians=True)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_in_a_loss_is_an_error_with_the_count_and_the_first_row(bad):
    x = X.clone()
    x[[2, 4]] = bad
    model = MLP()
    with untouched(model):
        prepared = FactorPass.prepare(model, (X, Y), loss=F.cross_entropy)
        for run in (prepared, lambda batch: FactorPass.prepare(model, batch, loss=F.cross_entropy)):
            with pytest.raises(
                NotFinite, match="NaN or infinity in the loss in 2 rows of the batch, first in row 2"
            ) as e:
                run((x, Y))
            assert (e.value.count, e.value.row) == (2, 2)


@pytest.mark.parametrize("layer", ["first", "head"])
@pytest.mark.parametrize("inputs", [X, X[:, None].expand(N, 3, 6)], ids=["factored", "dense"])
def test_nan_in_a_gradient_only_is_an_error_with_its_row(layer, inputs):
    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs * (targets != 3)[:, None]).norm(dim=1).sqrt()

    def forward(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        return model(batch[0]).flatten(1), batch[1]

    model = MLP()
    with untouched(model):
        prepared = FactorPass.prepare(model, (inputs, Y % 3), loss=loss, forward=forward, layer=layer)
    for run in (prepared, lambda batch: factors(model, batch, loss, forward=forward, layer=layer)):
        with pytest.raises(NotFinite, match=f"of layer '{layer}'") as caught, untouched(model):
            run((inputs, Y))
        assert (caught.value.count, caught.value.row) == (1, 3)


def test_a_layer_that_is_called_otherwise_than_in_the_first_batch_is_refused():
    class Grows(MLP):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.first(x)) if len(x) == N else self.head(self.first(x)) + self.head(self.first(x * 2))

    model = Grows()
    with untouched(model):
        prepared = FactorPass.prepare(model, (X, Y), loss=F.cross_entropy)
        with pytest.raises(
            ScoreError, match="'head' sees a sample at several positions, but at one in the first batch"
        ):
            prepared((X[:4], Y[:4]))


def test_a_batch_of_another_kind_needs_a_forward_function():
    refused(MLP(), r"forward\(model, batch\)", batch={"x": X, "y": Y}, error=ValueError)


def test_layers_of_a_trace_must_have_the_shape_of_the_models():
    layers = factors(MLP(hidden=5), (X, Y), F.cross_entropy)[0].layers
    refused(MLP(), r"'head' is 4 x 8 \(bias: True\) in the model, and was scored as 4 x 5", layer=layers)
