"""One operation on one unit: how often each action happens and how long the unit is busy."""

import math

from cimphony.chip import AcamUnit, GainCellAttentionUnit, GpuUnit, NorPimUnit, SpecialFunctionUnit, Unit
from cimphony.chip.pricing import instances
from cimphony.cost.gain_cell import on_gain_cell
from cimphony.cost.job import Job
from cimphony.workload import Operation


def on_nor_pim(unit: NorPimUnit, operation: Operation) -> Job:
    """A product of activations inside memory; the operands and the result are written into it."""
    macs = operation.macs * unit.density
    into_values = unit.attention is not None and operation.function == "attention_value"
    cycles = macs / unit.rate(unit.attention.probability_bits if into_values and unit.attention else unit.bits)
    counts = {"cycle": cycles, "mac": macs, "write": operand_bytes(operation, unit.bits)}
    return Job(counts, cycles / unit.clock)


def operand_bytes(operation: Operation, bits: int) -> float:
    """Bytes of the stored operand and the result of a product of activations, over all repeats."""
    numbers = operation.k * operation.n + operation.m * operation.n
    return numbers * operation.groups * operation.repeat * bits / 8


def on_special_function(unit: SpecialFunctionUnit, operation: Operation) -> Job:
    """Elementwise work, one element after another."""
    elements = operation.elements * operation.repeat
    return Job({"element": elements}, elements / (unit.inputs_per_cycle * unit.clock))


def on_roofline(unit: GpuUnit, operation: Operation) -> Job:
    """Arithmetic or memory traffic, whichever takes longer.

    Weights are read once per repeat, of experts those that its tokens hit; attention scores and everything elementwise
    stay in caches (fused kernels).
    """
    pruned = unit.density if operation.kind == "dynamic_matmul" else 1.0
    macs = operation.macs * pruned
    traffic = _traffic(operation) * pruned * operation.repeat * unit.bits / 8
    arithmetic = (2 * macs + (0 if macs else operation.elements * operation.repeat)) / unit.peak
    seconds = max(arithmetic / unit.compute_utilisation, traffic / (unit.bandwidth * unit.memory_utilisation))
    counts = {"mac": macs, "byte": traffic, "element": 0.0 if macs else float(operation.elements * operation.repeat)}
    counts["static_mac" if operation.weights else "dynamic_mac"] = macs
    return Job(counts, seconds)


def _traffic(operation: Operation) -> float:
    """Numbers moved between memory and processor in one repeat."""
    m, k, n, groups = operation.m, operation.k, operation.n, operation.groups
    if operation.weights:
        return k * n * operation.hit + (m * k + m * n) * operation.used
    if operation.kind == "dynamic_matmul":  # the scores are the largest matrix of query_key and of its twin
        return (m * k + k * n + m * n - max(m * n, m * k)) * groups
    return 0.0


def job_on(unit: Unit, operation: Operation) -> Job | None:
    """An operation on any unit but a crossbar; None where there is no cost model for that kind of unit."""
    if isinstance(unit, NorPimUnit):
        return on_nor_pim(unit, operation)
    if isinstance(unit, SpecialFunctionUnit):
        return on_special_function(unit, operation)
    if isinstance(unit, GainCellAttentionUnit):
        return on_gain_cell(unit, operation)
    return on_roofline(unit, operation) if isinstance(unit, GpuUnit) else None


def unit_instances(unit: Unit) -> int:
    """Instances of a unit on one chip: modules where it has them."""
    if isinstance(unit, GpuUnit | GainCellAttentionUnit | AcamUnit):
        return 1
    return instances(unit.count, "module") if "module" in unit.count else math.prod(unit.count.values())
