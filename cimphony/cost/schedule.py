"""When the work happens: a pipeline over the blocks of a model, each on its share of the chips.

Inside a block the static products follow one another token by token; neighbours with the same input run side by
side. The other units of the block's share wait for them, or overlap with other requests where the chip says so.
"""

from collections import defaultdict
from collections.abc import Sequence

from cimphony.chip import CrossbarUnit
from cimphony.cost.crossbar import pass_time
from cimphony.cost.job import Job
from cimphony.mapping import BlockPlacement
from cimphony.workload import Operation

Times = defaultdict[str, float]  # busy time of each unit in one repetition of a block [s a request]


def static_times(
    unit: CrossbarUnit, placed: BlockPlacement, operations: Sequence[tuple[int, Operation]]
) -> tuple[float, float]:
    """Busy time and latency [s a request] of the static products of one pass through a block.

    `operations` come with their position in the block. With c copies, m tokens take m / c reads of the slowest
    product, and at least one; every further product in the chain adds one read for the first token.
    """
    read = pass_time(unit) * max(operation.repeat for _, operation in operations)
    vectors = max(operation.m for _, operation in operations) / placed.copies
    return vectors * read, (_depth(operations) - 1 + max(1.0, vectors)) * read


def spread(total: float, jobs: Sequence[Job]) -> list[float]:
    """A time shared out over operations by their own work."""
    work = [job.seconds for job in jobs]
    together = sum(work)
    return [total * one / together if together else total / len(work) for one in work]


def passes(operations: Sequence[tuple[int, Operation]]) -> list[list[tuple[int, Operation]]]:
    """Products of a block cut where a layer runs again: shared layers, or decoding traced in several parts."""
    found: list[list[tuple[int, Operation]]] = []
    seen: set[str] = set()
    for at, operation in operations:
        if not found or operation.layer in seen:
            found.append([])
            seen = set()
        seen.add(operation.layer)
        found[-1].append((at, operation))
    return found


def in_chain(operations: Sequence[tuple[int, Operation]]) -> list[tuple[int, Operation]]:
    """Static products with their position in the chain: adapters run beside it, as do the sums that join them to it."""
    joined = {one.layer.rsplit(".", 2)[0] for _, one in operations if one.kind == "adapter"}  # name.lora_A.default
    kept = [
        (at, one)
        for at, one in operations
        if one.kind != "adapter" and not (one.kind == "elementwise" and one.layer in joined)
    ]
    placed = enumerate(one for _, one in kept) if joined else kept
    return [(at, one) for at, one in placed if one.kind == "static_matmul"]


def _depth(operations: Sequence[tuple[int, Operation]]) -> int:
    """Length of the chain: products that stand next to each other and have the same input size run side by side."""
    depth, before = 0, None
    for at, operation in operations:
        beside = before is not None and before[0] == at - 1 and before[1:] == (operation.m, operation.k)
        depth += not beside
        before = (at, operation.m, operation.k)
    return depth
