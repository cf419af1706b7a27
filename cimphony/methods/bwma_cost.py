"""What the bits of the activations cost: energy, latency and area of a binary network's arrays, and where to stop."""

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from cimphony.chip import Chip
from cimphony.cost import estimate
from cimphony.errors import DataError
from cimphony.methods.bwma import BinaryLayer, binary_layers
from cimphony.nn.trace import trace
from cimphony.workload import Workload


def array_workload(model: nn.Module, image: int | tuple[int, ...], *, batch: int = 1) -> Workload:
    """The operations of a binary network with the dummy column; layers that are not binary stay digital, left out.

    Args:
        image: side, (height, width) or (channels, height, width).
    """
    names = set(binary_layers(model))
    plain = copy.deepcopy(model)
    for layer in [one for one in plain.modules() if isinstance(one, BinaryLayer)]:
        del layer.staircase, layer.arrays
        layer.__class__ = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear  # type: ignore[assignment]
    traced = trace(plain, image=image, batch=batch)
    operations = [
        one.model_copy(update={"n": one.n + 1}) if one.kind == "static_matmul" else one
        for one in traced.operations
        if one.kind != "static_matmul" or one.layer in names
    ]
    return traced.model_copy(update={"operations": operations})


def cost_of_bits(workload: Workload, chips: Sequence[Chip], bits: Sequence[int] = range(1, 9)) -> list[dict[str, Any]]:
    """Energy [J], latency [s] and area of the arrays taken [m2] of one request: a row for each chip and bits."""
    rows: list[dict[str, Any]] = []
    for chip in chips:
        for count in bits:
            report = estimate(workload, chip.replace({"units.analog.input.bits": count}))
            area = report.area * report.placement.utilisation
            parts = {str(row["component"]): row["energy"] for row in report.by("component") if row["energy"]}
            row = {"chip": chip.name, "bits": count, "energy": report.dynamic_energy, "latency": report.latency}
            rows.append(row | {"area": area, "energy_by_component": parts})
    return rows


def knee(accuracies: Mapping[int, Sequence[float]]) -> int:
    """The fewest bits whose mean accuracy lies within one standard error of the best mean.

    The one-standard-error rule (Breiman et al. 1984) with the standard error of the best. It knows no energy: since
    energy and latency only grow with the bits, the fewest are the cheapest, and no weight between the two is chosen.

    Args:
        accuracies: runs by number of bits, at least two each.
    """
    if not accuracies or any(len(runs) < 2 for runs in accuracies.values()):
        raise DataError("knee needs at least two runs for every number of bits: the rule compares with their spread")
    means = {bits: math.fsum(runs) / len(runs) for bits, runs in accuracies.items()}
    best = max(means, key=lambda bits: (means[bits], -bits))
    runs = accuracies[best]
    variance = math.fsum((one - means[best]) ** 2 for one in runs) / (len(runs) - 1)
    return min(bits for bits, mean in means.items() if mean >= means[best] - math.sqrt(variance / len(runs)))
