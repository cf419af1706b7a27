"""Staircases: soft ones are within half a step of the exact one, sharpen towards it, and have gradients."""

import pytest
import torch

import cimphony as cim
from cimphony.methods.bwma_activations import FORMS, SOFT, Staircase, soft_staircase


@pytest.mark.parametrize("form", SOFT)
@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6, 8])
@pytest.mark.parametrize("sharpness", [2.0, 8.0, 50.0])
def test_soft_is_within_half_a_step_of_the_exact_staircase(form: str, bits: int, sharpness: float) -> None:
    x, n = torch.linspace(0, 1, 2017, dtype=torch.float64), 2**bits - 1
    soft, hard = soft_staircase(x, n, form, sharpness), torch.floor(x * n + 0.5) / n
    assert float((soft - hard).abs().max()) <= 1 / (2 * n) + 1e-12
    assert bool((soft.diff() >= -1e-12).all())


@pytest.mark.parametrize("form", ["tanh", "sigmoid"])
def test_sharpening_closes_the_gap_away_from_the_steps(form: str) -> None:
    x, n = torch.linspace(0, 1, 2017, dtype=torch.float64), 7
    away = ((x * n - 0.5) - (x * n - 0.5).round()).abs() > 0.1
    hard = torch.floor(x * n + 0.5) / n
    gaps = [float((soft_staircase(x, n, form, s) - hard)[away].abs().max()) * 2 * n for s in (4.0, 16.0, 64.0)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01


def test_sigmoids_inside_the_range_are_the_published_sum() -> None:
    x, n, sharpness = torch.linspace(0.3, 0.7, 401, dtype=torch.float64), 31, 6.0
    published = torch.sigmoid(sharpness * (x[:, None] * n - torch.arange(n) - 0.5)).sum(dim=1) / n
    torch.testing.assert_close(soft_staircase(x, n, "sigmoid", sharpness), published, rtol=0, atol=1e-9)


@pytest.mark.parametrize("form", FORMS)
def test_evaluation_is_the_exact_staircase(form: str) -> None:
    stair = Staircase(3, form, clip=1.4).eval()
    x = torch.tensor([-1.0, 0.0, 0.0999, 0.1001, 0.29, 0.31, 1.4, 9.0])
    assert stair.codes(x).tolist() == [0, 0, 0, 1, 1, 2, 7, 7]
    torch.testing.assert_close(stair(x), stair.codes(x) * 0.2)


@pytest.mark.parametrize("form", FORMS)
def test_training_has_gradients_inside_and_none_outside(form: str) -> None:
    stair = Staircase(2, form, clip=1.5).train()
    x = torch.tensor([-0.5, 0.3, 0.7, 1.2, 2.5], requires_grad=True)
    stair(x).sum().backward()
    assert x.grad is not None
    inside = x.grad[1:4]
    assert bool((inside > 0).all())
    assert x.grad[0] == x.grad[4] == 0
    if form in ("pact", "lsq"):
        assert stair.clip.grad is not None
        assert float(stair.clip.grad) != 0


@pytest.mark.parametrize("form", ["dorefa", "pact", "lsq"])
def test_baselines_step_hard_in_training(form: str) -> None:
    stair, x = Staircase(2, form, clip=1.5), torch.linspace(-1, 3, 41)
    torch.testing.assert_close(stair.train()(x), stair.eval()(x))


def test_gradients_of_pact_and_lsq_by_hand() -> None:
    x = torch.tensor([0.3, 0.9, 4.0])
    pact = Staircase(2, "pact", clip=1.5)
    pact(x).sum().backward()
    assert float(pact.clip.grad) == 1.0  # one value was cut off
    lsq = Staircase(2, "lsq", clip=1.5)  # step 0.5: x / step is 0.6, 1.8, clipped
    lsq(x).sum().backward()
    by_step = ((1 - 0.6) + (2 - 1.8) + 3) / (3 * 3) ** 0.5  # rounding error inside, n outside, the published scale
    assert float(lsq.clip.grad) == pytest.approx(by_step / 3, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits": 0}, "bits = 0 is not allowed: activations have 1 to 8 bits"),
        ({"bits": True}, "bits = True is not allowed"),
        ({"form": "round"}, "form = 'round' is unknown; choose one of tanh"),
        ({"clip": 0.0}, "clip must be above 0"),
        ({"sharpness": 1.0}, "sharpness at least 2"),
    ],
)
def test_errors(settings: dict, message: str) -> None:
    with pytest.raises(cim.DataError, match=message):
        Staircase(**settings)
