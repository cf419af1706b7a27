"""QuadINR: the activation is its definition and its Fourier series; networks learn; hardware changes little."""

import math

import numpy as np
import pytest
import torch

import cimphony as cim
from cimphony import hardware
from cimphony.methods import quad_inr as qi


def picture(size: int = 24) -> torch.Tensor:
    """A disc on a slope, with a texture."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, size), torch.linspace(-1, 1, size), indexing="ij")
    return ((x * x + y * y < 0.5).float() * 0.4 + 0.2 + 0.1 * x + 0.1 * torch.sin(9 * x * y))[..., None]


def test_activation_is_its_definition() -> None:
    x = torch.linspace(-2, 2, 4001, dtype=torch.float64)[1:-1]
    piecewise = torch.where(x <= 0, x * x + 2 * x, -x * x + 2 * x)
    torch.testing.assert_close(qi.quad(x), piecewise, rtol=0, atol=1e-15)
    for periods in (-3, 1, 7):
        torch.testing.assert_close(qi.quad(x + 4 * periods), piecewise, rtol=0, atol=1e-13)


def test_slope_is_the_definitions() -> None:
    x = torch.tensor([-1.5, -0.25, 0.0, 0.5, 1.75, 5.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(qi.quad(x).sum(), x)
    assert slope.tolist() == [-1.0, 1.5, 2.0, 1.0, -1.5, 0.0]


@pytest.mark.parametrize("n", range(1, 8))
def test_fourier_coefficients(n: int) -> None:
    count = 4096
    x = (torch.arange(count, dtype=torch.float64) + 0.5) * 4 / count - 2
    found = float((qi.quad(x) * torch.sin(n * math.pi / 2 * x)).mean() * 2)
    assert found == pytest.approx(32 / (math.pi * n) ** 3 if n % 2 else 0, abs=1e-6)


@pytest.mark.parametrize("kind", qi.KINDS)
def test_every_kind_learns_a_picture(kind: str) -> None:
    signal = picture()
    flat = qi.psnr(signal.mean().expand_as(signal), signal)
    rate = 5e-3 if kind in ("gauss", "wire", "sinc", "relu_pe") else 2e-3
    result = qi.fit(qi.Inr(kind, width=24), signal, steps=60, rate=rate, every=20)
    assert list(result.psnr) == [20, 40, 60]
    assert result.best > flat + 1
    assert result.picture is not None
    assert result.picture.shape == signal.shape
    assert qi.psnr(result.picture, signal) == pytest.approx(result.psnr[60])


def test_a_video_has_three_axes() -> None:
    video = torch.stack([picture(8), picture(8).flip(0), picture(8)])
    result = qi.fit(qi.Inr("quad", axes=3, width=16), video, steps=20, rate=2e-3)
    assert result.picture is not None
    assert result.picture.shape == (3, 8, 8, 1)
    assert qi.grid(3, 8, 8).shape == (192, 3)


def test_a_seed_is_a_network_and_global_state_is_untouched() -> None:
    before = torch.random.get_rng_state()
    one, same, other = (qi.Inr("quad", seed=seed)(qi.grid(5, 5)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_tangent_kernel_of_one_neuron_by_hand() -> None:
    """f(x) = v phi(omega (w x + b)) + c: K = h h' + v^2 omega^2 (x x' + 1) phi' phi' + 1."""
    network, x = qi.Inr("quad", axes=1, width=1, hidden=0, omega=3.0), qi.grid(6)
    first, last = network.layers
    z = (3.0 * (x * first.weight + first.bias)).detach().double().requires_grad_()
    h = qi.quad(z)
    (slope,) = torch.autograd.grad(h.sum(), z)
    weight = float(last.weight.detach())
    kernel = h @ h.T + weight**2 * 9 * (x.double() @ x.double().T + 1) * (slope @ slope.T) + 1
    eigenvalues = torch.linalg.eigvalsh(kernel.detach()).flip(0)
    found = qi.tangent_spectrum(network, x)
    torch.testing.assert_close(found.eigenvalues, eigenvalues / eigenvalues[0], rtol=1e-4, atol=1e-6)


def test_spectrum_decays_more_slowly_than_sirens() -> None:
    """The paper's claim; and most of it is the gain, for the matched sine is close."""
    ranks = {
        kind: np.mean([qi.tangent_spectrum(qi.Inr(kind, 1, width=32, hidden=1, seed=s), qi.grid(64)).effective_rank
                       for s in range(3)])
        for kind in ("siren", "sine_matched", "quad")
    }  # fmt: skip
    assert ranks["quad"] > 1.3 * ranks["siren"]
    assert ranks["sine_matched"] == pytest.approx(ranks["quad"], rel=0.15)


def test_fixed_point_activation_is_close_in_a_network() -> None:
    network, points = qi.Inr("quad", width=24), qi.grid(20, 20)
    exact = network(points).detach()
    network.activation = qi.fixed_point(hardware.quad())
    fixed = network(points).detach()
    assert 0 < float((fixed - exact).abs().max()) < 0.02
    z = torch.linspace(-9, 9, 101, dtype=torch.float64)  # wraps beyond +-4
    assert (
        float((network.activation(z) - qi.quad(z)).abs().max()) < 2**-15 + 2 * 2**-14 + 1e-9
    )  # + slope x input's half unit


def test_errors() -> None:
    with pytest.raises(cim.DataError, match="kind = 'sin' is unknown; choose one of relu_pe, siren"):
        qi.Inr("sin")
    with pytest.raises(cim.DataError, match="values must be 0 to 1"):
        qi.fit(qi.Inr("quad"), torch.full((4, 4, 1), 2.0))
    assert qi.psnr(torch.ones(3), torch.ones(3)) == math.inf
