"""Closed forms: the optimum is what brute force finds, and each rule keeps its promise."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import cimphony as cim
from cimphony.methods.bwma_weights import RULES, binarise, two_means

NUMBERS = st.lists(st.floats(-3, 3, width=32), min_size=2, max_size=10)


def brute_force(weights: torch.Tensor, shift: bool) -> float:
    """Least squared error over all sign patterns; alpha (and beta) are the best for each pattern."""
    best = math.inf
    for pattern in itertools.product((-1.0, 1.0), repeat=len(weights)):
        signs = torch.tensor(pattern, dtype=torch.float64)
        columns = torch.stack([signs, torch.ones_like(signs)], dim=1) if shift else signs[:, None]
        fitted = columns @ torch.linalg.lstsq(columns, weights[:, None], driver="gelsd").solution
        best = min(best, float((weights - fitted[:, 0]).square().mean()))
    return best


@settings(max_examples=12, deadline=None)
@given(NUMBERS)
def test_two_means_and_mean_equal_brute_force(numbers: list[float]) -> None:
    weights = torch.tensor(numbers, dtype=torch.float64)
    for rule, shift in (("two_means", True), ("mean", False)):
        found = float(binarise(weights[None], rule).error(weights[None]))
        assert found == pytest.approx(brute_force(weights, shift), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=60), st.sampled_from(RULES))
def test_two_means_is_never_worse(numbers: list[float], rule: str) -> None:
    weights = torch.tensor([numbers], dtype=torch.float64)
    best, other = (binarise(weights, one).error(weights) for one in ("two_means", rule))
    assert float(best) <= float(other) + 1e-9


@pytest.mark.parametrize("rule", ["mean", "two_means", "gaussian", "laplace", "entropy"])
def test_scaling_scales_and_a_shift_shifts(rule: str) -> None:
    weights = torch.randn(3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, scaled, shifted = (binarise(one, rule) for one in (weights, 2.5 * weights, weights + 7))
    torch.testing.assert_close(scaled.weight(), 2.5 * plain.weight())
    if rule in ("two_means", "gaussian", "laplace"):
        torch.testing.assert_close(shifted.weight(), plain.weight() + 7)


def test_closed_forms_of_the_distributions() -> None:
    """On a million quantiles of each distribution its own closed form is the optimum, and errors are as derived."""
    p = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000
    normal = math.sqrt(2) * torch.erfinv(2 * p - 1)
    laplace = -(p - 0.5).sign() * torch.log(1 - 2 * (p - 0.5).abs())
    for values, rule, alpha, residual in (
        (normal, "gaussian", math.sqrt(2 / math.pi), 1 - 2 / math.pi),
        (laplace, "laplace", 1.0, 1.0),
    ):
        row = (2 + 3 * values)[None]
        closed, exact = binarise(row, rule), binarise(row, "two_means")
        assert float(closed.alpha) == pytest.approx(3 * alpha, rel=1e-3)
        assert float(closed.beta) == pytest.approx(2, abs=1e-9)
        assert float(exact.alpha) == pytest.approx(float(closed.alpha), rel=2e-3)
        assert float(closed.error(row)) == pytest.approx(9 * residual, rel=2e-3)


def test_entropy_balances_signs_and_shifts_by_a_power_of_two() -> None:
    weights = 0.3 + torch.randn(1, 4001, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = binarise(weights, "entropy")
    assert abs(float(found.sign.mean())) < 0.05
    exponent = math.log2(float(found.alpha) / float(weights.std(correction=0)))
    assert exponent == pytest.approx(round(exponent))


def test_a_layer_shares_what_channels_have_of_their_own() -> None:
    weights = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2))
    layer, channel = binarise(weights, grain="layer"), binarise(weights, grain="channel")
    assert len(set(layer.alpha.tolist())) == 1
    assert len(set(channel.alpha.tolist())) == 4
    assert float(channel.error(weights).mean()) <= float(layer.error(weights).mean())
    assert layer.weight().shape == weights.shape
    torch.testing.assert_close(
        channel.weight(), channel.sign * channel.alpha.view(-1, 1, 1, 1) + channel.beta.view(-1, 1, 1, 1)
    )


@pytest.mark.parametrize("rule", RULES)
def test_constant_single_and_zero_weights(rule: str) -> None:
    for weights in (torch.full((1, 5), 0.25), torch.tensor([[0.5]]), torch.zeros(2, 3)):
        found = binarise(weights, rule)
        assert torch.isfinite(found.weight()).all()
        assert set(found.sign.flatten().tolist()) <= {-1.0, 1.0}
        if rule in ("two_means", "mean"):
            torch.testing.assert_close(found.weight(), weights)


def test_equal_weights_are_never_split() -> None:
    threshold, *_ = two_means(torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0, 5.0]], dtype=torch.float64))
    assert float(threshold) == 3.0


def test_errors() -> None:
    with pytest.raises(cim.DataError, match="rule = 'best' is unknown; choose one of sign, mean"):
        binarise(torch.ones(1, 2), "best")  # type: ignore[arg-type]
    with pytest.raises(cim.DataError, match="grain = 'row' is unknown; choose layer or channel"):
        binarise(torch.ones(1, 2), "mean", "row")  # type: ignore[arg-type]
    with pytest.raises(cim.DataError, match="NaN or Inf"):
        binarise(torch.tensor([[float("nan"), 1]]))
