"""How weights become cells: bit slices, cell modes, tiles, placement on a chip. Torch-free; both towers read it."""

import math
from dataclasses import dataclass, field
from functools import cache

from cimphony.chip import Chip, CrossbarUnit, Encoding, InputCoding, Mode
from cimphony.errors import CapacityError
from cimphony.workload import Operation, Workload


@dataclass(frozen=True)
class Slice:
    """One bit slice of the weights: a column of cells for every output.

    A cell holds level = digit + offset; the slice adds place * digit to the weight. The offset is undone
    digitally, with the sum of the inputs.
    """

    place: int  # place value of the digit
    bits: int  # bits of the digit
    offset: int = 0  # added to the digit so that no level is negative
    polarity: int = 0  # differential: +1 positive cell, -1 negative cell, 0 both subtracted in the analog domain

    @property
    def top(self) -> int:
        """Highest level of a cell of this slice."""
        return (1 << self.bits) - 1


@cache
def weight_slices(encoding: Encoding, cell_bits: int) -> tuple[Slice, ...]:
    """The slices of a weight of `encoding.bits` bits in cells of `cell_bits`, lowest place first.

    Two's complement keeps its negative top bit in a column of its own where a cell holds one bit; in wider cells
    the top digit is stored with its sign bit inverted, which is the offset encoding.
    """
    if encoding.bits is None:
        return (Slice(1, cell_bits),)
    magnitude = encoding.weights == "differential"
    bits = encoding.bits - 1 if magnitude else encoding.bits
    places = range(0, bits, cell_bits)
    slices = [Slice(1 << low, min(cell_bits, bits - low)) for low in places]
    if magnitude:
        if encoding.subtract == "analog":
            return tuple(slices)
        return tuple(Slice(one.place, one.bits, polarity=sign) for sign in (1, -1) for one in slices)
    last = slices[-1]
    if encoding.weights == "twos_complement" and last.bits == 1:
        slices[-1] = Slice(-last.place, 1)
    else:
        slices[-1] = Slice(last.place, last.bits, offset=1 << (last.bits - 1))
    return tuple(slices)


@cache
def input_places(coding: InputCoding) -> tuple[int, ...]:
    """Place values of the input slices, lowest first: one array read each."""
    assert coding.bits is not None
    if coding.coding == "bit_serial":
        return (*(1 << bit for bit in range(coding.bits - 1)), -(1 << (coding.bits - 1)))
    if coding.coding == "pulse_width":
        return (1,)
    return tuple(1 << low for low in range(0, coding.bits - 1, coding.slice_bits))


def input_top(coding: InputCoding) -> int:
    """Largest magnitude of a digit of one input slice."""
    assert coding.bits is not None
    if coding.coding == "bit_serial":
        return 1
    digit = coding.bits - 1 if coding.coding == "pulse_width" else min(coding.slice_bits, coding.bits - 1)
    return (1 << digit) - 1


def cells_per_weight(unit: CrossbarUnit, mode: Mode) -> int:
    """Cells that hold one weight in this mode; differential ones counted twice."""
    slices = weight_slices(unit.encoding, unit.cell.bits[mode])
    pair = 2 if unit.encoding.weights == "differential" and unit.encoding.subtract == "analog" else 1
    return len(slices) * pair


def mode_columns(unit: CrossbarUnit, outputs: int) -> dict[Mode, int]:
    """Output columns of a layer in each cell mode."""
    if unit.cell.slc_rate is None:
        return {next(iter(unit.cell.bits)): outputs}
    slc = math.ceil(unit.cell.slc_rate * outputs - 1e-9)
    return {"slc": slc, "mlc": outputs - slc}


@dataclass(frozen=True)
class LayerPlacement:
    """Where the weights of one static layer sit."""

    layer: str
    rows: int  # inputs
    outputs: dict[Mode, int]  # output columns by cell mode
    row_blocks: int
    cells: int
    arrays: int  # whole arrays taken
    groups: int = 1
    copies: int = 1


@dataclass(frozen=True)
class Placement:
    """The static layers of a workload on a chip's crossbar unit."""

    unit: str
    layers: tuple[LayerPlacement, ...] = field(default=())
    capacity: int = 0  # arrays of the chip
    chips: int = 1

    @property
    def arrays(self) -> int:
        """Arrays taken by all layers."""
        return sum(layer.arrays for layer in self.layers)

    @property
    def utilisation(self) -> float:
        """Cells that hold weights, as a share of the cells of all chips used. Not defined without layers."""
        return self.arrays / (self.capacity * self.chips)


def place_layer(unit: CrossbarUnit, layer: str, rows: int, outputs: int, groups: int = 1) -> LayerPlacement:
    """Arrays for one weight matrix [rows, outputs]; both modes share arrays, slices of an output sit side by side."""
    columns = mode_columns(unit, outputs)
    cell_columns = sum(count * cells_per_weight(unit, mode) for mode, count in columns.items())
    row_blocks = math.ceil(rows / unit.rows)
    arrays = row_blocks * math.ceil(cell_columns / unit.columns) * groups
    return LayerPlacement(layer, rows, columns, row_blocks, rows * cell_columns * groups, arrays, groups)


def place(workload: Workload, chip: Chip, chips: int | None = None) -> Placement:
    """Map the static layers of a workload to the crossbar unit of a chip.

    Args:
        chips: how many chips there are; None takes as many as the model needs.

    Raises CapacityError where the model needs more than `chips`.
    """
    unit = chip.unit_for("static_matmul")
    name = chip.policy.get("static_matmul", "")
    if not isinstance(unit, CrossbarUnit):
        return Placement(name)
    layers = tuple(
        place_layer(unit, operation.layer, operation.k, operation.n, operation.groups)
        for operation in static_layers(workload)
    )
    capacity = math.prod(unit.count.values())
    arrays = sum(layer.arrays for layer in layers)
    needed = max(1, math.ceil(arrays / capacity))
    if chips is not None and needed > chips:
        raise CapacityError(
            f"{workload.model} needs {arrays:,} arrays of {unit.rows} x {unit.columns}; {chips} x {chip.name} "
            f"{'has' if chips == 1 else 'have'} {chips * capacity:,}, {arrays - chips * capacity:,} too few. "
            f"{needed} chips would do: chips={needed}, or raise units.{name}.count"
        )
    return Placement(name, layers, capacity, chips or needed)


def static_layers(workload: Workload) -> list[Operation]:
    """One operation per stored weight matrix: a layer that runs in both phases is stored once."""
    first: dict[str, Operation] = {}
    for operation in workload.select("static_matmul"):
        first.setdefault(operation.layer, operation)
    return list(first.values())
