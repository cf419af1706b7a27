"""Law 7, the part for gradients: straight through, with the effective weights."""

import copy
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cimphony as cim


@pytest.mark.parametrize("fidelity", ["exact", "effective"])
def test_gradients_are_those_of_the_effective_weights(fidelity: str) -> None:
    layer = nn.Linear(40, 9).double()
    inputs = torch.randn(5, 40, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(5, 9, dtype=torch.float64)
    model = nn.Sequential(layer)
    cim.convert_(model, cim.load_chip("hyflexpim").replace({"units.analog.fidelity": fidelity}))
    cim.program_(model, seed=0)
    effective = layer.tiles[0].programmed.weights
    model(inputs).backward(upstream)
    expected_inputs = inputs.detach().clone().requires_grad_()
    twin = effective.T.clone().requires_grad_()
    F.linear(expected_inputs, twin).backward(upstream)
    torch.testing.assert_close(inputs.grad, expected_inputs.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.weight.grad, twin.grad, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.bias.grad, upstream.sum(dim=0))


@pytest.mark.parametrize("kind", ["linear", "conv"])
def test_ideal_gradients_are_the_digital_ones(kind: str) -> None:
    layer = nn.Linear(8, 5).double() if kind == "linear" else nn.Conv2d(3, 4, 3, padding=1).double()
    inputs = (
        torch.randn(2, 8, dtype=torch.float64) if kind == "linear" else torch.randn(2, 3, 6, 6, dtype=torch.float64)
    )
    layer(inputs).square().sum().backward()
    digital = [parameter.grad.clone() for parameter in layer.parameters()]
    layer.zero_grad()
    model = cim.program_(cim.convert_(nn.Sequential(layer), cim.load_chip("ideal")))
    model(inputs).square().sum().backward()
    for one, two in zip(layer.parameters(), digital, strict=True):
        torch.testing.assert_close(one.grad, two, rtol=1e-10, atol=1e-10)


def test_training_writes_the_chip_anew_each_step() -> None:
    """Noise-aware training by default: fresh programming noise after every step, reproducible by seed."""

    def train() -> list[float]:
        generator = torch.Generator().manual_seed(1)
        layer = nn.Linear(30, 1)
        layer.weight.data = torch.randn(1, 30, generator=generator)
        layer.bias.data.zero_()
        inputs, targets = torch.randn(64, 30, generator=generator), torch.randn(64, 1, generator=generator)
        chip = cim.load_chip("hyflexpim").replace(
            {"units.analog.cell.device": {"kind": "gaussian", "multiplicative": 0.1}}
        )
        model = cim.program_(cim.convert_(nn.Sequential(layer), chip), seed=3).train()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for _ in range(12):
            loss = F.mse_loss(model(inputs), targets)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert layer.tiles[0].programmed.rewrites == 11
        return losses

    losses = train()
    assert losses == train()
    assert losses[-1] < losses[0] * 0.5


def test_fused_optimisers_are_seen_too() -> None:
    """They change weights behind torch's count of versions; transformers' Trainer takes them by default."""

    def train(fused: bool) -> list[float]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(30, 4))
        inputs = torch.randn(16, 30)
        cim.program_(cim.convert_(model, cim.load_chip("hyflexpim").replace({"units.analog.fidelity": "effective"})))
        optimiser = torch.optim.AdamW(model.train().parameters(), lr=0.01, fused=fused)
        losses = []
        for _ in range(3):
            loss = model(inputs).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert model[0].tiles[0].programmed.rewrites == 2
        losses.append(float(model.eval()(inputs).detach().square().mean()))
        assert model[0].tiles[0].programmed.rewrites == 3
        return losses

    assert train(fused=True) == pytest.approx(train(fused=False), rel=1e-2)


MOVES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "in place": lambda model: model,
    "moved": lambda model: model.to("cpu"),
    "another dtype": lambda model: model.double(),
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("move", MOVES)
def test_evaluation_after_a_step_reads_the_new_weights(move: str) -> None:
    """As transformers' Trainer does between its steps; the chip is what the next step would have written."""

    def outputs(training: bool) -> torch.Tensor:
        torch.manual_seed(0)
        model = cim.program_(cim.convert_(nn.Sequential(nn.Linear(30, 4)), cim.load_chip("hyflexpim"))).train()
        inputs = torch.randn(16, 30)
        optimiser = torch.optim.SGD(model.parameters(), lr=1.0)
        model(inputs).square().mean().backward()
        optimiser.step()
        model = MOVES[move](model).train(training)
        return model(inputs.to(model[0].weight.dtype)).detach()

    assert torch.equal(outputs(training=False), outputs(training=True))


def test_changed_weights_are_not_read_silently() -> None:
    model = cim.program_(cim.convert_(nn.Sequential(nn.Linear(4, 2)), cim.load_chip("hyflexpim"))).eval()
    with torch.no_grad():
        model[0].weight += 1
    for stale in (model, copy.deepcopy(model), copy.deepcopy(model).double().float()):
        with pytest.raises(cim.StateError, match="changed after they were programmed"):
            stale(torch.ones(1, 4))
    with pytest.raises(cim.StateError, match="other weights than were programmed"):
        cim.age_(model, seconds=5)
    cim.program_(model)
    model(torch.ones(1, 4))
