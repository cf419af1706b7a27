"""Gain-cell attention (Leroux et al., Nature Computational Science 2025): its headline numbers.

Energies, time and area of a token are calibrated, so they prove nothing. What follows from them together with the
published GPU readings is beside what follows with a plain roofline of the same GPUs: the readings were taken in
single precision, attention alone, 64 texts at once, and reach about a quarter of the memory bandwidth.
"""

import math
from functools import cache
from typing import Any

from cimphony.chip import Chip, CubicMultiplier, GainCellAttentionUnit, GpuUnit, load_chip
from cimphony.cost import CostReport, estimate
from cimphony.papers.claims import Claim, claims_record, figure, load_claims
from cimphony.record import Record
from cimphony.workload import Operation, Workload

CHIP = "gain-cell-cmos"
HEADS, SIZE, CONTEXT, BATCH, LAYERS = 12, 64, 1024, 64, 12  # GPT-2, as the GPUs were measured
READINGS = {"gpu-rtx4090": (22.37e-6, 7.178e-3), "gpu-jetson-nano": (488.9e-6, 3.246e-3)}  # s and J a token, one layer
HALF_PRECISION = {"gpu-rtx4090": 165.2e12, "gpu-jetson-nano": 472e9, "gpu-h100": 989.4e12}  # dense peaks
HEADLINE = ("speed-4090", "speed-nano", "energy-4090", "energy-nano")


def record(chip: str = CHIP) -> Record:
    """All claims measured."""
    described = load_chip(chip)
    return claims_record(
        f"Gain-cell attention (Nature Computational Science 2025) on {chip}", claims(chip), figures(chip), HEADLINE,
        chip=described.model_dump(mode="json"), settings={"paper": "gain-cell-attention", "chip": chip},
        assumptions=[
            *described.notes,
            "published GPU readings: PyTorch's attention in fp32, batch 64, 1024 tokens cached, tokens one at a time, "
            "no projections, latency divided by the batch, power above idle",
            "roofline: bf16 (fp16 on Jetson Nano), the same batch and context, 75 % of the bandwidth, power above idle",
        ],
    )  # fmt: skip


def attention(batch: int = 1) -> Workload:
    """One layer's attention for one new token in every text of a batch."""
    common: dict[str, Any] = {"layer": "attention", "phase": "decode", "groups": HEADS * batch}
    scores = Operation(kind="dynamic_matmul", function="query_key", m=1, k=SIZE, n=CONTEXT, **common)
    mixed = Operation(kind="dynamic_matmul", function="attention_value", m=1, k=CONTEXT, n=SIZE, **common)
    name = f"GPT-2, attention of one layer, batch {batch}"
    return Workload(model=name, operations=[scores, mixed], batch=batch, new_tokens=1)


@cache
def _cost(chip: str, batch: int = 1) -> CostReport:
    return estimate(attention(batch), _half(chip) if chip in HALF_PRECISION else load_chip(chip))


def _half(gpu: str) -> Chip:
    """The GPU in half precision, and without what it draws when idle, as the readings leave out."""
    found = load_chip(gpu)
    unit = found.unit("gpu", GpuUnit)
    changes = {"bits": 16, "peak": HALF_PRECISION[gpu], "power": unit.power - unit.idle_power, "idle_power": 0.0}
    return found.replace({f"units.gpu.{field}": value for field, value in changes.items()})


def _unit(chip: str) -> GainCellAttentionUnit:
    return load_chip(chip).unit("attention", GainCellAttentionUnit)


def latency(chip: str) -> float:
    """Of one token [ns]."""
    return _cost(chip).latency * 1e9


def token_energy(chip: str) -> float:
    """Of one token and head [nJ]."""
    return _cost(chip).energy / HEADS * 1e9


def part_energy(chip: str, part: str) -> float:
    """Of one component, token and head [pJ]."""
    rows = {row["component"]: row["energy"] for row in _cost(chip).by("component")}
    return rows[f"attention.{part}"] / HEADS * 1e12


def head_area(chip: str) -> float:
    """[mm2]."""
    return _cost(chip).area / (HEADS * LAYERS) * 1e6


def speed(chip: str, gpu: str, roofline: bool = False) -> float:
    """A GPU's latency of a token over ours: the published reading, or a roofline at the same batch."""
    other = _cost(gpu, BATCH).latency / BATCH if roofline else READINGS[gpu][0]
    return other / _cost(chip).latency


def energy(chip: str, gpu: str, roofline: bool = False) -> float:
    """A GPU's energy of a token over ours."""
    other = _cost(gpu, BATCH).energy / BATCH if roofline else READINGS[gpu][1]
    return other / _cost(chip).energy


def bandwidth_reached(chip: str, gpu: str) -> float:
    """Share of the memory bandwidth that a published reading stands for, at 4 bytes a number [%]."""
    moved = 2 * HEADS * SIZE * CONTEXT * 4  # keys and values of one text
    return 100 * moved / READINGS[gpu][0] / load_chip(gpu).unit("gpu", GpuUnit).bandwidth


def bits(chip: str, signal: str) -> float:
    """Of the queries, the memories or a readout."""
    unit = _unit(chip)
    levels = {"query": unit.pulses.input_levels, "memory": unit.cell.levels, "output": unit.pulses.output_levels}
    return math.log2(levels[signal] or math.inf)


def retention(chip: str) -> float:
    """[ms]."""
    return (_unit(chip).cell.retention or math.inf) * 1e3


def decay(chip: str) -> float:
    """Share of its weight that a token loses until the next, in 1e-4."""
    unit = _unit(chip)
    return unit.period(LAYERS) / (unit.cell.retention or math.inf) * 1e4


def current(chip: str, volts: float) -> float:
    """Of a cell at a stored voltage [uA]."""
    above = volts - _unit(chip).cell.middle
    multiplier = _unit(chip).cell.multiplier
    assert isinstance(multiplier, CubicMultiplier)
    return 1e6 * sum(factor * above**power for power, factor in enumerate(multiplier.polynomial))


def slope(chip: str) -> float:
    """Of the straight line through the middle that fits the current best over the supply, by least squares [uA/V]."""
    cell = _unit(chip).cell
    points = [cell.middle * (index / 5000 - 1) for index in range(10_001)]
    values = [current(chip, cell.middle + point) for point in points]
    return sum(y * f for y, f in zip(points, values, strict=True)) / sum(y * y for y in points)


def claims(chip: str = CHIP) -> list[Claim]:
    """Every claim of gain_cell_attention.yaml, with its measuring function bound to a chip."""
    return load_claims("gain_cell_attention", _MEASURES, chip)


_MEASURES = (
    bandwidth_reached, bits, current, decay, energy, head_area, latency, part_energy, retention, slope, speed,
    token_energy,
)  # fmt: skip


def figures(chip: str = CHIP) -> list[dict[str, Any]]:
    """Energy of a token by part over the window, and speed and energy against GPUs, as plain data."""
    windows = [64, 128, 256, 512, 1024]
    described = load_chip(chip)
    reports = [estimate(attention(), described.replace({"units.attention.window": at})) for at in windows]
    parts: dict[str, list[float]] = {}
    for report in reports:
        for row in report.by("component"):
            parts.setdefault(row["component"], []).append(row["energy"] / HEADS * 1e12)
    ratios = {
        f"{what} than {than}": [measure(chip, gpu, roofline) for gpu in READINGS]
        for measure, what in ((speed, "times faster"), (energy, "times less energy"))
        for roofline, than in ((False, "the reading"), (True, "a half-precision roofline"))
    }
    return [
        figure("5", "Energy of a token and head", ("window", "pJ"), windows, parts),
        figure("5 b", "Against GPUs", ("GPU", "ratio"), list(READINGS), ratios),
    ]
