"""Laws 1 and 2: ideal devices and converters equal the digital product, whatever the tiling."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import cimphony as cim
from cimphony.circuits import read, write
from tests.conftest import CELL_BITS, CODINGS, ENCODINGS, integers, unit


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("cell_bits", CELL_BITS)
def test_integers_are_exact(encoding: str, coding: str, cell_bits: int) -> None:
    weights, inputs = integers(150, 9).double(), integers(4, 150, seed=1)
    crossbar = unit(encoding=encoding, coding=coding, cell_bits=cell_bits)
    mode = next(iter(crossbar.cell.bits))
    cells = write(crossbar, mode, weights, seed=0, name="layer", seconds=0.0, largest_sum=None)
    assert torch.equal(cells.weights(), weights)
    outputs = read(inputs, cells, crossbar.input, seed=0, first_token=0)
    assert torch.equal(outputs, inputs.double() @ weights)


@pytest.mark.parametrize("rows_in_array", [1, 7, 64, 128, 1024])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 1000])
@pytest.mark.parametrize("encoding", ["offset-flipped", "differential"])
def test_tiling_is_invisible(encoding: str, rows: int, rows_in_array: int) -> None:
    weights, inputs = integers(rows, 5).double(), integers(3, rows, seed=1)
    crossbar = unit(encoding=encoding, rows=rows_in_array)
    cells = write(crossbar, "mlc", weights, seed=0, name="layer", seconds=0.0, largest_sum=None)
    assert torch.equal(read(inputs, cells, crossbar.input, seed=0, first_token=0), inputs.double() @ weights)


@pytest.mark.parametrize("shape", [(1, 1), (63, 10), (1000, 33)])
def test_ideal_chip_is_the_digital_layer(shape: tuple[int, int]) -> None:
    layer = nn.Linear(*shape).double()
    inputs = torch.randn(6, shape[0], dtype=torch.float64)
    digital = F.linear(inputs, layer.weight, layer.bias)
    model = nn.Sequential(layer)
    cim.convert_(model, cim.load_chip("ideal"))
    cim.program_(model)
    torch.testing.assert_close(model(inputs), digital, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("settings", [{"stride": 2, "padding": 1}, {"dilation": 2}, {"padding": "same"}])
def test_ideal_chip_is_the_digital_convolution(groups: int, settings: dict) -> None:
    layer = nn.Conv2d(4, 6, 3, groups=groups, padding_mode="zeros", **settings).double()
    inputs = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    digital = layer(inputs)
    model = nn.Sequential(layer)
    cim.convert_(model, cim.load_chip("ideal"))
    cim.program_(model)
    torch.testing.assert_close(model(inputs), digital, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model(inputs[0]), digital[0], rtol=1e-12, atol=1e-12)


def test_ideal_chip_on_integer_inputs_is_exact() -> None:
    """Whole numbers in, whole numbers out: on an 8-bit chip without noise or converter, the integer product."""
    layer = nn.Linear(200, 12, bias=False).double()
    layer.weight.data = integers(12, 200).double()
    layer.weight.data[:, 0] = 127.0  # the largest magnitude is on the grid, so is every weight
    inputs = integers(5, 200, seed=1).double()
    inputs[:, 0] = 127.0
    chip = cim.load_chip("hyflexpim").replace(
        {"units.analog.adc": None, "units.analog.cell": {"bits": 2, "device": {"kind": "ideal"}}}
    )
    model = nn.Sequential(layer)
    cim.convert_(model, chip)
    cim.program_(model)
    assert torch.equal(model(inputs), inputs @ layer.weight.T)
