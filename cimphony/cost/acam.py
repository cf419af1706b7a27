"""Cost of functions, products and softmax through ACAMs: passes of numbers through arrays that hold the identity."""

import math
from collections.abc import Mapping

from cimphony.chip import AcamUnit, Chip, CrossbarUnit, Mode, Unit
from cimphony.cost.crossbar import activation_bytes, input_slices, pass_time
from cimphony.cost.job import Job
from cimphony.mapping import BlockPlacement, Placement, cells_per_weight
from cimphony.workload import Operation


def on_acam(unit: AcamUnit, arrays: CrossbarUnit, operation: Operation, row: int = 0) -> Job:
    """An operation on one array of identities; its counts are actions of the arrays and of the unit itself.

    `row` is how many numbers a softmax runs over, 0 where that is not known: one row then.
    """
    if operation.kind == "dynamic_matmul":
        return _products(unit, arrays, operation)
    numbers, rows = operation.elements, 1
    if operation.kind == "softmax":  # exp(s - max), log of their sum, exp again
        rows = numbers // row if row else 1
        numbers = 2 * numbers + rows
    counts = _identity(arrays, numbers, math.ceil(numbers / width(arrays)))
    if operation.kind == "softmax":  # a largest score, its subtraction, a sum, the subtraction of its log
        counts["sum"] = 4 * operation.elements - 2 * rows
    return _job(unit, arrays, counts, operation.repeat)


def width(arrays: CrossbarUnit) -> int:
    """Numbers that one array of identities takes at once."""
    mode: Mode = next(iter(arrays.cell.bits))
    return min(arrays.rows, arrays.columns // cells_per_weight(arrays, mode))


def _products(unit: AcamUnit, arrays: CrossbarUnit, operation: Operation) -> Job:
    """Logs of both operands, then an exp for every product of two numbers, and their sums.

    Logs of what earlier tokens have left are kept: a step of decoding takes those of the new tokens only.
    """
    m, k, n, groups = operation.m, operation.k, operation.n, operation.groups
    fresh = k * n if operation.phase == "prefill" else min(k * n, m * min(k, n))
    logs, products = (m * k + fresh) * groups, m * k * n * groups
    each = math.ceil(k / width(arrays))
    passes = m * n * groups * each if unit.packing == "vector" else math.ceil(products / width(arrays))
    counts = _identity(arrays, logs, math.ceil(logs / width(arrays)))
    for action, number in _identity(arrays, products, passes).items():
        counts[action] += number
    codes = activation_bytes(arrays)
    counts["load"] = (logs + unit.traffic * products) * codes
    counts["store"] = (logs + m * n * groups) * codes
    counts["sum"] = products + m * n * groups * (k - 1)
    counts["sign"] = products
    return _job(unit, arrays, counts, operation.repeat)


def _identity(arrays: CrossbarUnit, numbers: int, passes: int) -> dict[str, float]:
    """Actions of the arrays for so many numbers in so many passes."""
    slices, mode = input_slices(arrays), next(iter(arrays.cell.bits))
    return {
        "read": passes * slices,
        "cell": numbers * slices * cells_per_weight(arrays, mode),
        "drive": numbers * slices,
        "convert": numbers,
        "sample": numbers,
        "load": numbers * activation_bytes(arrays),
        "store": numbers * activation_bytes(arrays),
    }


def _job(unit: AcamUnit, arrays: CrossbarUnit, counts: Mapping[str, float], repeat: int) -> Job:
    """Over all repeats; an array is busy with its passes, or waits for its share of the memory."""
    passes = counts["read"] / input_slices(arrays)
    moving = (counts["load"] + counts["store"]) / unit.bandwidth if unit.bandwidth else 0.0
    return Job({action: number * repeat for action, number in counts.items()},
               max(passes * pass_time(arrays), moving) * repeat)  # fmt: skip


def is_fused(static: Unit | None, placed: BlockPlacement, at: int) -> bool:
    """Whether the activation at this place of a block is what the ACAMs of the product before it convert to.

    The columns must see their whole sums: not where blocks of rows are added digitally.
    """
    operations = placed.block.operations
    one, before = operations[at], next((op for op in reversed(operations[:at]) if op.kind != "norm"), None)
    if one.kind != "activation" or before is None or before.kind != "static_matmul":
        return False
    if not isinstance(static, CrossbarUnit) or static.acam is None:
        return False
    if before.m * before.n * before.groups != one.elements or before.phase != one.phase:
        return False
    layer = next(layer for layer in placed.layers if layer.layer == before.layer)
    return static.acam.partial_sums == "analog" or all(region.row_blocks == 1 for region in layer.regions)


def score_row(operations: tuple[Operation, ...], at: int) -> int:
    """How many scores the softmax at this place runs over: the outputs of the product before it; 0 if unknown."""
    before = next((op for op in reversed(operations[:at]) if op.kind == "dynamic_matmul"), None)
    return before.n if before and before.m * before.n * before.groups == operations[at].elements else 0


def spare_arrays(unit: AcamUnit, chip: Chip, placement: Placement) -> float:
    """Arrays of all chips that can hold the identity: those without weights, or all of a unit for this alone."""
    have = float(math.prod(chip.unit(unit.arrays, CrossbarUnit).count.values()) * placement.chips)
    if unit.arrays == placement.unit:
        have -= placement.arrays
    return have


def acam_said(name: str, unit: AcamUnit, chip: Chip, placement: Placement, fused: int) -> list[str]:
    """What a report must say about this unit."""
    have, acam = spare_arrays(unit, chip, placement), chip.unit(unit.arrays, CrossbarUnit).acam
    assert acam is not None
    sums = {
        "analog": "sums over blocks of rows meet in one ACAM without loss, time or energy, on whichever tiles they are",
        "digital": "every block of rows is converted, its codes are added digitally",
    }
    limit = f", at most {unit.bandwidth:.3g} bytes/s an array" if unit.bandwidth else ", never waited for"
    said = [
        f"{name}: {have:,.0f} arrays of units.{unit.arrays} hold the identity and serve all layers in turn, as "
        "whatever function is asked for; digital additions keep up with them",
        f"{name}: {unit.traffic:g} numbers move between memory and arrays for every product of two{limit}; logs of "
        "earlier tokens are kept",
        f"{unit.arrays}: partial sums {acam.partial_sums}: {sums[acam.partial_sums]}",
    ]
    return said + ([f"{name}: {fused} activations are what a product's ACAMs convert to, at no cost"] if fused else [])
