"""The published converter rule of HyFlexPIM, 6 bits for SLC and 7 for MLC at 64 rows: where it saturates.

ceil(log2 R) + w - 1 bits give 64 and 128 codes; 64 rows give 65 and 193 different sums. Inverting columns that are
more than half full (ISAAC) makes the rule right; HyFlexPIM does not mention it.
"""

import pytest
import torch

from cimphony.chip import Mode
from cimphony.circuits import read, write
from tests.conftest import unit

ALL_ONES = -1  # in two's complement every bit of the input is set


def reading(weights: torch.Tensor, inputs: torch.Tensor, mode: Mode, *, flip: bool) -> torch.Tensor:
    """Read [token, column] of weights [row, column] with the published converter."""
    name = "twos-complement-flipped" if flip else "twos-complement"
    crossbar = unit(encoding=name, cell_bits=1 if mode == "slc" else 2)
    adc = {"bits": {"slc": 6, "mlc": 7}, "range": "level"}
    crossbar = crossbar.model_validate({**crossbar.model_dump(), "adc": adc})
    cells = write(crossbar, mode, weights.double(), seed=0, name="layer", seconds=0.0, largest_sum=None)
    return read(inputs, cells, crossbar.input, seed=0, first_token=0)


@pytest.mark.parametrize(("rows", "saturates"), [(63, False), (64, True)])
def test_slc_saturates_only_where_all_64_cells_add(rows: int, saturates: bool) -> None:
    weights, inputs = torch.full((rows, 1), -1), torch.full((1, rows), ALL_ONES)
    exact = (inputs @ weights).double()
    assert torch.equal(reading(weights, inputs, "slc", flip=False), exact) is not saturates
    assert torch.equal(reading(weights, inputs, "slc", flip=True), exact)


@pytest.mark.parametrize("level_three_rows", [42, 43, 64])
def test_mlc_saturates_above_127(level_three_rows: int) -> None:
    """Rows of level 3 in every slice: 42 x 3 = 126 fits, 43 x 3 = 129 does not."""
    weights = torch.zeros(64, 1, dtype=torch.int64)
    weights[:level_three_rows] = 127  # digits 3, 3, 3 and a top digit of 1, stored as 3
    inputs = torch.full((1, 64), ALL_ONES)
    inputs[0, level_three_rows:] = 0
    exact = (inputs @ weights).double()
    assert torch.equal(reading(weights, inputs, "mlc", flip=False), exact) is (level_three_rows == 42)
    assert torch.equal(reading(weights, inputs, "mlc", flip=True), exact)


@pytest.mark.parametrize("mode", ["slc", "mlc"])
def test_flipped_columns_never_saturate(mode: Mode) -> None:
    generator = torch.Generator().manual_seed(0)
    for low, high in ((-127, 128), (90, 128), (-127, -100), (-3, 0)):
        weights = torch.randint(low, high, (128, 16), generator=generator)
        inputs = torch.randint(-128, 128, (32, 128), generator=generator)
        inputs[0] = ALL_ONES
        assert torch.equal(reading(weights, inputs, mode, flip=True), (inputs @ weights).double())


def test_how_often_random_weights_saturate() -> None:
    """Gaussian weights and inputs, the usual case: the published rule loses nothing."""
    generator = torch.Generator().manual_seed(0)
    weights = (torch.randn(256, 32, generator=generator) * 40).round().clamp(-127, 127).long()
    inputs = (torch.randn(64, 256, generator=generator) * 40).round().clamp(-127, 127).long()
    exact = (inputs @ weights).double()
    assert torch.equal(reading(weights, inputs, "slc", flip=False), exact)
    assert torch.equal(reading(weights, inputs, "mlc", flip=False), exact)
