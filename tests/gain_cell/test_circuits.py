"""The equations, against numbers worked out by hand and an independent implementation in numpy."""

import math

import numpy as np
import pytest
import torch

from cimphony.chip import GainCell
from cimphony.circuits.charge_to_pulse import hard_sigmoid, quantise, signed_readout
from cimphony.circuits.gain_cell import Columns, attend, interpolate, outputs, polynomial, scores, shifted, terms
from tests.gain_cell.models import unit

BETA = (0.521364e-6, 13.612261e-6, -2.620446e-6, 46.054838e-6)  # worked out from the published C
TABLE = {  # circuit simulation behind the cubic, at an input of 0.9 V [A]
    "kind": "table",
    "voltage": [0.0, 0.092, 0.184, 0.276, 0.367, 0.459, 0.551, 0.643, 0.735, 0.827, 0.9],
    "current": [
        value * 1e-6 for value in (-10.149, -6.936, -4.174, -2.044, -0.538, 0.581, 1.731, 3.315, 5.403, 7.870, 9.973)
    ],
    "slope": 19.3e-6,
}


def test_the_cubic_collapses_to_four_coefficients() -> None:
    found = unit().cell.multiplier.polynomial  # type: ignore[union-attr]
    assert found == pytest.approx(BETA, rel=1e-6)


@pytest.mark.parametrize(("volts", "micro"), [(0.0, -10.33), (0.45, 0.52), (0.9, 10.31)])
def test_span_of_the_current(volts: float, micro: float) -> None:
    (_, current), *_ = terms(unit().cell, torch.tensor([volts], dtype=torch.float64), None)
    assert float(current) * 1e6 == pytest.approx(micro, abs=0.006)


def test_the_slope_is_a_regression_of_the_cubic() -> None:
    """Through the origin 19.21 over the whole range; the paper's 19.3 is within half a per cent."""
    y = np.linspace(-0.45, 0.45, 10_001)
    current = sum(b * y**i for i, b in enumerate(BETA))
    slope = float((y * current).sum() / (y * y).sum())
    assert slope == pytest.approx(19.21e-6, abs=0.01e-6)
    assert unit().cell.multiplier.slope == pytest.approx(slope, rel=0.005)


def test_the_cubic_is_within_the_fit_error_of_the_table() -> None:
    cell = unit(cell__multiplier=TABLE).cell
    volts = torch.tensor(TABLE["voltage"], dtype=torch.float64)
    exact = interpolate(cell.multiplier, volts)  # type: ignore[arg-type]
    assert exact.tolist() == pytest.approx(TABLE["current"], rel=1e-12)
    fit = polynomial(BETA, volts - 0.45)
    error = float(((fit - exact) ** 2).mean().sqrt() / (exact**2).mean().sqrt())
    assert error < 0.035  # 2.5 % over the whole table, of which these are eleven points


def test_leakage_of_the_published_chip() -> None:
    """Twelve layers of 65 ns against 5 ms: 1.56e-4 a token, which the authors round to 1.6e-4."""
    found = unit()
    rate = found.period(12) / found.cell.retention  # type: ignore[operator]
    assert rate == pytest.approx(1.56e-4)
    assert rate == pytest.approx(1.6e-4, rel=0.03)
    assert math.exp(-1.6e-4 * 1024) == pytest.approx(0.849, abs=5e-4)


@pytest.mark.parametrize("age", [1, 100, 1023])
def test_every_power_leaks_by_itself(age: int) -> None:
    cell = unit().cell
    volts = torch.linspace(0, 0.9, 8, dtype=torch.float64)
    decay = torch.tensor([[1.6e-4 * age]], dtype=torch.float64)
    found = sum(current if weight is None else current * weight[0, 0] for weight, current in terms(cell, volts, decay))
    left = (volts - 0.45) * math.exp(-1.6e-4 * age)
    assert torch.allclose(found, polynomial(BETA, left), rtol=1e-6, atol=1e-12)  # type: ignore[arg-type]


def test_leakage_to_ground() -> None:
    cell = unit(cell__leaks_to="ground").cell
    volts = torch.linspace(0, 0.9, 8, dtype=torch.float64)
    decay = torch.tensor([[0.3]], dtype=torch.float64)
    found = sum(current if weight is None else current * weight[0, 0] for weight, current in terms(cell, volts, decay))
    assert torch.allclose(found, polynomial(BETA, volts * math.exp(-0.3) - 0.45), rtol=1e-6, atol=1e-12)  # type: ignore[arg-type]


def test_a_leaking_table_follows_its_levels() -> None:
    cell = unit(cell__multiplier=TABLE).cell
    volts = torch.linspace(0, 0.9, 8, dtype=torch.float64)
    decay = torch.tensor([[0.3]], dtype=torch.float64)
    found = sum(current * weight[0, 0] for weight, current in terms(cell, volts, decay))  # type: ignore[index, operator]
    left = 0.45 + (volts - 0.45) * math.exp(-0.3)
    assert torch.allclose(found, interpolate(cell.multiplier, left), atol=1e-13)  # type: ignore[arg-type]


def test_shifting_a_polynomial() -> None:
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)
    assert torch.allclose(
        polynomial(shifted((1.0, -2.0, 3.0, 4.0), 0.7), x), polynomial((1.0, -2.0, 3.0, 4.0), x + 0.7)
    )


def test_charge_to_pulse_saturates_at_both_ends() -> None:
    sums = torch.tensor([-1e-6, 0.0, 40e-6, 79.9e-6, 80e-6, 200e-6], dtype=torch.float64)
    assert hard_sigmoid(sums, 80e-6).tolist() == pytest.approx([0, 0, 0.5, 0.99875, 1, 1])


def test_signed_readout_counts_a_sign_and_fifteen_steps() -> None:
    sums = torch.linspace(-60e-6, 60e-6, 12_001, dtype=torch.float64)
    codes = signed_readout(sums, 40e-6, 32) * 15
    assert torch.equal(codes, codes.round())
    assert codes.unique().tolist() == list(range(-15, 16))
    assert torch.equal(signed_readout(-sums, 40e-6, 32), -signed_readout(sums, 40e-6, 32))
    assert (signed_readout(sums, 40e-6, 32) - signed_readout(sums, 40e-6, None)).abs().max() <= 1 / 30 + 1e-12


@pytest.mark.parametrize(("levels", "top"), [(16, 1.0), (8, 0.9), (2, 0.9)])
def test_quantised_values_are_levels(levels: int, top: float) -> None:
    values = torch.linspace(-0.5, 1.5, 1001, dtype=torch.float64)
    found = quantise(values, levels, top)
    assert found.unique().tolist() == pytest.approx([top * i / (levels - 1) for i in range(levels)])
    assert (found - values.clamp(0, top)).abs().max() <= top / (levels - 1) / 2 + 1e-12


def test_quantisers_pass_gradients_inside_and_stop_them_outside() -> None:
    values = torch.tensor([-0.2, 0.3, 1.2], requires_grad=True)
    quantise(values, 16, 1.0).sum().backward()
    assert values.grad is not None
    assert values.grad.tolist() == [0.0, 1.0, 0.0]


def reference(q: np.ndarray, k: np.ndarray, v: np.ndarray, window: int, rate: float, levels: int | None) -> np.ndarray:
    """One head in numpy loops, from the paper's equations: [query, feature]."""
    tokens, size = q.shape
    total = np.zeros((tokens, v.shape[1]))
    for t in range(tokens):
        sums = np.zeros((-(-window // 64), v.shape[1]))
        for m in range(max(0, t - window + 1), t + 1):
            left = math.exp(-rate * (t - m))
            s = sum(q[t, d] * sum(b * ((k[m, d] - 0.45) * left) ** i for i, b in enumerate(BETA)) for d in range(size))
            pulse = min(max(s / 80e-6, 0.0), 1.0)
            y = (v[m] - 0.45) * left
            sums[m % window // 64] += pulse * sum(b * y**i for i, b in enumerate(BETA))
        clipped = np.clip(sums / 40e-6, -1, 1)
        codes = clipped if levels is None else np.sign(clipped) * np.floor(np.abs(clipped) * 15 + 0.5) / 15
        total[t] = codes.sum(axis=0)
    return total


def columns(length: int, window: int) -> Columns:
    time = torch.arange(length)
    age = time[:, None] - time
    return Columns(time % window, age, ((age >= 0) & (age < window))[None])


@pytest.mark.parametrize("levels", [None, 32])
@pytest.mark.parametrize(("length", "window", "rate"), [(64, 1024, 0.0), (100, 128, 2e-3), (90, 64, 2e-3)])
def test_attention_equals_an_independent_implementation(
    length: int, window: int, rate: float, levels: int | None
) -> None:
    generator = torch.Generator().manual_seed(length)
    q, k, v = (torch.rand(1, 1, length, 8, generator=generator, dtype=torch.float64) for _ in range(3))
    k, v = k * 0.9, v * 0.9
    found = attend(
        unit(window=window, pulses__output_levels=levels), q * 8, k, v, columns(length, window), rate=rate
    )  # pulses eight times too long fill the range of the scores with few features
    expected = reference(q[0, 0].numpy() * 8, k[0, 0].numpy(), v[0, 0].numpy(), window, rate, levels)
    assert np.abs(expected).max() > 0.5
    assert np.abs(found[0, 0].numpy() - expected).max() < 1e-6


def test_scores_equal_an_independent_implementation_in_single_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.rand(2, 3, 64, 64, generator=generator) for _ in range(2))
    found = scores(unit().cell, q, k * 0.9, None)
    y = k.double().numpy() * 0.9 - 0.45
    expected = np.einsum("bhtd,bhmd->bhtm", q.double().numpy(), sum(b * y**i for i, b in enumerate(BETA)))
    assert np.abs(found.numpy() - expected).max() / 80e-6 < 1e-5
    pulses = hard_sigmoid(found.double(), 80e-6)
    assert np.abs(pulses.numpy() - np.clip(expected / 80e-6, 0, 1)).max() < 1e-5


def gradients(cell: GainCell) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.rand(5, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    (scores(cell, q, k * 0.9, torch.full((5, 5), 0.1, dtype=torch.float64)) * 1e6).square().sum().sqrt().backward()
    assert q.grad is not None
    assert k.grad is not None
    return q.grad, k.grad


def test_gradient_is_the_straight_lines_unless_asked_otherwise() -> None:
    """Of scores: forward by the cubic, backward by slope times the leaked voltage."""
    generator = torch.Generator().manual_seed(1)
    q, k = (torch.rand(5, 4, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    decay = torch.full((5, 5), 0.1, dtype=torch.float64)
    found = scores(unit().cell, q, k, decay)
    with torch.no_grad():
        assert torch.allclose(found, scores(unit().cell, q, k, decay), rtol=1e-12)
    found.sum().backward()
    line = 19.3e-6 * math.exp(-0.1)
    assert torch.allclose(q.grad, (line * (k - 0.45)).sum(dim=0).expand(5, 4))  # type: ignore[arg-type]
    assert torch.allclose(k.grad, (line * q).sum(dim=0).expand(5, 4))  # type: ignore[arg-type]


def test_gradient_of_outputs_is_the_straight_lines() -> None:
    generator = torch.Generator().manual_seed(1)
    p, v = (torch.rand(5, 5, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    outputs(unit().cell, p, v, None).sum().backward()
    assert torch.allclose(p.grad, (19.3e-6 * (v - 0.45)).sum(dim=1).expand(5, 5))  # type: ignore[arg-type]


def test_exact_gradients_are_those_of_the_polynomial() -> None:
    generator = torch.Generator().manual_seed(2)
    k = (torch.rand(3, 4, generator=generator, dtype=torch.float64) * 0.9).requires_grad_()
    q = torch.rand(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    decay = torch.rand(2, 3, generator=generator, dtype=torch.float64)
    cell = unit(cell__multiplier__slope=None).cell
    assert torch.autograd.gradcheck(lambda a, b: scores(cell, a, b, decay) * 1e6, (q, k))
    assert not torch.allclose(gradients(cell)[1], gradients(unit().cell)[1])
