"""Gain-cell attention: the definition of correct. Two products in charge memories and the activation between them.

A cell adds a current f(V) to its column while its input pulse is on; V is the stored voltage. All nonlinearity is in
V, the charge is linear in the pulse width. With leakage, V relaxes with the age of the column: a polynomial becomes
one product for each power, with the weight exp(-power * age * rate); a table one for each level.

Source: Leroux et al., Nature Computational Science 5 (2025), equations 3 and 4 and Methods.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from cimphony.chip import GainCell, GainCellAttentionUnit, LinearMultiplier, TableMultiplier
from cimphony.circuits.charge_to_pulse import hard_sigmoid, signed_readout
from cimphony.circuits.gain_cell_noise import Draws

Term = tuple[Tensor | None, Tensor]  # weight [query, column] (None: 1) and current [..., column, feature]
Faults = tuple[Tensor, Tensor] | None  # gain and offset [A] of each cell [head, column, feature]


@dataclass(frozen=True)
class Columns:
    """Which columns the queries read.

    Args:
        slot: [column], the physical column that holds each.
        age: [query, column], in tokens; negative: not written yet.
        live: bool [batch or 1, query, column], written, within the window, not padding.
    """

    slot: Tensor
    age: Tensor
    live: Tensor


def attend(
    unit: GainCellAttentionUnit,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    columns: Columns,
    *,
    rate: float = 0.0,
    draws: Draws | None = None,
) -> Tensor:
    """Outputs of the arrays, -tiles to tiles: [batch, head, query, feature].

    Args:
        query: pulse widths, 0 to 1 of the longest [batch, head, query, feature].
        key, value: stored voltages [V], [batch, head, column, feature].
        rate: token period over retention; 0: no leakage.
        draws: noise and mismatch; None: none.
    """
    decay = columns.age.clamp(min=0).to(query.dtype) * rate if rate else None
    if draws is not None:
        query = draws.jitter(query, "query")
    sums = scores(unit.cell, query, key, decay, draws.cells("key", columns.slot) if draws else None)
    if draws is not None:
        sums = draws.score_noise(sums, columns.slot)
    pulses = hard_sigmoid(sums, unit.pulses.score_saturation) * columns.live.unsqueeze(1).to(query.dtype)
    if draws is not None:
        pulses = draws.jitter(pulses, "score", columns.slot)
    tile = torch.div(columns.slot, unit.array, rounding_mode="floor")
    total = torch.zeros_like(query[..., :1]).expand(*query.shape[:-1], value.shape[-1])
    for index in range(unit.tiles):
        here = (tile == index).nonzero().squeeze(1)
        if here.numel() == 0:
            continue
        faults = draws.cells("value", columns.slot[here]) if draws else None
        part = None if decay is None else decay[:, here]
        charge = outputs(unit.cell, pulses[..., here], value[..., here, :], part, faults)
        if draws is not None:
            charge = draws.readout_noise(charge, index)
        total = total + signed_readout(charge, unit.pulses.output_saturation, unit.pulses.output_levels)
    return total


def scores(cell: GainCell, query: Tensor, key: Tensor, decay: Tensor | None, faults: Faults = None) -> Tensor:
    """Summed currents of the key columns [A]: [..., query, column]."""
    return _with_gradient(cell, key, decay, faults, lambda terms: _scores(query, terms))


def outputs(cell: GainCell, pulses: Tensor, value: Tensor, decay: Tensor | None, faults: Faults = None) -> Tensor:
    """Summed currents of the value columns of one sub-tile [A]: [..., query, feature]."""
    return _with_gradient(cell, value, decay, faults, lambda terms: _outputs(pulses, terms))


def _scores(query: Tensor, terms: Sequence[Term]) -> Tensor:
    return reduce(
        torch.add,
        (query @ current.mT if weight is None else (query @ current.mT) * weight for weight, current in terms),
    )


def _outputs(pulses: Tensor, terms: Sequence[Term]) -> Tensor:
    return reduce(torch.add, ((pulses if weight is None else pulses * weight) @ current for weight, current in terms))


def _with_gradient(
    cell: GainCell, volts: Tensor, decay: Tensor | None, faults: Faults, product: Callable[[Sequence[Term]], Tensor]
) -> Tensor:
    """The product by the cells; its gradient by the cells or, where the multiplier has a slope, by a straight line."""
    slope = getattr(cell.multiplier, "slope", None)
    if cell.multiplier.kind == "linear" or slope is None or not torch.is_grad_enabled():
        return product(_faulty(terms(cell, volts, decay), faults))
    straight = cell.model_copy(update={"multiplier": LinearMultiplier(slope=slope), "leaks_to": "middle"})
    surrogate = product(terms(straight, volts, decay))
    with torch.no_grad():
        correction = product(_faulty(terms(cell, volts, decay), faults)) - surrogate
    return surrogate + correction


def terms(cell: GainCell, volts: Tensor, decay: Tensor | None) -> list[Term]:
    """The current of cells at these voltages [A] as a sum of weight(age) times current(voltage).

    Args:
        volts: [..., column, feature].
        decay: age over retention [query, column]; None: no leakage.
    """
    rest = cell.middle if cell.leaks_to == "middle" or decay is None else 0.0
    if isinstance(cell.multiplier, TableMultiplier):
        return _table_terms(cell, volts, decay, rest)
    powers = shifted(cell.multiplier.polynomial, rest - cell.middle)
    above = volts - rest
    if decay is None:
        return [(None, polynomial(powers, above))]
    found: list[Term] = []
    for power, factor in enumerate(powers):
        if factor:
            found.append((torch.exp(-power * decay) if power else None, factor * above**power))
    return found


def _table_terms(cell: GainCell, volts: Tensor, decay: Tensor | None, rest: float) -> list[Term]:
    assert isinstance(cell.multiplier, TableMultiplier)
    if decay is None:
        return [(None, interpolate(cell.multiplier, volts))]
    assert cell.levels is not None
    step = cell.supply / (cell.levels - 1)
    written = torch.round(volts / step)
    found: list[Term] = []
    for level in range(cell.levels):
        current = interpolate(cell.multiplier, rest + (level * step - rest) * torch.exp(-decay))
        found.append((current, (written == level).to(volts.dtype)))
    return found


def _faulty(found: Sequence[Term], faults: Faults) -> list[Term]:
    """Terms with the gain and offset of each cell, [head, column, feature]."""
    if faults is None:
        return list(found)
    gain, offset = faults
    return [*((weight, current * (1 + gain)) for weight, current in found), (None, offset)]


def polynomial(coefficients: Sequence[float], values: Tensor) -> Tensor:
    """Sum of coefficient i times value^i, by Horner's rule."""
    result = torch.full_like(values, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result = result * values + coefficient
    return result


def shifted(coefficients: Sequence[float], by: float) -> list[float]:
    """Coefficients of q with q(x) = p(x + by)."""
    degree = len(coefficients)
    return [sum(coefficients[n] * math.comb(n, i) * by ** (n - i) for n in range(i, degree)) for i in range(degree)]


def interpolate(table: TableMultiplier, volts: Tensor) -> Tensor:
    """Currents [A] on the straight lines between the table's points; its ends hold beyond them."""
    points = torch.tensor(table.voltage, dtype=volts.dtype, device=volts.device)
    currents = torch.tensor(table.current, dtype=volts.dtype, device=volts.device)
    inside = volts.clamp(table.voltage[0], table.voltage[-1])
    high = torch.searchsorted(points, inside.detach().contiguous()).clamp(1, len(points) - 1)
    low = high - 1
    share = (inside - points[low]) / (points[high] - points[low])
    return currents[low] + share * (currents[high] - currents[low])
