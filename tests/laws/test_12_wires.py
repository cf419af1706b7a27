"""Wires: what the converter sees is what the array's resistor network gives, solved node by node."""

import pytest
import torch
from torch import Tensor

from cimphony.chip import (
    CrossbarUnit,
    GaussianDevice,
    IdealDevice,
    MeasuredDevice,
    MeasuredLevel,
    PcmDevice,
    Wires,
    load_chip,
)
from cimphony.circuits import write
from cimphony.circuits.wires import seen
from cimphony.errors import ChipError
from tests.conftest import integers, unit

DEVICE = PcmDevice(g_max=100e-6)


def network(levels: Tensor, wires: Wires) -> Tensor:
    """Conductance [row, column] from each driver to each virtual ground, by nodal analysis of the whole array."""
    rows, columns = levels.shape
    cells = rows * columns
    g = levels.double() * DEVICE.g_max
    row_wire, column_wire = 1 / wires.row, 1 / wires.column
    matrix = torch.zeros(2 * cells, 2 * cells, dtype=torch.float64)  # nodes on row wires, then on column wires
    drive = torch.zeros(2 * cells, rows, dtype=torch.float64)

    def resistor(one: int, other: int | None, value: float) -> None:
        matrix[one, one] += value
        if other is not None:
            matrix[other, other] += value
            matrix[one, other] -= value
            matrix[other, one] -= value

    for i in range(rows):
        for j in range(columns):
            above, below = i * columns + j, cells + i * columns + j
            resistor(above, below, float(g[i, j]))
            resistor(above, above - 1 if j else None, row_wire)
            resistor(below, below - columns if i else None, column_wire)
            if j == 0:
                drive[above, i] = row_wire
    voltages = torch.linalg.solve(matrix, drive)
    return (voltages[cells : cells + columns] * column_wire).T


@pytest.mark.parametrize("column", [0.5, 20.0])
def test_column_wires_are_exact(column: float) -> None:
    levels = torch.rand(24, 10, dtype=torch.float64)
    wires = Wires(row=1e-9, column=column)
    share = seen(wires, DEVICE, levels, 1, 24, 10)
    torch.testing.assert_close(levels * share * DEVICE.g_max, network(levels, wires), rtol=1e-7, atol=0)
    assert float(share.min()) < 1 - column * 1e-3


def test_row_wires_are_exact() -> None:
    levels = torch.rand(10, 24, dtype=torch.float64)
    wires = Wires(row=5.0, column=1e-9)
    share = seen(wires, DEVICE, levels, 1, 10, 24)
    torch.testing.assert_close(levels * share * DEVICE.g_max, network(levels, wires), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("ohm", "loses"), [(1.0, 0.02), (4.0, 0.07)])
def test_both_leave_a_small_error(ohm: float, loses: float) -> None:
    """Of the current of columns, for inputs of random bits: below a tenth of the loss squared."""
    levels = torch.rand(24, 24, dtype=torch.float64)
    wires = Wires(row=ohm, column=ohm)
    inputs = torch.randint(0, 2, (200, 24)).double()
    perfect, truth = inputs @ levels * DEVICE.g_max, inputs @ network(levels, wires)
    ours = inputs @ (levels * seen(wires, DEVICE, levels, 1, 24, 24)) * DEVICE.g_max
    loss = float(1 - truth.sum() / perfect.sum())
    assert loss > loses
    assert float((ours - truth).norm() / truth.norm()) < 0.1 * loss**2


def test_arrays_do_not_touch() -> None:
    """A layer over many arrays is as its arrays one by one, also where the last ones are not full."""
    levels, wires = torch.rand(150, 70, dtype=torch.float64), Wires(row=3.0, column=2.0)
    whole = seen(wires, DEVICE, levels, 1, 64, 32)
    for low in range(0, 150, 64):
        for left in range(0, 70, 32):
            part = levels[low : low + 64, left : left + 32]
            torch.testing.assert_close(
                whole[low : low + 64, left : left + 32], seen(wires, DEVICE, part, 1, 64, 32), rtol=0, atol=0
            )


def wired(wires: Wires | None, encoding: str = "differential") -> CrossbarUnit:
    """A phase-change unit of the law matrix with wires."""
    return unit(device="pcm", encoding=encoding).model_copy(update={"wires": wires})


@pytest.mark.parametrize("encoding", ["differential", "twos-complement"])
def test_wires_only_take(encoding: str) -> None:
    weights, chip = integers(130, 40), {"seed": 1, "name": "layer", "seconds": 0.0, "largest_sum": None}
    (mode,) = wired(None).cell.bits
    perfect, none, some = (
        write(wired(one, encoding), mode, weights, **chip) for one in (None, Wires(), Wires(row=2.0, column=2.0))
    )
    torch.testing.assert_close(perfect.conductance, none.conductance, rtol=0, atol=0)
    assert bool((some.conductance.abs() <= perfect.conductance.abs() + 1).all())
    assert float(some.conductance.abs().double().sum()) < 0.999 * float(perfect.conductance.abs().double().sum())


def test_levels_need_conductances() -> None:
    ideal = load_chip("hyflexpim").replace({"units.analog.cell.device": {"kind": "ideal"}})
    with pytest.raises(ChipError, match=r"give wires\.g_max"):
        ideal.replace({"units.analog.wires": {"column": 1.0}})
    made = ideal.replace({"units.analog.wires": {"column": 1.0, "g_max": 50e-6}})
    assert made.without("wires").units["analog"].wires is None  # type: ignore[union-attr]
    for chip, given in ((load_chip("pcm-256"), {"g_max": 1e-4}), (ideal, {"g_min": 1e-3, "g_max": 1e-4})):
        with pytest.raises(ChipError, match=r"wires\.g_m"):
            chip.replace({"units.analog.wires": {"column": 1.0, **given}})
    assert Wires(g_max=2.0).conductances(IdealDevice()) == (0.0, 2.0)
    levels = tuple(MeasuredLevel(target=g, mean=g, sd=0.0) for g in (1e-6, 2e-5))
    assert Wires().conductances(MeasuredDevice(levels=levels)) == (1e-6, 2e-5)
    assert Wires(g_min=1.0, g_max=2.0).conductances(GaussianDevice()) == (1.0, 2.0)
