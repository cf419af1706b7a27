"""NL-DPE (Zhao et al., arXiv 2511.13950, IEEE TCAD 2026): its headline numbers, measured on nl-dpe at 32 nm.

Only the paper's head and second-hand notes were at hand: which networks an average runs over, the GPU's latencies and
the periphery of a tile are not known. The core follows from a public table; what is compared with other chips is
conditional on the assumptions that `sensitivity` ranks. Nothing is fitted.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from math import prod
from pathlib import Path
from typing import Any, cast

from transformers import ResNetConfig

from cimphony.chip import Chip, Component, CrossbarUnit, load_chip
from cimphony.cost import CostReport, estimate
from cimphony.cost.pricing import price, total
from cimphony.cost.scaling import area_factor, energy_factor
from cimphony.mapping import place
from cimphony.nn.trace import trace
from cimphony.papers.claims import RECORDS, Claim, claims_record, figure, load_claims
from cimphony.papers.transformers import BERT_BASE, LLAMA_1B, LLAMA_3B, Shape, prefill
from cimphony.record import Record
from cimphony.workload import Workload

CHIP, CORE, GPU = "nl-dpe-32nm", "nl-dpe", "gpu-h100"
TOKENS, BATCH = 128, 128
HEADLINE = ("energy-gpu", "speed-gpu-1", "speed-gpu-batch", "energy-imc", "speed-imc")
# TensorRT's published INT8 latency of BERT-Base on an A100 (demo/BERT), 128 tokens: batch -> s; the H100's is not
READING = {1: 0.58e-3, 128: 8.18e-3}
READING_POWER = 400.0  # W, TDP of that A100
_PARTS = ("crossbars", "dac", "acam", "input_buffer", "output_buffer", "gray_decode")


def record(chip: str = CHIP) -> Record:
    """All claims measured, and what moves the two ratios of the abstract."""
    described, moved = load_chip(chip), sensitivity(chip)
    found = claims_record(
        f"NL-DPE (arXiv 2511.13950) on {chip}", claims(chip), [_figure(moved)], HEADLINE,
        beside={CORE: claims(CORE)} if chip == CHIP else None,
        chip=described.model_dump(mode="json"), settings={"paper": "nl-dpe", "chip": chip},
        assumptions=[
            *described.notes,
            f"averages are geometric, over BERT-Base with {TOKENS} tokens, ResNet-18 and -50 on 224 x 224 pixels: "
            "the paper's set is larger and its average not known",
            f"GPU: H100 as a roofline in INT8; beside it TensorRT's A100 latencies at {READING_POWER:g} W",
            "other in-memory chips: products with stored weights alone, what ISAAC and RAELLA have prices for",
        ],
    )  # fmt: skip
    found.results["sensitivity"] = moved
    return found


# workloads and estimates, each made once


@cache
def _network(name: str) -> Workload:
    if name == "bert":
        return prefill(BERT_BASE, TOKENS)
    kind, depths = ("basic", [2, 2, 2, 2]) if name == "resnet18" else ("bottleneck", [3, 4, 6, 3])
    widths = [64, 128, 256, 512] if kind == "basic" else [256, 512, 1024, 2048]
    config = ResNetConfig(depths=depths, hidden_sizes=widths, layer_type=kind)
    return trace(config, image=224, name=name)


NETWORKS = ("bert", "resnet18", "resnet50")


def batched(work: Workload, batch: int) -> Workload:
    """So many requests at once: more rows for stored weights, more groups for attention."""
    scaled = [
        one.model_copy(
            update={
                "m": one.m * (batch if one.kind == "static_matmul" else 1),
                "groups": one.groups * (batch if one.kind == "dynamic_matmul" else 1),
                "elements": one.elements * batch,
            }
        )
        for one in work.operations
    ]
    return work.model_copy(update={"operations": scaled, "batch": work.batch * batch})


@cache
def _cost(chip: str, network: str, batch: int = 1) -> CostReport:
    return estimate(batched(_network(network), batch), load_chip(chip))


def _mean(ratios: list[float]) -> float:
    return prod(ratios) ** (1 / len(ratios))


# the core


def _core(chip: str) -> CrossbarUnit:
    return load_chip(chip).unit("analog", CrossbarUnit)


def core_power(chip: str, of: str = CORE) -> float:
    """Every part of a core at work in every cycle [mW]; the table's own reading."""
    unit = _core(of)
    cycle = {"read": 1, "drive": unit.rows, "convert": unit.rows}  # as many outputs as rows
    priced = [part for part in price(load_chip(of)).units["analog"] if part.name.removeprefix("analog.") in _PARTS]
    return sum(total(cycle, part) for part in priced) / unit.cycle * 1e3


def core_area(chip: str, of: str = CORE) -> float:
    """[mm2]."""
    unit = _core(of)
    priced = [part for part in price(load_chip(of)).units["analog"] if part.name.removeprefix("analog.") in _PARTS]
    return sum(part.area for part in priced) / prod(unit.count.values()) * 1e6


def acam_share(chip: str, column: str, of: str = CORE) -> float:
    """Share of the ACAMs in power or area of a core [%]."""
    unit = _core(of)
    (acam,) = (part for part in price(load_chip(of)).units["analog"] if part.name == "analog.acam")
    if column == "area":
        return 100 * acam.area / prod(unit.count.values()) * 1e6 / core_area(chip, of)
    return 100 * total({"convert": unit.rows}, acam) / unit.cycle * 1e3 / core_power(chip, of)


def cells(chip: str) -> float:
    """ACAM cells for any function at the chip's bits."""
    acam = _core(chip).acam
    assert acam is not None
    return acam.cells


def cell(chip: str, column: str, of: str = CORE) -> float:
    """A cell's energy [fJ] or area [um2] of the core's table, carried from 22 to 16 nm."""
    acam = _core(of).acam
    assert acam is not None
    assert acam.cell is not None
    if column == "area":
        return acam.cell.area * area_factor(22e-9, 16e-9) * 1e12
    return acam.cell.energy * energy_factor(22e-9, 16e-9) * 1e15


# blocks at 16 nm


def converter_ratio(chip: str, column: str) -> float:
    """An 8-bit ADC alone over an ACAM at 16 nm: area; or the ACAM's energy saved [%]."""
    adc = _core("nl-dpe-adc").converter
    assert adc is not None
    assert adc.energy_law is not None
    assert adc.energy_law.kind == "doubling"
    node = adc.node or load_chip("nl-dpe-adc").node
    if column == "area":
        return (adc.area or 0.0) * area_factor(node, 16e-9) * 1e12 / (cells(CORE) * 0.72)
    return 100 * (1 - cells(CORE) * 0.44e-15 / (adc.energy_law.energy * energy_factor(node, 16e-9)))


def multiplier_saving(chip: str) -> float:
    """Energy of a product of 8 bits by ACAM lookups of nibbles below that of a digital multiplier, 16 nm [%]."""
    energies = [_product("race-it"), _product("nl-dpe-adc")]
    return 100 * (1 - energies[0] / energies[1])


def _product(chip: str) -> float:
    part: Component = load_chip(chip).units["digital"].components["multiplier"]
    return part.energy["dynamic_mac"] * energy_factor(part.node or 16e-9, 16e-9)


def pass_energy(chip: str, of: str) -> float:
    """Of one core for one input, without memory, bus and router [pJ]; all rows and columns in use."""
    unit, slices = _core(of), 8
    counts: dict[str, float] = {"read": slices, "drive": slices * unit.rows}
    conversions = unit.rows if unit.acam else slices * unit.columns / 2
    counts |= {"convert": conversions, "convert_mlc": conversions, "add": 0 if unit.acam else conversions}
    leave_out = ("edram", "bus", "router", "adder")
    parts = price(load_chip(of)).units["analog"]
    return sum(total(counts, part) for part in parts if part.name.removeprefix("analog.") not in leave_out) * 1e12


# against other chips


def gpu_energy(chip: str, reading: bool = False, batch: int = 1) -> float:
    """A GPU's energy of a request over ours; reading: BERT-Base at the published latency instead of a roofline."""
    if reading:
        return READING[batch] * READING_POWER / batch / _cost(chip, "bert").energy
    return _mean([_cost(GPU, one, batch).energy / batch / _cost(chip, one).energy for one in NETWORKS])


def gpu_speed(chip: str, reading: bool = False, batch: int = 1) -> float:
    """A GPU's time of a request over ours: latency at batch 1, time between requests of a stream above."""
    if reading:
        ours = _cost(chip, "bert")
        return READING[batch] / batch / (ours.latency if batch == 1 else ours.interval)
    if batch == 1:
        return _mean([_cost(GPU, one).latency / _cost(chip, one).latency for one in NETWORKS])
    return _cost(GPU, "bert", batch).interval / batch / _cost(chip, "bert").interval


def _products(chip: str, network: str) -> CostReport:
    """Stored products alone."""
    work = _network(network)
    kept = [one for one in work.operations if one.kind == "static_matmul"]
    return estimate(work.model_copy(update={"operations": kept}), load_chip(chip))


def memory_energy(chip: str, other: str) -> float:
    """Another in-memory chip's energy of stored products over ours."""
    return _mean([_products(other, one).energy / _products(chip, one).energy for one in NETWORKS])


def memory_speed(chip: str, other: str) -> float:
    """Another in-memory chip's latency of stored products over ours."""
    return _mean([_products(other, one).latency / _products(chip, one).latency for one in NETWORKS])


@cache
def _llama(chip: str, shape: Shape) -> CostReport:
    return estimate(prefill(shape, TOKENS), load_chip(chip))


def chips(chip: str, shape: Shape) -> float:
    """Chips that the layers of a model take."""
    return place(prefill(shape, TOKENS), load_chip(chip)).chips


def llama(chip: str, shape: Shape, column: str) -> float:
    """The GPU roofline's energy or latency of a prompt over ours."""
    ours, other = _llama(chip, shape), _llama(GPU, shape)
    return other.energy / ours.energy if column == "energy" else other.latency / ours.latency


def link_share(chip: str, shape: Shape) -> float:
    """Share of the links between chips in the energy of a prompt [%]."""
    report = _llama(chip, shape)
    return 100 * report.link_energy / report.energy


def ninth_bit(chip: str) -> float:
    """Energy that codes of nine bits add to BERT-Base [%]: twice the cells in every ACAM."""
    described = load_chip(chip)
    more = estimate(_network("bert"), described.replace({"units.analog.adc.bits": 9}))
    return 100 * (more.energy / _cost(chip, "bert").energy - 1)


# what moves the ratios

_MEMORY = "units.analog.components"
VARIATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "22 nm, as the core's table": (CORE, {}),
    "operands kept in registers: 1 number a product instead of 3": ("", {"units.functions.traffic": 1.0}),
    "memory and bus cost nothing: the core alone": (
        "", {f"{_MEMORY}.{part}.energy": {} for part in ("edram", "bus", "router")},
    ),
    "memory never waited for": ("", {"units.functions.bandwidth": None}),
    "memory never waited for, 1 number a product": (
        "", {"units.functions.bandwidth": None, "units.functions.traffic": 1.0},
    ),
    "one inner product a pass": ("", {"units.functions.packing": "vector"}),
    "digital partial sums": ("", {"units.analog.adc.partial_sums": "digital"}),
    "twice the tiles": ("", {"units.analog.count.tile": 1536, "units.vector.count.tile": 1536}),
    "2 ns a bit of the inputs": ("", {"units.analog.cycle": 2e-9}),
    "9-bit codes": ("", {"units.analog.adc.bits": 9}),
    "GPU at TDP of 350 W": (GPU, {"units.gpu.power": 350.0}),
    "GPU at a tenth of its peak": (GPU, {"units.gpu.compute_utilisation": 0.1}),
}  # fmt: skip


def sensitivity(chip: str = CHIP) -> list[dict[str, Any]]:
    """BERT-Base against the GPU roofline: energy at batch 1, time between requests at a large batch, one field changed.

    Rows with `energy` and `speed`, and how many times they move from the first row, which changes nothing.
    """
    rows: list[dict[str, Any]] = []
    for label, (which, changes) in {"as described": ("", {}), **VARIATIONS}.items():
        ours = load_chip(which if which == CORE else chip).replace({} if which == GPU else changes)
        other = load_chip(GPU).replace(changes if which == GPU else {})
        rows.append(_ratios(label, ours, lambda work, other=other: estimate(work, other)))
    free = load_chip(chip).replace({"units.functions.bandwidth": None})
    for label, ours, batch in (
        ("GPU at TensorRT's published A100 latency", load_chip(chip), BATCH),
        ("the same, memory never waited for", free, BATCH),
        ("the same, and the GPU takes one text at a time in the stream too", free, 1),
    ):
        here = estimate(_network("bert"), ours)
        energy, speed = READING[1] * READING_POWER / here.energy, READING[batch] / batch / here.interval
        rows.append({"assumption": label, "energy": energy, "speed": speed})
    first = rows[0]
    for row in rows:
        row |= {f"{name}_factor": row[name] / first[name] for name in ("energy", "speed")}
    return rows


def _ratios(label: str, ours: Chip, gpu: Callable[[Workload], CostReport]) -> dict[str, Any]:
    work, here = _network("bert"), estimate(_network("bert"), ours)
    batch = gpu(batched(work, BATCH)).interval / BATCH
    return {"assumption": label, "energy": gpu(work).energy / here.energy, "speed": batch / here.interval}


def _figure(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return figure(
        "sensitivity", "BERT-Base against an H100 roofline, one assumption changed", ("assumption", "times better"),
        [row["assumption"] for row in rows],
        {
            "energy, paper 28x": [row["energy"] for row in rows],
            "throughput, paper 249x": [row["speed"] for row in rows],
        },
    )  # fmt: skip


# claims


def claims(chip: str = CHIP) -> list[Claim]:
    """Every claim of nl_dpe.yaml; those about accuracy measured where a record of our studies holds them."""
    found = load_claims("nl_dpe", _MEASURES, chip, {shape.name: shape for shape in (LLAMA_1B, LLAMA_3B)})
    known = recorded()
    return [
        replace(one, measure=lambda one=one: known[one.id], status="conditional", note=_OURS)
        if one.measure is None and one.id in known
        else one
        for one in found
    ]


_OURS = "on our models and tasks, not the paper's, mean of five chips or more: papers/results/nl_dpe-*.json"


def recorded(folder: Path | None = None) -> Mapping[str, float]:
    """Claims that studies measured, the worst task's: `results.claims` of every nl_dpe*.json, {id: points lost}."""
    found: dict[str, float] = {}
    for path in sorted((folder or RECORDS).glob("nl_dpe*.json")):
        results = cast("dict[str, Any]", json.loads(path.read_text(encoding="utf-8"))).get("results", {})
        if isinstance(results.get("claims"), dict):
            for name, value in results["claims"].items():
                found[name] = max(float(value), found.get(name, -math.inf))
    return found


_MEASURES = (
    acam_share, cell, cells, chips, converter_ratio, core_area, core_power, gpu_energy, gpu_speed, link_share, llama,
    memory_energy, memory_speed, multiplier_saving, ninth_bit, pass_energy,
)  # fmt: skip
