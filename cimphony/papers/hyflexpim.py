"""HyFlexPIM (Song et al., ISCA 2025): every number of sections 1, 3, 5 and 6 that a cost model can be held to.

Reading S1 + D2 (docs/papers/hyflexpim.md): Table 2's power is the 6-bit mode, a 7-bit conversion costs twice as
much; the digital arrays work all rows in parallel, 819 INT8 products a cycle and module. Nothing is fitted; the
baselines SPRINT, NMP and non-PIM are calibrated to the paper's linear-layer ratios and say so.
"""

import math
from functools import cache
from typing import Any

from cimphony.chip import Chip, CrossbarUnit, NorPimUnit, load_chip
from cimphony.cost import CostReport, estimate
from cimphony.cost.lifetime import endurance, one_copy
from cimphony.mapping import place
from cimphony.papers.claims import Claim, claims_record, figure, load_claims
from cimphony.papers.transformers import BERT_BASE, BERT_LARGE, GPT2, LLAMA_1B, Shape, prefill
from cimphony.record import Record
from cimphony.workload import Operation, Workload

LENGTHS = (128, 256, 512, 1024, 2048, 4096, 8192)
RATES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
HEADLINE = ("energy-5", "energy-20", "speed-max", "speed-min", "area", "sprint-bert", "non-pim-bert", "sprint-gpt2",
            "non-pim-gpt2")  # fmt: skip
CHIP = "hyflexpim"
BASELINES = ("asadi-int8", "nmp-transpim", "sprint", "non-pim")
SHAPES = (BERT_BASE, BERT_LARGE, GPT2, LLAMA_1B)


def record(chip: str = CHIP) -> Record:
    """All claims measured on the chip as published, or on a variant such as hyflexpim-corrected."""
    described = load_chip(chip)
    return claims_record(
        f"HyFlexPIM (ISCA 2025) on {chip}", claims(chip), figures(chip), HEADLINE,
        beside={f"{CHIP}-corrected": claims(f"{CHIP}-corrected")} if chip == CHIP else None,
        chip=described.model_dump(mode="json"), settings={"paper": "hyflexpim", "chip": chip},
        assumptions=list(described.notes),
    )  # fmt: skip


# estimates, each made once


@cache
def _variant(chip: str, rate: float | None) -> Chip:
    described = load_chip(chip)
    return described if rate is None else described.replace({"units.analog.cell.slc_rate": rate})


@cache
def _cost(chip: str, rate: float | None, shape: Shape, tokens: int) -> CostReport:
    return estimate(prefill(shape, tokens), _variant(chip, rate))


def _other(chip: str, other: str, shape: Shape, tokens: int) -> CostReport:
    """A baseline; ASADI-dagger is always the hardware at hand with 1-bit cells only (asadi-int8 for hyflexpim)."""
    return _cost(chip, 1.0, shape, tokens) if other == "asadi-int8" else _cost(other, None, shape, tokens)


def _linear(report: CostReport) -> float:
    return next(row["energy"] for row in report.by("operation") if row["operation"] == "static_matmul")


def linear_gain(chip: str, other: str, rate: float, shape: Shape = BERT_LARGE, tokens: int = 128) -> float:
    """Energy of the linear layers on another chip over that on ours at an SLC rate."""
    return _linear(_other(chip, other, shape, tokens)) / _linear(_cost(chip, rate, shape, tokens))


def energy_gain(chip: str, other: str, rate: float, shape: Shape, tokens: int) -> float:
    """End-to-end energy on another chip over that on ours at an SLC rate."""
    return _other(chip, other, shape, tokens).energy / _cost(chip, rate, shape, tokens).energy


def speed_gain(chip: str, rate: float, shape: Shape, tokens: int) -> float:
    """Interval of a stream on ASADI-dagger over that on ours at an SLC rate."""
    return _other(chip, "asadi-int8", shape, tokens).interval / _cost(chip, rate, shape, tokens).interval


def float_attention_gain(chip: str, shape: Shape, rate: float, tokens: int = 1024) -> float:
    """End-to-end energy against ASADI-dagger with ASADI's FP32 attention on diagonal windows of n / 8."""
    other = _variant(chip, 1.0).replace({"units.digital.bits": 32, "units.digital.density": 0.125})
    return estimate(prefill(shape, tokens), other).energy / _cost(chip, rate, shape, tokens).energy


def area_gain(chip: str, rate: float = 0.05) -> float:
    """Arrays that BERT-Large takes in SLC alone over those it takes at an SLC rate."""
    slc, hybrid = (place(prefill(BERT_LARGE, 128), one_copy(_variant(chip, at))).arrays for at in (1.0, rate))
    return slc / hybrid


# Table 2


@cache
def _module(chip: str, kind: str) -> tuple[CostReport, float]:
    """One module kept busy, and for how long [s]: everything it has works at once, in SLC mode."""
    described = _variant(chip, 1.0)
    busy = {"analog": ("digital", "sfu"), "digital": ("analog",)}[kind]
    policy = {name: unit for name, unit in described.policy.items() if unit not in busy}
    one = {f"units.{unit}.count.{level}": 1 for unit in ("analog", "digital", "sfu") for level in ("module", "pu")}
    one_module = described.replace({**one, "policy": policy})
    if kind == "analog":
        work = [Operation(layer="0.w", kind="static_matmul", m=1000, k=64, n=16 * 512)]
        seconds = 1000 * 8 * 100e-9
    else:
        cycles, rate = 10**6, 819.2
        work = [Operation(layer="0.a", kind="dynamic_matmul", m=1024, k=int(cycles * rate / 1024), n=1),
                Operation(layer="0.s", kind="softmax", elements=256 * cycles)]  # fmt: skip
        seconds = cycles * 1e-9
    return estimate(Workload(model="one module", operations=work), one_module), seconds


def module_power(chip: str, kind: str) -> float:
    """Power of one busy module [mW]."""
    report, seconds = _module(chip, kind)
    return report.dynamic_energy / seconds * 1e3


def module_area(chip: str, kind: str) -> float:
    """Area of one module [mm2]."""
    report, _ = _module(chip, kind)
    units = {"analog": ("analog.",), "digital": ("digital.", "sfu.")}[kind]
    return sum(row["area"] for row in report.by("component") if row["component"].startswith(units)) * 1e6


def total_area(chip: str, kind: str, modules: int) -> float:
    """Area of so many modules [mm2]."""
    return modules * module_area(chip, kind)


def unit_power(chip: str) -> float:
    """Power of a processing unit with every module busy [W]."""
    return (24 * module_power(chip, "analog") + 8 * module_power(chip, "digital")) / 1e3


def adc_share(chip: str, column: str) -> float:
    """Share of the converters in power or area of an analog module [%]."""
    report, _ = _module(chip, "analog")
    rows = {row["component"]: row[column] for row in report.by("component") if row["component"].startswith("analog.")}
    return 100 * rows["analog.adc"] / sum(rows.values())


# capacity, scaling, lifetime


def lossless_bits(chip: str, top: int) -> float:
    """Converter bits that tell every sum of a column of levels 0 to `top` apart; flipped columns halve the sum."""
    unit = load_chip(chip).unit("analog", CrossbarUnit)
    return math.ceil(math.log2(unit.rows * top // (2 if unit.encoding.flip else 1) + 1))


def converter_cycle(chip: str) -> float:
    """Time of one read at 1.28 GS/s [ns]."""
    adc = load_chip(chip).unit("analog", CrossbarUnit).converter
    assert adc is not None
    return adc.columns_per_adc / 1.28


def nor_rate(chip: str, reading: str) -> float:
    """INT8 products a cycle of a digital module."""
    read = load_chip(chip).replace({"units.digital.reading": reading})
    return read.unit("digital", NorPimUnit).operations_per_cycle


def bus_cycles(chip: str, size: int) -> float:
    """Cycles of 1 GHz that so many bytes take over the bus or between chips."""
    return size / load_chip(chip).links["chip"].bandwidth * 1e9


def pus_per_layer(chip: str, shape: Shape, rate: float, whole: bool = False) -> float:
    """Processing units that one layer takes."""
    placement = place(prefill(shape, 100), one_copy(_variant(chip, rate)))
    found = max(block.arrays for block in placement.blocks) / placement.per_level
    return math.ceil(found) if whole else found


def whole_chips(chip: str, shape: Shape, rate: float) -> float:
    """Chips that a model takes."""
    return place(prefill(shape, 100), _variant(chip, rate)).chips


def tensor_parallel(chip: str, shape: Shape, tokens: int) -> float:
    """Throughput with two processing units a layer over that with one."""
    described = _variant(chip, 0.3)
    half = described.replace({f"units.{unit}.count.pu": 12 for unit in ("analog", "digital", "sfu")})
    one, two = (estimate(prefill(shape, tokens), given) for given in (half, described))
    return one.interval / two.interval


def more_chips(chip: str, chips: int, tokens: int = 8192) -> float:
    """Throughput of Llama-3.2-1B on more chips over that on two."""
    work = prefill(LLAMA_1B, tokens)
    two, more = (estimate(work, _variant(chip, 0.2), chips=count) for count in (2, chips))
    return two.interval / more.interval


def years(chip: str, tokens: int, logic: bool) -> float:
    """Years that the digital arrays last at 10,000 BERT-Large requests a day."""
    life = endurance(prefill(BERT_LARGE, tokens), load_chip(chip), requests_per_day=10_000)
    found = life.logic_years if logic else life.operand_years
    assert found is not None
    return found


def scores_memory(chip: str, tokens: int = 8192) -> float:
    """Attention scores of a BERT-Large layer over the digital memory of a processing unit."""
    unit = load_chip(chip).unit("digital", NorPimUnit)
    return 16 * tokens**2 / (unit.module_bytes * unit.count["module"])


def static_share(chip: str, shape: Shape, tokens: int) -> float:
    """Share of the multiply-adds with stored weights [%], on any chip."""
    work = prefill(shape, tokens)
    return 100 * work.macs("static_matmul") / work.macs()


def mean_speed(chip: str, rate: float) -> float:
    """Mean speed-up over ASADI-dagger over both models and all lengths."""
    gains = [speed_gain(chip, rate, shape, tokens) for shape in (BERT_LARGE, GPT2) for tokens in LENGTHS]
    return sum(gains) / len(gains)


def seven_bit_reading(chip: str) -> float:
    """Linear-layer gain without SLC, were Table 2's converter power that of the 7-bit mode (reading S2)."""
    law = {"kind": "doubling", "bits": 7, "energy": 0.78125e-12}
    ours, other = (_variant(chip, rate).replace({"units.analog.adc.energy_law": law}) for rate in (0.0, 1.0))
    work = prefill(BERT_LARGE, 128)
    return _linear(estimate(work, other)) / _linear(estimate(work, ours))


def claims(chip: str = CHIP) -> list[Claim]:
    """Every numeric claim of hyflexpim.yaml, with its measuring function bound to a chip."""
    return load_claims("hyflexpim", _MEASURES, chip, {shape.name: shape for shape in SHAPES})


_MEASURES = (
    adc_share, area_gain, bus_cycles, converter_cycle, energy_gain, float_attention_gain, linear_gain, lossless_bits,
    mean_speed, module_area, module_power, more_chips, nor_rate, pus_per_layer, scores_memory, seven_bit_reading,
    speed_gain, static_share, tensor_parallel, total_area, unit_power, whole_chips, years,
)  # fmt: skip


# Figures 14 to 17 again, from our model


def figures(chip: str = CHIP) -> list[dict[str, Any]]:
    """Series of Figs 14 to 17 beside the published headline points, as plain data."""
    drawn = [draw(chip, shape) for shape in (BERT_LARGE, GPT2) for draw in (_figure_14, _figure_15, _figure_16)]
    return [*drawn, _figure_15_parts(chip), _figure_17(chip)]


def _figure_14(chip: str, shape: Shape) -> dict[str, Any]:
    lines = {other: [linear_gain(chip, other, rate, shape) for rate in RATES] for other in BASELINES}
    points = {"ASADI†": (5, 1.24), "NMP": (5, 3.31), "SPRINT": (5, 5.4), "non-PIM": (5, 6.6)}
    title, axes = f"Energy of linear layers over ours, {shape.name}", ("SLC rate [%]", "times more energy")
    return figure("14", title, axes, [100 * rate for rate in RATES], lines, points)


def _figure_15(chip: str, shape: Shape) -> dict[str, Any]:
    rate, published = (0.05, (4.94, 6.15, 1.67)) if shape is BERT_LARGE else (0.3, (4.69, 5.82, 1.44))
    lines = {other: [energy_gain(chip, other, rate, shape, tokens) for tokens in LENGTHS] for other in BASELINES}
    sprint, plain, asadi = published
    points = {"SPRINT": (128, sprint), "non-PIM": (128, plain), "ASADI (FP32 attention)": (1024, asadi)}
    title = f"Energy end to end over ours, {shape.name}, {rate:.0%} SLC"
    return figure("15", title, ("tokens", "times more energy"), LENGTHS, lines, points)


def _figure_15_parts(chip: str) -> dict[str, Any]:
    shares: dict[str, list[float]] = {}
    for report in (_cost(chip, 0.05, BERT_LARGE, tokens) for tokens in LENGTHS):
        found = {row["operation"]: row["energy"] for row in report.by("operation")}
        for operation in ("static_matmul", "dynamic_matmul", "softmax", "norm", "activation"):
            shares.setdefault(operation, []).append(100 * found.get(operation, 0.0) / report.energy)
    title = "Where the energy goes, BERT-Large, 5 % SLC"
    return figure("15 b", title, ("tokens", "share of energy [%]"), LENGTHS, shares)


def _figure_16(chip: str, shape: Shape) -> dict[str, Any]:
    lines = {f"{rate:.0%} SLC": [speed_gain(chip, rate, shape, tokens) for tokens in LENGTHS] for rate in RATES}
    points = {"best, 5 % SLC": (128, 1.86), "worst": (8192, 1.1)}
    return figure("16", f"Speed-up over ASADI†, {shape.name}", ("tokens", "times faster"), LENGTHS, lines, points)


def _figure_17(chip: str) -> dict[str, Any]:
    ours = {"GPT-2, 2 PUs a layer": tensor_parallel(chip, GPT2, 8192), "Llama, 4 chips": more_chips(chip, 4),
            "Llama, 8 chips": more_chips(chip, 8)}  # fmt: skip
    points = {name: (name, y) for name, y in zip(ours, (1.99, 1.96, 3.65), strict=True)}
    title, axes = "Throughput with more hardware, 8192 tokens", ("system", "times the smallest")
    return figure("17", title, axes, list(ours), {"ours": list(ours.values())}, points)
