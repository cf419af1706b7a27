"""How weights become cells: bit slices, cell modes, tiles, placement on a chip. Torch-free; both towers read it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

from cimphony.chip import AcamUnit, Chip, CrossbarUnit, Encoding, GpuUnit, InputCoding, Mode
from cimphony.chip.pricing import instances
from cimphony.errors import CapacityError
from cimphony.workload import Block, Operation, Workload

StoredKind = Literal["static_matmul", "adapter"]


@dataclass(frozen=True)
class Slice:
    """One bit slice of the weights: a column of cells for every output.

    A cell holds level = digit + offset; the slice adds place * digit to the weight. The offset is undone
    digitally, with the sum of the inputs.
    """

    place: int  # place value of the digit
    bits: int  # bits of the digit
    offset: float = 0  # added to the digit so that no level is negative
    pair: bool = False  # signed digits held in two cells, subtracted in the analog domain
    polarity: int = 0  # differential: +1 positive cell, -1 negative cell; 0 otherwise
    residual: bool = False  # holds the write error of the pair of the same place, with the opposite sign

    @property
    def top(self) -> int:
        """Highest level of a cell of this slice."""
        return (1 << self.bits) - 1


def weight_slices(encoding: Encoding, cell_bits: int) -> tuple[Slice, ...]:
    """The slices of a weight of `encoding.bits` bits in cells of `cell_bits`, lowest place first.

    Two's complement keeps its negative top bit in a column of its own where a cell holds one bit; in wider cells
    the top digit is stored with its sign bit inverted, which is the offset encoding.
    """
    if encoding.bits is None:
        return (Slice(1, cell_bits, pair=True),)
    slices = _slices(encoding.weights, encoding.bits, encoding.subtract, cell_bits)
    if encoding.weights != "differential_residual":
        return slices
    return tuple(
        half
        for one in slices
        for half in (
            replace(one, place=one.place * encoding.residual_gain),
            replace(one, place=-one.place, residual=True),
        )
    )


def word_gain(encoding: Encoding) -> int:
    """What the places of all slices are multiplied by, so that those of write errors are whole numbers."""
    return encoding.residual_gain if encoding.weights == "differential_residual" else 1


@cache
def _slices(weights: str, word_bits: int, subtract: str, cell_bits: int) -> tuple[Slice, ...]:
    if weights == "binary":
        return (Slice(2, 1, offset=0.5),)  # digits -1/2 and +1/2, levels 0 and 1
    magnitude = weights in ("differential", "differential_residual")
    bits = word_bits - 1 if magnitude else word_bits
    places = range(0, bits, cell_bits)
    slices = [Slice(1 << low, min(cell_bits, bits - low)) for low in places]
    if magnitude:
        if subtract == "analog":
            return tuple(replace(one, pair=True) for one in slices)
        return tuple(Slice(one.place, one.bits, polarity=sign) for sign in (1, -1) for one in slices)
    last = slices[-1]
    if weights == "signed_digits":
        return (*slices[:-1], replace(last, pair=True))
    if weights == "twos_complement" and last.bits == 1:
        slices[-1] = Slice(-last.place, 1)
    else:
        slices[-1] = Slice(last.place, last.bits, offset=1 << (last.bits - 1))
    return tuple(slices)


def input_places(coding: InputCoding) -> tuple[int, ...]:
    """Place values of the input slices, lowest first: one array read each."""
    assert coding.bits is not None
    if not coding.signed:
        return tuple(1 << bit for bit in range(coding.bits))
    return _places(coding.coding, coding.bits, coding.slice_bits)


@cache
def _places(coding: str, bits: int, slice_bits: int) -> tuple[int, ...]:
    if coding == "bit_serial":
        return (*(1 << bit for bit in range(bits - 1)), -(1 << (bits - 1)))
    if coding == "pulse_width":
        return (1,)
    return tuple(1 << low for low in range(0, bits - 1, slice_bits))


def input_top(coding: InputCoding) -> int:
    """Largest magnitude of a digit of one input slice."""
    assert coding.bits is not None
    if coding.coding == "bit_serial":
        return 1
    digit = coding.bits - 1 if coding.coding == "pulse_width" else min(coding.slice_bits, coding.bits - 1)
    return (1 << digit) - 1


def cells_per_weight(unit: CrossbarUnit, mode: Mode) -> int:
    """Cells that hold one weight in this mode; differential ones counted twice."""
    return sum(2 if one.pair else 1 for one in weight_slices(unit.encoding, unit.cell.bits[mode]))


def slc_count(slc_rate: float, count: int) -> int:
    """How many of a layer's columns, or of a factor's ranks, sit in SLC cells."""
    return math.ceil(slc_rate * count - 1e-9)


def mode_columns(unit: CrossbarUnit, outputs: int) -> dict[Mode, int]:
    """Output columns of a layer in each cell mode."""
    if unit.cell.slc_rate is None:
        return {next(iter(unit.cell.bits)): outputs}
    slc = slc_count(unit.cell.slc_rate, outputs)
    return {"slc": slc, "mlc": outputs - slc}


@dataclass(frozen=True)
class Region:
    """A rectangle of weights on arrays of its own."""

    rows: int  # inputs
    outputs: dict[Mode, int]  # output columns by cell mode
    row_blocks: int
    column_blocks: int
    cell_columns: int  # columns of cells, all modes


@dataclass(frozen=True)
class LayerPlacement:
    """Where the weights of one static layer sit: once, or as often as the chip's redundancy says."""

    layer: str
    regions: tuple[Region, ...]  # of one matrix
    groups: int = 1
    redundancy: int = 1  # copies programmed for accuracy, all read for every input; others, for speed, are the block's

    @property
    def matrices(self) -> int:
        """Matrices of this shape on arrays of their own: groups, each as often as it is programmed."""
        return self.groups * self.redundancy

    @property
    def arrays(self) -> int:
        """Whole arrays taken."""
        return sum(region.row_blocks * region.column_blocks for region in self.regions) * self.matrices

    @property
    def cells(self) -> int:
        """Cells that hold weights."""
        return sum(region.rows * region.cell_columns for region in self.regions) * self.matrices


@dataclass(frozen=True)
class BlockPlacement:
    """A block of the workload on the arrays; every repetition of it is placed alike."""

    block: Block
    layers: tuple[LayerPlacement, ...]  # of one repetition
    vectors: int  # inputs its busiest layer works on for one request
    copies: float = 1.0  # of the weights, for one repetition
    share: float = 1.0  # of all chips, for one repetition

    @property
    def arrays(self) -> int:
        """Arrays of one copy of one repetition."""
        return sum(layer.arrays for layer in self.layers)

    @property
    def repetitions(self) -> int:
        """How often the block repeats."""
        return len(self.block.names)


@dataclass(frozen=True)
class Placement:
    """The stored weights of a workload on the crossbar unit of one or more chips.

    Without a crossbar unit there are no blocks, and `chips` counts what the memory needs. Adapters on a crossbar unit
    of their own have a placement of their own.
    """

    unit: str
    blocks: tuple[BlockPlacement, ...] = ()
    capacity: int = 0  # arrays of one chip
    level: str = "chip"  # the outermost level of the unit below the chip: a pu, a tile
    per_level: int = 0  # arrays of one of those
    chips: int = 1
    adapters: "Placement | None" = None  # on the same chips

    @property
    def arrays(self) -> float:
        """Arrays taken by all layers with their copies."""
        return sum(block.arrays * block.copies * block.repetitions for block in self.blocks)

    @property
    def utilisation(self) -> float:
        """Arrays taken, as a share of those of all chips used; 0 without a crossbar unit."""
        return self.arrays / (self.capacity * self.chips) if self.capacity else 0.0

    @property
    def level_share(self) -> float:
        """One of the outermost level, as a share of all chips used."""
        return self.per_level / (self.capacity * self.chips)

    def levels(self, block: BlockPlacement) -> int:
        """How many of the outermost level one copy of one repetition of a block spans."""
        return max(1, math.ceil(block.arrays / self.per_level)) if self.per_level else 1


def place_layer(
    unit: CrossbarUnit,
    layer: str,
    rows: int,
    outputs: int,
    groups: int = 1,
    modes_by: str = "column",
    redundancy: int = 1,
) -> LayerPlacement:
    """Arrays for one weight matrix [rows, outputs]; slices of an output sit side by side.

    Cell modes divide the output columns, which then share arrays; or, with `modes_by="row"`, the inputs (ranks of a
    factor), where each mode has arrays of its own.
    """
    if modes_by == "row":
        by_mode: dict[Mode, int] = {mode: count for mode, count in mode_columns(unit, rows).items() if count}
        regions = tuple(_region(unit, count, {mode: outputs}) for mode, count in by_mode.items())
    else:
        regions = (_region(unit, rows, mode_columns(unit, outputs)),)
    return LayerPlacement(layer, regions, groups, redundancy)


def _region(unit: CrossbarUnit, rows: int, outputs: dict[Mode, int]) -> Region:
    cell_columns = sum(count * cells_per_weight(unit, mode) for mode, count in outputs.items())
    return Region(rows, outputs, math.ceil(rows / unit.rows), math.ceil(cell_columns / unit.columns), cell_columns)


def settle(workload: Workload, chip: Chip) -> Workload:
    """The workload as a chip sees it: where adapters have no unit of their own, they are static products."""
    if chip.adapter_unit is not None or not any(True for _ in workload.select("adapter")):
        return workload
    operations = [
        one.model_copy(update={"kind": "static_matmul"}) if one.kind == "adapter" else one
        for one in workload.operations
    ]
    return workload.model_copy(update={"operations": operations})


def place(workload: Workload, chip: Chip, chips: int | None = None) -> Placement:
    """Map the static layers of a workload to the unit that stores them; one array is left for an ACAM unit's identity.

    Adapters go to their own unit, if the chip has one for them.

    Args:
        chips: how many chips there are; None takes as many as the model needs.

    Raises CapacityError where the model needs more than `chips`.
    """
    workload, own = settle(workload, chip), chip.adapter_unit
    base = _place_on(workload, chip, "static_matmul", chips)
    adapted = any(True for _ in workload.select("adapter"))
    if own is None or not adapted or not isinstance(chip.units[own], CrossbarUnit):
        return base
    adapters = _place_on(workload, chip, "adapter", chips)
    most = max(base.chips, adapters.chips)
    base, adapters = (
        one if one.chips == most else _place_on(workload, chip, kind, most)
        for one, kind in ((base, "static_matmul"), (adapters, "adapter"))
    )
    return replace(base, adapters=adapters)


def _place_on(workload: Workload, chip: Chip, kind: StoredKind, chips: int | None) -> Placement:
    """What is stored of one kind, on its unit."""
    unit, name = chip.unit_for(kind), chip.policy.get(kind, "")
    if isinstance(unit, GpuUnit):
        needed = _memory_chips(workload, unit)
        _check(workload, chip, needed, chips, f"{needed} x {unit.memory / 1e9:g} GB of memory for the weights alone")
        return Placement(name, chips=chips or needed)
    if not isinstance(unit, CrossbarUnit):
        return Placement(name, chips=chips or 1)
    blocks = [part for block in workload.blocks for part in _by_redundancy(chip, block)]
    placed = [one for one in (_place_block(chip, kind, block) for block in blocks) if one.layers or kind != "adapter"]
    capacity = math.prod(unit.count.values())
    identity = any(isinstance(other, AcamUnit) and other.arrays == name for other in chip.units.values())
    arrays = sum(block.arrays * block.repetitions for block in placed) + identity
    needed = max(1, math.ceil(arrays / capacity))
    have = (chips or needed) * capacity
    what = f"{arrays:,} arrays of {unit.rows} x {unit.columns}, {arrays - have:,} too many"
    _check(workload, chip, needed, chips, what if kind != "adapter" else f"for its adapters {what}")
    level = list(unit.count)[-1] if len(unit.count) > 1 else "chip"
    return Placement(
        name, tuple(_copy(unit, placed, have - identity)), capacity, level, capacity // instances(unit.count, level),
        chips or needed,
    )  # fmt: skip


@dataclass(frozen=True)
class Segment:
    """Part of a block on one of the chip's outermost level (a pu, a tile), for drawing a placement."""

    chip: int
    level: int  # which one on the chip
    block: str
    start: int  # first array on it
    arrays: int


def layout(placement: Placement) -> list[Segment]:
    """Where every repetition of every block sits, filled in order, copies beside their original."""
    segments: list[Segment] = []
    size, per_chip = placement.per_level, max(1, placement.capacity // max(1, placement.per_level))
    at = 0.0
    for placed in placement.blocks:
        for name in placed.block.names if placed.arrays else ():
            end = at + placed.arrays * placed.copies
            for number in range(int(at / size), math.ceil(end / size - 1e-9)):
                start, stop = max(at, number * size), min(end, (number + 1) * size)
                chip, level = divmod(number, per_chip)
                segments.append(Segment(chip, level, name, round(start) - number * size, round(stop) - round(start)))
            at = end
    return [segment for segment in segments if segment.arrays]


def stored(operations: Iterable[Operation], kind: StoredKind = "static_matmul") -> list[Operation]:
    """One operation per stored weight matrix: a layer that runs in both phases is stored once."""
    first: dict[str, Operation] = {}
    for operation in operations:
        if operation.kind == kind:
            first.setdefault(operation.layer, operation)
    return list(first.values())


def _by_redundancy(chip: Chip, block: Block) -> list[Block]:
    """A block cut where its repetitions are stored a different number of times."""
    if not chip.redundancy:
        return [block]
    layers = [block.layers(one) for one in stored(block.operations)]
    names: dict[tuple[int, ...], list[str]] = {}
    for at, name in enumerate(block.names):
        key = tuple(chip.redundancy_of(layer[at]) for layer in layers)
        names.setdefault(key, []).append(name)
    return [block.only(tuple(some)) for some in names.values()]


def _place_block(chip: Chip, kind: StoredKind, block: Block) -> BlockPlacement:
    name = chip.policy[kind]
    unit = chip.unit(name, CrossbarUnit)
    layers = tuple(
        place_layer(unit, one.layer, one.k, one.n, one.groups, one.modes_by, chip.redundancy_of(one.layer, name))
        for one in stored(block.operations, kind)
    )
    vectors: dict[str, int] = {}
    for one in block.operations:
        if one.kind == kind:
            vectors[one.layer] = vectors.get(one.layer, 0) + one.m * one.repeat
    return BlockPlacement(block, layers, max(vectors.values(), default=0))


def _copy(unit: CrossbarUnit, blocks: list[BlockPlacement], have: int) -> list[BlockPlacement]:
    """Fill spare arrays with copies, as the chip's schedule says, and share out the chips."""
    copies = [1.0] * len(blocks)
    if unit.schedule.copies != "one":
        copies = _balance(blocks, have)
    if unit.schedule.copies == "whole":
        copies = _whole(blocks, copies, have)
    taken = sum(block.arrays * block.repetitions * count for block, count in zip(blocks, copies, strict=True))
    return [
        replace(block, copies=count, share=block.arrays * count / taken if taken else 1.0)
        for block, count in zip(blocks, copies, strict=True)
    ]


def _balance(blocks: list[BlockPlacement], have: int) -> list[float]:
    """Fractional copies that make the slowest block as fast as possible: at least one, at most one per input."""
    sizes = [block.arrays * block.repetitions for block in blocks]
    open_, copies = {at for at, size in enumerate(sizes) if size}, [1.0] * len(blocks)
    while open_:
        left = have - sum(size for at, size in enumerate(sizes) if at not in open_)
        rate = left / sum(sizes[at] * blocks[at].vectors for at in open_)
        idle = {at for at in open_ if rate * blocks[at].vectors < 1}
        if not idle:
            for at in open_:
                copies[at] = blocks[at].vectors * min(rate, 1.0)
            break
        open_ -= idle
    return copies


def _whole(blocks: list[BlockPlacement], copies: list[float], have: int) -> list[float]:
    """Whole copies: the balanced ones rounded down, then one more for the slowest block while there is room."""
    whole = [float(math.floor(count + 1e-9)) for count in copies]
    left = have - sum(block.arrays * block.repetitions * count for block, count in zip(blocks, whole, strict=True))
    while True:
        slowest = max(range(len(blocks)), key=lambda at: blocks[at].vectors / whole[at])
        size = blocks[slowest].arrays * blocks[slowest].repetitions
        if not size or size > left or whole[slowest] >= blocks[slowest].vectors:
            return whole
        whole[slowest] += 1
        left -= size


def _memory_chips(workload: Workload, unit: GpuUnit) -> int:
    weights = sum(one.weights for one in stored(workload.operations))
    return max(1, math.ceil(max(weights, workload.parameters) * unit.bits / 8 / unit.memory))


def _check(workload: Workload, chip: Chip, needed: int, chips: int | None, what: str) -> None:
    if chips is not None and (not isinstance(chips, int) or chips < 1):  # type: ignore[reportUnnecessaryIsInstance]
        raise CapacityError(f"chips = {chips!r} is not allowed; choose 1 or more, or none to take as many as needed")
    if chips is not None and needed > chips:
        raise CapacityError(
            f"{workload.model} does not fit on {chips} x {chip.name}: it needs {what}. "
            f"{needed} chips would do: chips={needed}"
        )
