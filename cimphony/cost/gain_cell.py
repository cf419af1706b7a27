"""Cost of attention in gain cells: counts of one token from the same fields that its numbers come from."""

import math
from dataclasses import dataclass

from cimphony.chip import GainCellAttentionUnit
from cimphony.cost.job import Job
from cimphony.errors import CapacityError
from cimphony.units import format_quantity
from cimphony.workload import Operation, Workload


@dataclass(frozen=True)
class Retention:
    """How long a window of tokens has to be held, against how long cells hold it."""

    period: float  # s from token to token
    life: float  # s that a token stays in the window
    kept: float  # of the weight of the oldest token, 1 without leakage
    refresh: bool  # the window outlives the cells
    writes: float  # of each cell for every new token, beside its own


def retention(unit: GainCellAttentionUnit, layers: int) -> Retention:
    """Whether a window outlives its cells in a model of so many layers of attention.

    Where it does, every column is written anew once in a retention time, from a digital copy.
    """
    period, hold = unit.period(layers), unit.cell.retention
    life = unit.window * period
    if hold is None:
        return Retention(period, life, 1.0, False, 0.0)
    refresh = life > hold
    return Retention(period, life, math.exp(-life / hold), refresh, period / hold if refresh else 0.0)


def on_gain_cell(unit: GainCellAttentionUnit, operation: Operation) -> Job:
    """One of the two products of attention, token after token, each head in arrays of its own.

    A token reads the columns written so far, at most the window. The activation between the products is part of
    them. Each product takes half of a token's time: the split is not published. Refresh is counted where the unit
    gives its token period. Raises CapacityError where a head does not fit an array.
    """
    if operation.kind == "softmax":
        return Job({}, 0.0)
    scores = operation.function == "query_key"
    size, context = (operation.k, operation.n) if scores else (operation.n, operation.k)
    if size > unit.array:
        raise CapacityError(
            f"layer {operation.layer}: heads of size {size} do not fit arrays of {unit.array} x {unit.array}; choose "
            f"a model with smaller heads, or a chip with array: {size} in its gain_cell_attention unit"
        )
    tokens, times = operation.m * operation.repeat, operation.groups * operation.repeat
    columns = times * _columns(unit.window, context - operation.m, context)
    again = retention(unit, 0).writes * columns if unit.token_period else 0.0
    counts = {"write": (tokens * operation.groups + again) * size}
    if scores:
        counts["key_cell"] = columns * size
    else:
        starts = range(0, unit.window, unit.array)
        counts["value_cell"] = columns * size
        counts["tile"] = times * sum(max(0, context - max(context - operation.m, start)) for start in starts)
        counts["token"] = tokens * operation.groups
    turns = math.ceil(operation.groups / unit.count["head"])
    return Job(counts, tokens * turns * unit.latency / 2)


def _columns(window: int, first: int, last: int) -> int:
    """Columns read by tokens with first + 1 ... last tokens in the text, each at most the window."""
    rising = min(last, window)
    below = min(first, window)
    return (rising * (rising + 1) - below * (below + 1)) // 2 + (last - max(first, window)) * window * (last > window)


def said_of(name: str, unit: GainCellAttentionUnit, workload: Workload) -> list[str]:
    """What a report must say about this unit under this workload."""
    products = [one for one in workload.operations if one.function == "query_key"]
    phase = products[-1].phase if products else "prefill"
    layers = sum(one.phase == phase for one in products)
    heads = max((one.groups // workload.batch for one in products), default=0)
    held, hold = retention(unit, layers), unit.cell.retention
    given = "as given" if unit.token_period else f"{layers} layers of attention in a row, nothing else counted"
    need = "no refresh needed"
    if held.refresh:
        counted = "counted as writes" if unit.token_period else "not counted; give token_period"
        need = f"the window outlives the cells: refresh needed, {counted}"
    against = (
        f"{held.life / hold:.3g} of the retention time, the oldest keeps {held.kept:.1%}" if hold else "no leakage"
    )
    have = unit.count["head"] * math.prod(size for level, size in unit.count.items() if level not in ("tile", "head"))
    said = [
        f"{name}: a token every {format_quantity(held.period, 's')} ({given}); it stays "
        f"{format_quantity(held.life, 's')}, {against}; {need}",
        f"{name}: every query head has arrays of its own; those of a layer serve the texts of a batch in turn",
    ]
    if heads * layers > have:
        said.append(f"{name}: the model has {heads * layers} heads and one chip {have}; area and power are one chip's")
    return said
