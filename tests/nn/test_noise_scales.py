"""Noise scales: each means what it says, converts to the others, and a chip can have it."""

import math

import pytest
import torch
from torch import nn

import cimphony as cim
from cimphony.errors import DataError, StateError
from cimphony.nn.noise_scales import SCALES, WeightNoise, measured_noise, with_noise

ROWS, COLUMNS = 192, 128
UNQUANTISED = {"units.rram.encoding.bits": None, "units.rram.input.bits": None, "units.rram.adc": None}
HYBRID = cim.load_chip("hybrid-rram-sram")
CHIPS = {
    "one pair of cells, not quantised": HYBRID.replace(UNQUANTISED),
    "one pair of cells": HYBRID,
    "offset in two-bit cells": cim.load_chip("isaac").replace({"units.analog.encoding.bits": 8}),
    "two's complement in two modes": cim.load_chip("hyflexpim"),
    "two's complement in one-bit cells": HYBRID.replace(
        {"units.rram.encoding.weights": "twos_complement", "units.rram.cell.bits": 1}
    ),
}
FIVE = 5.0  # standard errors


def matrix() -> torch.Tensor:
    """[row, column], columns of unlike size."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(ROWS, COLUMNS, generator=generator) * torch.linspace(0.2, 1.0, COLUMNS)


def layer() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(ROWS, COLUMNS, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(matrix().T)
    return model


def held(chip: cim.Chip, seed: int = 0) -> torch.Tensor:
    model = cim.program_(cim.convert_(layer(), chip), seed=seed)
    return model[0].tiles[0].programmed.weights.double()


@pytest.mark.parametrize("name", CHIPS)
@pytest.mark.parametrize("scale", ["tensor_max", "channel_max", "multiplicative"])
def test_a_chip_has_the_noise_that_was_asked_for(name: str, scale: str) -> None:
    noise, chip = WeightNoise(0.05, scale), CHIPS[name]
    if scale == "multiplicative" and "pair" not in name:
        with pytest.raises(DataError, match="needs one pair of cells a weight"):
            with_noise(chip, noise)
        return
    error = held(with_noise(chip, noise)) - held(with_noise(chip, WeightNoise(0.0, scale)))
    spread = noise.spread(matrix())
    known = spread > spread.max() / 100  # relative to almost nothing says nothing: levels are whole numbers there
    standard = (error / spread)[known]
    largest = FIVE / math.sqrt(2 * standard.numel())
    assert float(standard.square().mean().sqrt()) == pytest.approx(
        1.0, abs=largest + (0.03 if "not" not in name else 0)
    )


def test_scales_are_what_the_table_says() -> None:
    weights = torch.tensor([[1.0, -4.0], [-2.0, 0.0]])
    spread = {scale: WeightNoise(0.1, scale).spread(weights) for scale in SCALES}
    assert torch.equal(spread["absolute"], torch.full((2, 2), 0.1, dtype=torch.float64))
    torch.testing.assert_close(spread["tensor_max"], torch.full((2, 2), 0.4, dtype=torch.float64))
    torch.testing.assert_close(spread["channel_max"], torch.tensor([[0.2, 0.4], [0.2, 0.4]], dtype=torch.float64))
    torch.testing.assert_close(spread["multiplicative"], torch.tensor([[0.1, 0.4], [0.2, 0.0]], dtype=torch.float64))
    assert str(WeightNoise(0.02)) == "sigma = 0.02 (tensor_max)"


@pytest.mark.parametrize("scale", SCALES)
def test_conversion_keeps_the_mean_square_and_comes_back(scale: str) -> None:
    noise, matrices = WeightNoise(0.03, scale), [matrix(), 3 * matrix()[:50]]
    for other in SCALES:
        found = noise.to(other, matrices)
        assert found.scale == other
        assert found.rms(matrices) == pytest.approx(noise.rms(matrices))
        assert found.to(scale, matrices).sigma == pytest.approx(0.03)


def test_what_the_cells_really_do_is_measured_in_every_scale() -> None:
    chip = with_noise(CHIPS["one pair of cells, not quantised"], WeightNoise(0.05, "tensor_max"))
    model = cim.program_(cim.convert_(layer(), chip), seed=1)
    found = measured_noise(model)
    assert found["tensor_max"].sigma == pytest.approx(0.05, rel=FIVE / math.sqrt(2 * ROWS * COLUMNS))
    assert all(one.rms([matrix()]) == pytest.approx(found["absolute"].sigma) for one in found.values())
    with pytest.raises(StateError, match="nothing is programmed"):
        measured_noise(cim.restore_(model))


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_divide_the_measured_noise_by_their_root(copies: int) -> None:
    chip = with_noise(CHIPS["one pair of cells, not quantised"], WeightNoise(0.05)).replace(
        {"redundancy": {"*": copies}}
    )
    found = measured_noise(cim.program_(cim.convert_(layer(), chip), seed=1))["tensor_max"].sigma
    assert found == pytest.approx(0.05 / math.sqrt(copies), rel=FIVE / math.sqrt(2 * ROWS * COLUMNS))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(DataError, match="scale = 'relative' is not known"):
        WeightNoise(0.1, "relative")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="sigma = nan"):
        WeightNoise(math.nan)
    with pytest.raises(DataError, match="absolute noise has no chip"):
        with_noise(HYBRID, WeightNoise(0.1, "absolute"))
    with pytest.raises(DataError, match="has no crossbar"):
        with_noise(cim.load_chip("gpu-h100"), WeightNoise(0.1))
    with pytest.raises(DataError, match="all zero"):
        WeightNoise(0.1).to("multiplicative", [torch.zeros(2, 2)])
