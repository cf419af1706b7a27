"""One entry for every read: the fast path where there is one, the reference where there is none. Same bits."""

import torch
from torch import Tensor

from cimphony.chip import InputCoding
from cimphony.circuits.cells import Cells
from cimphony.circuits.converter import input_digits
from cimphony.circuits.crossbar import corrections, reference_read
from cimphony.kernels import tables
from cimphony.mapping import input_places

_MOST_INPUT_BITS = 8  # that 32-bit totals are sized for


def read(inputs: Tensor, cells: Cells, coding: InputCoding, *, seed: int, first_token: int) -> Tensor:
    """The product [token, column] (float64) of input integers [token, row] with the cells, in weight units."""
    packed = _packed(cells, coding)
    if packed is None:
        codes = reference_read(inputs, cells, coding, seed=seed, first_token=first_token)
    else:
        codes = _read_tables(inputs, packed, coding)
    product = codes.to(torch.float64) * (cells.converter.step * 2.0**-cells.fraction_bits)
    exact = corrections(inputs, cells, coding)
    return product if exact is None else product + exact


def kernel_name(cells: Cells) -> str:
    """Which implementation `read` takes for these cells with bit-serial inputs."""
    return "reference" if _layout(cells) is None else "tables"


def _packed(cells: Cells, coding: InputCoding) -> list[tables.PackedCells] | None:
    """The cells laid out for the table kernel; None where it does not apply."""
    if coding.coding != "bit_serial" or cells.read_variance is not None or cells.conductance.device.type != "cpu":
        return None
    return _layout(cells)


def _layout(cells: Cells) -> list[tables.PackedCells] | None:
    """Made once for programmed cells."""
    if "tables" not in cells.memo:
        cells.memo["tables"] = _pack(cells)
    return cells.memo["tables"]


def _pack(cells: Cells) -> list[tables.PackedCells] | None:
    """Runs of row blocks short enough for totals of 32 bits."""
    one = cells.converter
    if one.low is None or one.high is None:
        return None
    places = sum(abs(s.place) for s in cells.slices)
    run = max(1, 2**31 // (places * max(abs(one.low), one.high) << (_MOST_INPUT_BITS - 1))) * cells.rows_per_block
    parts = []
    factor = _factors(cells)
    for low in range(0, cells.conductance.shape[1], run):
        first = low // cells.rows_per_block
        part = tables.pack(
            cells.conductance[:, low : low + run],
            factor[:, first : first + run // cells.rows_per_block],
            cells.rows_per_block,
            multiplier=one.multiplier,
            shift=one.shift,
            low=one.low,
            high=one.high,
        )
        if part is None:
            return None
        parts.append(part)
    return parts


def _factors(cells: Cells) -> Tensor:
    """Place values of slices with their signs, int32 [slice, block, column]."""
    places = torch.tensor([one.place * (one.polarity or 1) for one in cells.slices], dtype=torch.int32)
    columns = cells.conductance.shape[2]
    factor = places.view(-1, 1, 1).expand(-1, len(cells.blocks), columns)
    return factor if cells.flipped is None else torch.where(cells.flipped, -factor, factor)


def _read_tables(inputs: Tensor, parts: list[tables.PackedCells], coding: InputCoding) -> Tensor:
    assert coding.bits is not None
    if len(parts) == 1:
        return tables.read(inputs, parts[0], coding.bits)
    total, low = torch.zeros(inputs.shape[0], parts[0].columns, dtype=torch.int64), 0
    for part in parts:
        total += tables.read(inputs[:, low : low + part.rows], part, coding.bits)
        low += part.rows
    return total


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
