"""One entry for every read: the fast path where there is one, the reference where there is none. Same bits."""

import torch
from torch import Tensor

from cimphony.chip import InputCoding
from cimphony.circuits.cells import Cells
from cimphony.circuits.converter import input_digits
from cimphony.circuits.crossbar import corrections, reference_read
from cimphony.mapping import input_places


def read(inputs: Tensor, cells: Cells, coding: InputCoding, *, seed: int, first_token: int) -> Tensor:
    """The product [token, column] (float64) of input integers [token, row] with the cells, in weight units."""
    codes = reference_read(inputs, cells, coding, seed=seed, first_token=first_token)
    product = codes.to(torch.float64) * (cells.converter.step * 2.0**-cells.fraction_bits)
    exact = corrections(inputs, cells, coding)
    return product if exact is None else product + exact


def kernel_name(cells: Cells) -> str:
    """Which implementation `read` takes for these cells."""
    return "reference"


def largest_sum(inputs: Tensor, cells: Cells, coding: InputCoding, quantile: float) -> float:
    """Largest magnitude of a column sum, in levels, over calibration inputs (integers [token, row]).

    With `quantile` below 1 the value that this share of the sums stays under.
    """
    largest = 0.0
    for rows in cells.blocks:
        for j in range(len(input_places(coding))):
            digits = input_digits(inputs[:, rows], coding, j).to(torch.float64)
            for s in range(len(cells.slices)):
                sums = (digits @ cells.conductance[s, rows].to(torch.float64)).abs().flatten()
                if quantile < 1:
                    rank = max(1, min(sums.numel(), round(quantile * sums.numel())))
                    largest = max(largest, float(sums.kthvalue(rank).values))
                else:
                    largest = max(largest, float(sums.max()))
    return largest * 2.0**-cells.fraction_bits
