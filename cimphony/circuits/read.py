"""One entry for every read: the fast path where there is one, the reference where there is none. Same bits."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from cimphony import native
from cimphony.chip import InputCoding
from cimphony.circuits.cells import READ_SD_BITS, Cells
from cimphony.circuits.converter import input_digits
from cimphony.circuits.crossbar import corrections, reference_read
from cimphony.circuits.uncompiled import uncompiled
from cimphony.kernels import collapse, direct, ops, tables
from cimphony.kernels.packed import INT32, PackedCells, pack
from cimphony.mapping import input_places, input_top
from cimphony.random import NORMAL_BITS, Stream

Kernel = Literal["collapsed", "tables", "direct", "planes", "reference"]


@dataclass(frozen=True)
class _Run:
    """Row blocks whose totals 32 bits hold."""

    first_row: int
    cells: PackedCells
    code: tables.Code | None  # None: read directly
    places: tuple[int, ...]  # of the input digits


@dataclass(frozen=True)
class _Plan:
    """How a read of these cells goes: some columns collapsed to a product, the others converted."""

    product: collapse.Product | None
    proven: Tensor | None  # columns of the product, bool; None: all or none
    runs: tuple[_Run, ...]
    variance: Tensor | int | None
    kernel: Kernel
    planes: Any = None  # cells as the GPU kernel reads them


def read(inputs: Tensor, cells: Cells, coding: InputCoding, *, seed: int, first_token: int) -> Tensor:
    """The product [token, column] (float64) of input integers [token, row] with the cells, in weight units."""
    coding = _with_sign(coding)
    codes = read_codes(inputs, cells, coding, seed=seed, first_token=first_token)
    product = codes.to(torch.float64) * (cells.converter.step * 2.0**-cells.fraction_bits)
    if cells.gain != 1:
        product /= cells.gain
    exact = corrections(inputs, cells, coding)
    return product if exact is None else product + exact


def _with_sign(coding: InputCoding) -> InputCoding:
    """A sign bit that is 0 reads nothing and adds nothing."""
    if coding.signed or coding.bits is None:
        return coding
    return coding.model_copy(update={"bits": coding.bits + 1, "signed": True})


@dataclass(frozen=True)
class _Laid:
    """Conductances that are kept only as the reads hold them."""

    runs: tuple[PackedCells, ...]
    order: Tensor | None  # columns as laid out; None: as they are
    columns: int

    def __call__(self) -> Tensor:
        """int16 [slice, row, column]."""
        whole = torch.cat([run.unpack(self.columns) for run in self.runs], dim=1)
        return whole if self.order is None else whole[:, :, self.order.argsort()]


def compact(cells: Cells, coding: InputCoding) -> Cells:
    """The same cells in half the memory: as the fast read of these inputs holds them, and no other way."""
    coding = _with_sign(coding)
    plan = _plan(cells, coding)
    if plan.kernel in ("reference", "planes"):
        return cells
    runs = tuple(run.cells for run in plan.runs)
    if not runs:  # all columns collapsed; what they hold is still asked for
        runs = (pack(cells.conductance, [], cells.rows_per_block),)
    lean = replace(cells, held=_Laid(runs, _order(plan.proven), cells.shape[2]))
    lean.memo.update(cells.memo)
    return lean


def _order(proven: Tensor | None) -> Tensor | None:
    """Converted columns first, then those of the product."""
    return None if proven is None else torch.cat([(~proven).nonzero(), proven.nonzero()]).flatten()


def read_codes(inputs: Tensor, cells: Cells, coding: InputCoding, *, seed: int = 0, first_token: int = 0) -> Tensor:
    """What `reference_read` returns, by the fastest way that gives the same bits; integers [token, column]."""
    plan = _plan(cells, coding)
    if plan.kernel == "reference" or inputs.shape[0] == 0:
        return reference_read(inputs, cells, coding, seed=seed, first_token=first_token)
    if plan.kernel == "planes":
        return plan.planes.read(inputs, cells.rows_per_block, cells.converter, _bits(coding))
    if not plan.runs:
        assert plan.product is not None
        return collapse.multiply(inputs, plan.product, _bits(coding))
    codes = _converted(inputs, cells, coding, plan, seed, first_token)
    if plan.product is None or plan.proven is None:
        return codes
    total = torch.empty(inputs.shape[0], cells.shape[2], dtype=torch.int64)
    total[:, plan.proven] = collapse.multiply(inputs, plan.product, _bits(coding)).to(torch.int64)
    total[:, ~plan.proven] = codes.to(torch.int64)
    return total


def _bits(coding: InputCoding) -> int:
    assert coding.bits is not None
    return coding.bits


def kernel_name(cells: Cells, coding: InputCoding | None = None) -> Kernel:
    """Which implementation `read` takes for these cells, with 8-bit serial inputs unless told."""
    return _plan(cells, _with_sign(coding or InputCoding.model_validate({}))).kernel


def _plan(cells: Cells, coding: InputCoding) -> _Plan:
    """Made once for programmed cells."""
    key = f"{coding.coding} {coding.bits} {coding.slice_bits}"
    if key not in cells.memo:
        cells.memo[key] = _make_plan(cells, coding)
    return cells.memo[key]


def _make_plan(cells: Cells, coding: InputCoding) -> _Plan:
    reference = _Plan(None, None, (), None, "reference")
    if cells.device.type == "cuda":
        return _plan_planes(cells, coding) or reference
    if cells.device.type != "cpu" or native.library() is None:
        return reference
    conductance, factor, flipped, product = cells.conductance, _factors(cells), cells.flipped, None
    proven = _proven(cells, conductance, coding)
    if cells.converter.low is None and cells.read_variance is None:  # every sum passes unchanged
        product = collapse.fold(conductance, factor, cells.rows_per_block, 0)
        return _Plan(product, None, (), None, "collapsed")
    if proven is not None and proven.sum() * _WORTH_SPLITTING > proven.numel():
        shape = (cells.rows_per_block, cells.fraction_bits)
        product = collapse.fold(conductance[:, :, proven], factor[:, :, proven], *shape)
        if proven.all():
            return _Plan(product, None, (), None, "collapsed")
    else:
        proven = None
    order, variance = _order(proven), _variance(cells)
    if order is not None:
        conductance, flipped = conductance[:, :, order], None if flipped is None else flipped[:, :, order]
    count = cells.shape[2] if proven is None else int((~proven).sum())
    runs = _runs(cells, coding, conductance, flipped, count, variance)
    if runs is None:
        return reference
    return _Plan(product, proven, runs, variance, "direct" if runs[0].code is None else "tables")


def _plan_planes(cells: Cells, coding: InputCoding) -> _Plan | None:
    """The GPU kernel for all columns, where Triton is installed and 32 bits hold the totals."""
    one = cells.converter
    if coding.coding != "bit_serial" or cells.read_variance is not None or one.low is None or one.high is None:
        return None
    try:
        from cimphony.kernels import planes
    except ImportError:
        return None
    places = sum(abs(s.place) for s in cells.slices) * sum(abs(place) for place in input_places(coding))
    conductance = cells.conductance
    fits = len(cells.blocks) * places * max(abs(one.low), one.high) <= INT32
    if not fits or not planes.applies(conductance, cells.rows_per_block, one.multiplier, one.shift):
        return None
    gpu = planes.Cells(conductance.half(), _factors(cells).to(torch.int32).contiguous())
    return _Plan(None, None, (), None, "planes", gpu)


_WORTH_SPLITTING = 4  # columns are split between product and conversion from a quarter of them proven


def _proven(cells: Cells, conductance: Tensor, coding: InputCoding) -> Tensor | None:
    """Columns whose read is provably one integer product."""
    one = cells.converter
    if cells.read_variance is not None or (one.multiplier, one.shift) != (1, cells.fraction_bits):
        return None
    if one.low is None or one.high is None:
        return None
    signed = coding.coding != "bit_serial"
    shape = (cells.rows_per_block, cells.fraction_bits, input_top(coding))
    return collapse.provable(conductance, *shape, one.low, one.high, signed)


def _places(cells: Cells) -> list[int]:
    return [one.place * (one.polarity or 1) for one in cells.slices]


def _factors(cells: Cells) -> Tensor:
    """Place values of slices with all their signs, int32 [slice, block, column]."""
    places = torch.tensor(_places(cells), dtype=torch.int32, device=cells.device)
    factor = places.view(-1, 1, 1).expand(-1, len(cells.blocks), cells.shape[2])
    return factor if cells.flipped is None else torch.where(cells.flipped, -factor, factor)


def _variance(cells: Cells) -> Tensor | int | None:
    """One number where every cell has the same."""
    if cells.read_variance is None:
        return None
    first = int(cells.read_variance[0, 0, 0])
    return first if bool((cells.read_variance == first).all()) else cells.read_variance


def _runs(
    cells: Cells,
    coding: InputCoding,
    conductance: Tensor,
    flipped: Tensor | None,
    count: int,
    variance: Tensor | int | None,
) -> tuple[_Run, ...] | None:
    """The first `count` columns in runs of row blocks short enough for totals of 32 bits.

    None where no compiled read applies.
    """
    one, step = cells.converter, cells.rows_per_block
    if one.low is None or one.high is None:
        return None
    places = sum(abs(s.place) for s in cells.slices) * sum(abs(place) for place in input_places(coding))
    blocks = INT32 // (places * max(abs(one.low), one.high))
    if blocks == 0:
        return None
    runs = []
    for first in range(0, len(cells.blocks), blocks):
        rows = slice(first * step, (first + blocks) * step)
        inverted = None if flipped is None else flipped[:, first : first + blocks]
        packed = pack(conductance[:, rows], _places(cells), step, inverted).first(count)
        code = tables.conversion(packed, one.multiplier, one.shift, one.low, one.high)
        if coding.coding != "bit_serial" or variance is not None:
            code = None
        if code is None and not direct.applies(packed, input_top(coding), variance):
            return None
        runs.append(_Run(first * step, packed, code, input_places(coding)))
    return tuple(runs)


def _converted(inputs: Tensor, cells: Cells, coding: InputCoding, plan: _Plan, seed: int, first_token: int) -> Tensor:
    """Codes of the columns that are converted, int32, or int64 where there is more than one run."""
    totals = [_read_run(inputs, cells, coding, plan, run, seed, first_token) for run in plan.runs]
    return totals[0] if len(totals) == 1 else torch.stack(totals).sum(dim=0)


def _read_run(
    inputs: Tensor, cells: Cells, coding: InputCoding, plan: _Plan, run: _Run, seed: int, first_token: int
) -> Tensor:
    one = cells.converter
    assert one.low is not None
    assert one.high is not None
    part = inputs[:, run.first_row : run.first_row + run.cells.rows]
    if run.code is not None:
        return ops.read_tables(part, run.cells, run.code, _bits(coding))
    digits = torch.stack([input_digits(part, coding, j).to(torch.int16) for j in range(len(run.places))], dim=1)
    return ops.read_direct(
        digits,
        run.places,
        run.cells,
        gain=one.multiplier * 2.0**-one.shift,
        low=one.low,
        high=one.high,
        noise=_noise(cells, coding, plan, run, seed, first_token),  # pyright: ignore[reportCallIssue]
    )


@uncompiled  # hashes strings
def _noise(
    cells: Cells, coding: InputCoding, plan: _Plan, run: _Run, seed: int, first_token: int
) -> direct.ReadNoise | None:
    if plan.variance is None:
        return None
    first, rows = run.first_row // cells.rows_per_block, slice(run.first_row, run.first_row + run.cells.rows)
    reads = (len(run.cells.block_rows), len(input_places(coding)), len(cells.slices))
    start = first * reads[1] * reads[2]
    keys = [Stream(seed, cells.stream, f"read {start + i}").key for i in range(reads[0] * reads[1] * reads[2])]
    variance = plan.variance if isinstance(plan.variance, int) else plan.variance[:, rows]
    as_int32 = torch.tensor(keys, dtype=torch.int64).to(torch.int32)
    scale = 2.0 ** -(READ_SD_BITS + NORMAL_BITS)
    return direct.ReadNoise(variance, as_int32.view(*reads, 2), first_token, scale)


def largest_sum(inputs: Tensor, cells: Cells, coding: InputCoding, quantile: float) -> float:
    """Largest magnitude of a column sum, in levels, over calibration inputs (integers [token, row]).

    With `quantile` below 1 the value that this share of the sums stays under.
    """
    largest, conductance = 0.0, cells.conductance
    for rows in cells.blocks:
        for j in range(len(input_places(coding))):
            digits = input_digits(inputs[:, rows], coding, j).to(torch.float64)
            for s in range(len(cells.slices)):
                sums = (digits @ conductance[s, rows].to(torch.float64)).abs().flatten()
                if quantile < 1:
                    rank = max(1, min(sums.numel(), round(quantile * sums.numel())))
                    largest = max(largest, float(sums.kthvalue(rank).values))
                else:
                    largest = max(largest, float(sums.max()))
    return largest * 2.0**-cells.fraction_bits
