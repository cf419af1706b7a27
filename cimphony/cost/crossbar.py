"""Cost of products with stored weights: how often each action of a crossbar unit happens."""

from cimphony.chip import CrossbarUnit
from cimphony.cost.job import Job
from cimphony.mapping import LayerPlacement, input_places, weight_slices
from cimphony.workload import Operation

ACCUMULATOR_BYTES = 4  # of a partial sum on its way out of an array or between units


def on_crossbar(unit: CrossbarUnit, operation: Operation, layer: LayerPlacement) -> Job:
    """A product with stored weights: every input is read once per input slice in every array of the layer.

    An ADC converts every column of cells in every read; an ACAM converts an output once for the whole input, in
    every block of rows where partial sums are digital. Copies of a redundant layer are read side by side; their
    results meet in the same accumulators.
    """
    inputs, acam = operation.m * operation.repeat, unit.acam
    vectors = inputs * operation.used / operation.groups  # into each matrix: experts are hit equally often
    reads = vectors * input_slices(unit)
    driven, results, sums = 0, 0, 0  # rows of arrays, partial sums of outputs, outputs
    converted: dict[str, float] = {f"convert_{mode}": 0.0 for mode in unit.cell.bits}
    for region in layer.regions:
        blocks = 1 if acam and acam.partial_sums == "analog" else region.row_blocks
        driven += region.rows * region.column_blocks
        results += sum(region.outputs.values()) * blocks
        sums += sum(region.outputs.values())
        for mode, outputs in region.outputs.items():
            columns = outputs * (1 if acam else len(weight_slices(unit.encoding, unit.cell.bits[mode])))
            converted[f"convert_{mode}"] += (vectors if acam else reads) * columns * blocks * layer.matrices
    conversions = sum(converted.values())
    counts: dict[str, float] = {
        "read": reads * layer.arrays,
        "cell": reads * layer.cells,
        "drive": reads * driven * layer.matrices,
        "load": vectors * driven * layer.matrices * activation_bytes(unit),
        "store": vectors * results * layer.matrices * (acam.bits / 8 if acam else ACCUMULATOR_BYTES),
        "mac": operation.macs * layer.redundancy,
        "convert": conversions,
        "sample": conversions,
        "add": vectors * (results - sums) * layer.matrices if acam else conversions,
    }
    return Job(counts | converted, inputs * pass_time(unit))


def input_slices(unit: CrossbarUnit) -> int:
    """Reads of an array for one input; one where inputs are not quantised."""
    return 1 if unit.input.bits is None else len(input_places(unit.input))


def pass_time(unit: CrossbarUnit) -> float:
    """Time of one input in an array [s]: its slices, then an ACAM's search if it reads the columns."""
    return input_slices(unit) * unit.cycle + (unit.acam.time if unit.acam else 0.0)


def activation_bytes(unit: CrossbarUnit) -> float:
    """Bytes of one activation on its way between units; unquantised ones count as half precision."""
    return (unit.input.bits or 16) / 8


def partial_bytes(unit: CrossbarUnit) -> float:
    """Bytes of a partial sum on its way between units: an accumulator, an ACAM's code, none if summed as currents."""
    if unit.acam is None:
        return ACCUMULATOR_BYTES
    return unit.acam.bits / 8 if unit.acam.partial_sums == "digital" else 0.0
