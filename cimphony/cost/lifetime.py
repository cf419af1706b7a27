"""What it costs to write a model into the cells, to swap weights that do not fit, and how long cells live."""

import math
from dataclasses import dataclass

from cimphony.chip import Chip, CrossbarUnit, NorPimUnit
from cimphony.chip.crossbar import Write
from cimphony.cost.work import operand_bytes, unit_instances
from cimphony.errors import ChipError
from cimphony.mapping import BlockPlacement, cells_per_weight, place
from cimphony.workload import Workload

DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class Programming:
    """Writing weights into cells."""

    cells: float  # cells written, all copies
    pulses: float
    energy: float  # J
    time: float  # s, modules at once, the arrays of a module one after another


@dataclass(frozen=True)
class Swapping:
    """A model larger than the system, with weights rewritten for every request instead of more chips."""

    chips: int
    chips_needed: int  # to hold all weights
    share: float  # of the weights written again for every request
    programming: Programming  # of one request
    years: float | None  # of the rewritten cells at the given rate; None where endurance is not stated


@dataclass(frozen=True)
class Endurance:
    """Writes into the digital arrays that hold activations, evened out over all cells of a block's share."""

    operand_writes: float  # a cell and request: K, V, scores and results as stored numbers
    logic_writes: float  # a cell and request: one result cell for every NOR
    operand_years: float | None  # at the given rate, counting stored numbers alone
    logic_years: float | None  # counting the NOR results too


def programming(workload: Workload, chip: Chip, *, chips: int | None = None) -> Programming:
    """Energy and time to write a model once, with its copies.

    Raises ChipError where the chip's cell says nothing about writing, CapacityError where the model does not fit.
    """
    unit, write = _writable(chip)
    placement = place(workload, chip, chips)
    written = [_block_cells(unit, write, block) for block in placement.blocks]
    cells = sum(block[0] for block in written)
    pulses = sum(block[1] for block in written)
    in_a_row = min(next(iter(unit.count.values())), math.ceil(placement.arrays))
    time = pulses / max(placement.arrays, 1.0) * in_a_row * write.time / write.parallel
    return Programming(cells, pulses, pulses * write.energy, time)


def swapping(workload: Workload, chip: Chip, *, chips: int, requests_per_day: float = 10_000.0) -> Swapping:
    """What rewriting weights costs where `chips` cannot hold them all.

    What fits stays; the largest block's room is kept for the rest, written block by block for every request.
    Raises ChipError where the chip's cell says nothing about writing.
    """
    unit, write = _writable(chip)
    single = place(workload, one_copy(chip))
    have, largest = chips * single.capacity, max(block.arrays for block in single.blocks)
    again = max(0.0, min(single.arrays, single.arrays - have + largest)) if single.arrays > have else 0.0
    whole = programming(workload, one_copy(chip))
    share = again / single.arrays
    years = None
    if write.endurance is not None:
        writes = again / largest * max(write.pulses[mode] for mode in unit.cell.bits) * requests_per_day
        years = write.endurance / writes / DAYS_PER_YEAR if writes else math.inf
    part = Programming(whole.cells * share, whole.pulses * share, whole.energy * share, whole.time * again / have)
    return Swapping(chips, single.chips, share, part, years)


def endurance(workload: Workload, chip: Chip, *, requests_per_day: float = 10_000.0) -> Endurance:
    """How often in-memory arithmetic writes its cells, and the years they last.

    Raises ChipError where the chip multiplies activations in no memory that wears.
    """
    unit = chip.unit_for("dynamic_matmul")
    if not isinstance(unit, NorPimUnit):
        raise ChipError(f"chip {chip.name!r} multiplies activations in no memory that wears; nothing to count")
    placement = place(workload, chip)
    stored, logic = 0.0, 0.0
    for block in placement.blocks:
        cells = unit.module_bytes * 8 * max(1.0, block.share * unit_instances(unit) * placement.chips)
        products = [one for one in block.block.operations if one.kind == "dynamic_matmul"]
        stored = max(stored, sum(operand_bytes(one, unit.bits) for one in products) * 8 / cells)
        logic = max(logic, sum(one.macs for one in products) * unit.density * unit.bits**2 / cells)
    return Endurance(
        stored, logic, _years(unit, stored, requests_per_day), _years(unit, stored + logic, requests_per_day)
    )


def _years(unit: NorPimUnit, writes: float, requests_per_day: float) -> float | None:
    if unit.endurance is None:
        return None
    return unit.endurance / (writes * requests_per_day) / DAYS_PER_YEAR if writes else math.inf


def _writable(chip: Chip) -> tuple[CrossbarUnit, Write]:
    unit = chip.unit_for("static_matmul")
    if not isinstance(unit, CrossbarUnit) or unit.cell.write is None:
        raise ChipError(
            f"chip {chip.name!r} says nothing about writing its cells; add cell.write with pulses, energy and time"
        )
    return unit, unit.cell.write


def _block_cells(unit: CrossbarUnit, write: Write, block: BlockPlacement) -> tuple[float, float]:
    """Cells and pulses of all copies and repetitions of a block."""
    cells, pulses = 0.0, 0.0
    for layer in block.layers:
        for region in layer.regions:
            for mode, outputs in region.outputs.items():
                weights = region.rows * outputs * layer.matrices * block.copies * block.repetitions
                cells += weights * cells_per_weight(unit, mode)
                pulses += weights * cells_per_weight(unit, mode) * write.pulses[mode]
    return cells, pulses


def one_copy(chip: Chip) -> Chip:
    """The chip with every weight stored once."""
    return chip.replace({f"units.{chip.policy['static_matmul']}.schedule.copies": "one"})
