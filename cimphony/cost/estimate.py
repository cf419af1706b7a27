"""estimate: a workload on a chip, from counts of actions to energy, time and area. Nothing runs, no torch."""

from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase

from cimphony.chip import (
    AcamUnit,
    Chip,
    CrossbarUnit,
    GainCellAttentionUnit,
    GpuUnit,
    Link,
    LinkName,
    NorPimUnit,
    Unit,
    check_chip,
)
from cimphony.cost.acam import acam_said, is_fused, on_acam, score_row, spare_arrays
from cimphony.cost.crossbar import activation_bytes, on_crossbar, partial_bytes, pass_time
from cimphony.cost.gain_cell import said_of
from cimphony.cost.pricing import Priced, Prices, price, total
from cimphony.cost.report import CostReport, Entry
from cimphony.cost.schedule import Times, in_chain, passes, spread, static_times
from cimphony.cost.work import Job, job_on, unit_instances
from cimphony.errors import CapacityError, ChipError
from cimphony.mapping import BlockPlacement, Placement, place, place_layer, settle
from cimphony.units import format_count
from cimphony.workload import Block, Operation, Phase, Workload

PHASES: tuple[Phase, ...] = ("prefill", "decode")


def estimate(workload: Workload, chip: Chip, *, chips: int | None = None) -> CostReport:
    """What one request costs on a chip: energy, latency, interval of a stream, area, each with its parts.

    Args:
        workload: operations of the model, from `trace` or written by hand.
        chip: the description that the numbers tower reads too; placement and cell modes are the same.
        chips: how many chips there are; None takes as many as the model needs.

    Raises CapacityError where the weights do not fit, ChipError where a price cannot be worked out.
    """
    check_chip(chip)
    placement = place(workload, chip, chips)
    try:
        return _Estimate(settle(workload, chip), chip, placement).report()
    except (CapacityError, ChipError) as error:  # of several chips, which?
        if str(error).startswith("chip "):
            raise
        raise type(error)(f"chip {chip.name!r}: {error}") from None


class _Estimate:
    """One estimate on its way: entries and times as they come in."""

    def __init__(self, workload: Workload, chip: Chip, placement: Placement) -> None:
        self.workload, self.chip, self.placement = workload, chip, placement
        self.prices: Prices = price(chip)
        self.entries: list[Entry] = []
        self.digital: dict[str, list[float]] = {}  # kind -> operations, multiply-adds or elements without a unit
        self.shared: dict[str, float] = defaultdict(float)  # busy time of what all blocks share
        self.missing_links: set[LinkName] = set()
        self.used_links: set[LinkName] = set()
        self.tiles = 1.0  # pieces that attention scores are cut into
        self.overlap = False
        self.slowest = 0.0
        self.fused = 0  # activations that ACAMs compute while they convert

    def report(self) -> CostReport:
        static = self.chip.unit_for("static_matmul")
        if isinstance(static, CrossbarUnit):
            self.overlap = static.schedule.overlap
            for placed in self.placement.blocks:
                self._pipelined(static, placed)
            interval = max(self.slowest, *self.shared.values(), 0.0)
        else:
            for block in self.workload.blocks:
                for at in range(len(block.operations)):
                    self._operation(block, at)
            interval = sum(entry.latency for entry in self.entries) / self.placement.chips
        parts = [part for parts in self.prices.units.values() for part in parts]
        chips = self.placement.chips
        areas = {part.name: part.area * chips for part in parts if part.area}
        leakage = {part.name: part.leakage * chips for part in parts if part.leakage} | self._idle()
        work = self.workload
        return CostReport(
            work.model, self.chip.name, work.batch, work.new_tokens or work.prompt, interval, tuple(self.entries),
            areas, leakage, self.placement, self._assumptions(),
        )  # fmt: skip

    # blocks in a pipeline, each with its share of the chips

    def _pipelined(self, unit: CrossbarUnit, placed: BlockPlacement) -> None:
        times: Times = defaultdict(float)
        for phase in PHASES:
            ops = [(at, one) for at, one in enumerate(placed.block.operations) if one.phase == phase]
            seconds = 0.0
            for passed in passes(in_chain(ops)):
                seconds += self._static(unit, placed, passed, times)
                self._hand_over(unit, placed, passed[-1][1], times)
            beside = [] if self.placement.adapters is None else [pair for pair in ops if pair[1].kind == "adapter"]
            self._beside(placed, beside, seconds, times)
            for at, one in ops:
                if one.kind != "static_matmul" and not (beside and one.kind == "adapter"):
                    self._operation(placed.block, at, placed, times)
        busy = times.values()
        self.slowest = max(self.slowest, max(busy, default=0.0) if self.overlap else sum(busy))

    def _static(
        self, unit: CrossbarUnit, placed: BlockPlacement, products: Sequence[tuple[int, Operation]], times: Times
    ) -> float:
        name = self.placement.unit
        layers = {layer.layer: layer for layer in placed.layers}
        jobs = [on_crossbar(unit, one, layers[one.layer]) for _, one in products]
        busy, latency = static_times(unit, placed, products)
        times[name] += busy
        for (_, one), job, seconds in zip(products, jobs, spread(latency, jobs), strict=True):
            self._enter(name, placed.block, one, job, seconds)
        return latency

    def _beside(
        self, placed: BlockPlacement, adapters: Sequence[tuple[int, Operation]], hidden: float, times: Times
    ) -> None:
        """Adapters on a crossbar unit of their own, while their base layers run: only longer ones take time."""
        if not adapters or self.placement.adapters is None:
            return
        name, stored = self.placement.adapters.unit, self.placement.adapters.blocks
        unit = self.chip.unit(name, CrossbarUnit)
        own = next(one for one in stored if placed.block.names[0] in one.block.names)
        jobs, latency = list[Job](), 0.0
        for passed in passes(adapters):
            busy, seconds = static_times(unit, own, passed)
            times[name] += busy
            latency += seconds
            layers = [place_layer(unit, one.layer, one.k, one.n, one.groups, one.modes_by) for _, one in passed]
            jobs += [on_crossbar(unit, one, layer) for (_, one), layer in zip(passed, layers, strict=True)]
        longer = spread(max(0.0, latency - hidden), jobs)
        for (_, one), job, seconds in zip(adapters, jobs, longer, strict=True):
            self._enter(name, placed.block, one, job, seconds)

    def _operation(
        self, block: Block, at: int, placed: BlockPlacement | None = None, times: Times | None = None
    ) -> None:
        """An operation without stored weights, in a placed block or, without one, after whatever came before."""
        operation = block.operations[at]
        name = self.chip.policy.get(operation.kind, "")
        unit = self.chip.units.get(name)
        if isinstance(unit, AcamUnit | None) and placed and is_fused(self.chip.unit_for("static_matmul"), placed, at):
            self.fused += len(block.names)
            return
        if isinstance(unit, AcamUnit):
            self._on_acam(name, unit, block, at)
            return
        job = job_on(unit, operation) if unit else None
        if unit is None or job is None:
            self._stays_digital(block, operation)
        elif placed is None or times is None:
            self._enter(name, block, operation, job, job.seconds / unit_instances(unit))
        else:
            self._enter(name, block, operation, job, self._latency(name, unit, operation, job, placed, times))

    def _latency(
        self, name: str, unit: Unit, operation: Operation, job: Job, placed: BlockPlacement, times: Times
    ) -> float:
        """Of a job in a block [s], on the block's share of a unit; what it keeps busy goes to the times."""
        all_instances = unit_instances(unit) * self.placement.chips
        if isinstance(unit, GpuUnit):
            self.shared[name] += job.seconds * placed.repetitions / all_instances
            return job.seconds
        if isinstance(unit, GainCellAttentionUnit):  # every layer has arrays of its own
            times[name] += job.seconds
            return job.seconds
        mean = (placed.share or min(1.0, self.placement.level_share)) * all_instances  # in a stream
        moment = max(1.0, mean)
        times[name] += job.seconds / mean
        if isinstance(unit, NorPimUnit):
            scores = operation.m * operation.n * operation.groups * unit.bits / 8
            self.tiles = max(self.tiles, scores / (unit.module_bytes * moment))
        return job.seconds / moment

    def _on_acam(self, name: str, unit: AcamUnit, block: Block, at: int) -> None:
        """On arrays that hold the identity: any of them serves any block, one operation at a time takes them all."""
        operation, arrays = block.operations[at], self.chip.unit(unit.arrays, CrossbarUnit)
        job = on_acam(unit, arrays, operation, score_row(block.operations, at))
        have = spare_arrays(unit, self.chip, self.placement)
        self.shared[f"{name}.arrays"] += job.seconds * len(block.names) / have
        at_once = max(1.0, have / self.placement.chips)  # those of one chip
        latency = max(job.seconds / at_once, pass_time(arrays) * operation.repeat)
        self._enter(name, block, operation, job, latency, self.prices.units[unit.arrays])

    def _hand_over(self, unit: CrossbarUnit, placed: BlockPlacement, last: Operation, times: Times) -> None:
        """Partial sums between the units that share one copy of a block, and its result to the next block."""
        numbers = last.outputs
        together = self.placement.levels(placed)
        if together > 1 and len(placed.layers) > 1:  # a single matrix is split by columns: no partial sums
            within = together * self.placement.per_level <= self.placement.capacity
            link: LinkName = ("bus" if "bus" in self.chip.links else "pu") if within else "chip"
            self._transfer(link, placed, last, numbers * partial_bytes(unit) * (together - 1), times)
        blocks = sum(block.repetitions for block in self.placement.blocks)
        between_chips = min(1.0, (self.placement.chips - 1) / blocks)
        size = numbers * activation_bytes(unit)
        shares: dict[LinkName, float] = {"pu": 1 - between_chips, "chip": between_chips}
        for link, share in shares.items():
            if share:
                self._transfer(link, placed, last, size * share, None)

    def _transfer(
        self, name: LinkName, placed: BlockPlacement, last: Operation, size: float, times: Times | None
    ) -> None:
        """Bytes over a link; those that hold the block up go into its times, all of them share the link."""
        link: Link | None = self.chip.links.get(name)
        if link is None:
            self.missing_links.add(name)
            return
        self.used_links.add(name)
        key, seconds, repeats = f"link.{name}", size / link.bandwidth, placed.repetitions
        if times is not None:
            times[key] += seconds / placed.copies
        self.shared[key] += seconds * repeats / self.placement.chips
        entry = Entry(key, placed.block.layers(last), last.phase, "link", size * link.energy * repeats)
        entry.latency = (seconds + link.latency * last.repeat) * repeats
        self.entries.append(entry)

    # entries

    def _enter(
        self, name: str, block: Block, operation: Operation, job: Job, latency: float, beside: Sequence[Priced] = ()
    ) -> None:
        layers, repeats = block.layers(operation), len(block.names)
        for part in (*self.prices.units[name], *beside):
            energy = total(job.counts, part)
            if energy:
                self.entries.append(Entry(part.name, layers, operation.phase, operation.kind, energy * repeats))
        unit = self.chip.units[name]
        busy = (unit.power - unit.idle_power) * job.seconds * repeats if isinstance(unit, GpuUnit) else 0.0
        self.entries.append(Entry(f"{name}.active", layers, operation.phase, operation.kind, busy, latency * repeats))

    def _idle(self) -> dict[str, float]:
        idle = {name: unit.idle_power for name, unit in self._gpus().items() if unit.idle_power}
        return {f"{name}.idle": power * self.placement.chips for name, power in idle.items()}

    def _gpus(self) -> dict[str, GpuUnit]:
        return {name: unit for name, unit in self.chip.units.items() if isinstance(unit, GpuUnit)}

    def _stays_digital(self, block: Block, operation: Operation) -> None:
        tally = self.digital.setdefault(operation.kind, [0.0, 0.0])
        tally[0] += len(block.names)
        tally[1] += (operation.macs or operation.elements * operation.repeat) * len(block.names)

    def _assumptions(self) -> list[str]:
        static = self.chip.unit_for("static_matmul")
        said = [*self.chip.notes, *self.prices.assumptions, *_experts(self.workload, static)]
        if not any(part.actions for parts in self.prices.units.values() for part in parts) and not self._gpus():
            said.append("the description has no prices: energy is zero, only times and counts mean something")
        for kind, (number, size) in self.digital.items():
            what = "multiply-adds" if kind.endswith("matmul") else "elements"
            said.append(
                f"{kind} stays digital, not costed: {number:.0f} operations, {format_count(size)} {what} a request; "
                + _why(self.chip, kind)
            )
        return said + _schedule_assumptions(self)


def _schedule_assumptions(run: _Estimate) -> list[str]:
    """What the schedule took for granted."""
    placement, said = run.placement, list[str]()
    if placement.chips > 1:
        said.append(f"{placement.chips} chips in a row, each with its part of the model")
    said += _redundancy(run)
    if placement.blocks:
        said.append(_copies(run))
        units = "overlap on different requests" if run.overlap else "serve one request at a time"
        said.append(
            f"a pipeline over {sum(one.repetitions for one in placement.blocks)} blocks; the units of a block {units}"
        )
    if placement.adapters is not None:
        stored = placement.adapters
        cells = sum(layer.cells * block.repetitions for block in stored.blocks for layer in block.layers)
        said.append(
            f"adapters sit in {format_count(cells)} cells of {stored.unit} and run while their base layers do; writing "
            "them for another task is not counted"
        )
    for name in sorted(run.missing_links):
        said.append(f"no link {name!r} in the description: its transfers cost nothing")
    free = sorted(name for name in run.used_links if not run.chip.links[name].energy)
    if free:
        said.append(f"transfers over {', '.join(free)} take time but no energy: the description gives none")
    for name, unit in run.chip.units.items():
        if isinstance(unit, NorPimUnit):
            said.append(
                f"{name}: {unit.operations_per_cycle:.4g} multiply-adds a cycle and module ({unit.reading} reading, "
                f"{unit.bits} bits, {unit.density:.3g} of the products computed)"
            )
        if isinstance(unit, AcamUnit):
            said += acam_said(name, unit, run.chip, placement, run.fused)
        if isinstance(unit, GainCellAttentionUnit):
            said += said_of(name, unit, run.workload)
        if isinstance(unit, GpuUnit):
            said += _roofline(run, name, unit)
    if run.fused and not any(isinstance(unit, AcamUnit) for unit in run.chip.units.values()):
        said.append(f"{placement.unit}: {run.fused} activations are what a product's ACAMs convert to, at no cost")
    if run.tiles > 1:
        said.append(
            f"attention scores exceed the memory of a block: computed in {run.tiles:.3g} tiles, no extra cost counted"
        )
    return said


def _experts(workload: Workload, unit: Unit | None) -> list[str]:
    """How tokens find their experts."""
    shares = sorted({(one.used, one.groups) for one in workload.operations if one.active is not None})
    if not shares:
        return []
    sizes = f"{format_count(workload.active_parameters)} of {format_count(workload.parameters)} parameters"
    how = "all are held in cells, those of a token are read side by side, one token after another"
    if not isinstance(unit, CrossbarUnit):
        how = "a pass fetches the weights of as many as its tokens are expected to hit"
    return [
        f"experts: a token goes through {' or '.join(f'{used} of {groups}' for used, groups in shares)} ({sizes}), all "
        f"equally likely (uniform routing); {how}"
    ]


def _roofline(run: _Estimate, name: str, unit: GpuUnit) -> list[str]:
    """What a processor's roofline overlooks, and how often."""
    kinds = {kind for kind, runs_on in run.chip.policy.items() if runs_on == name}
    launches = sum(
        one.repeat * len(block.names) for block in run.workload.blocks for one in block.operations
        if one.macs and one.kind in kinds
    )  # fmt: skip
    said = [
        f"{name}: roofline at {unit.compute_utilisation:.0%} of peak and {unit.memory_utilisation:.0%} of bandwidth; "
        "full power while busy; attention and elementwise work fused, without memory traffic"
    ]
    if unit.power:  # a processor of its own, no block of a chip
        said.append(
            f"{name}: {format_count(launches)} products a request are started without delay; a GPU takes microseconds "
            "to launch each of their kernels, so small models look faster than they run"
        )
    return said


def _why(chip: Chip, kind: str) -> str:
    name = next((unit for operation, unit in chip.policy.items() if operation == kind), None)
    return f"no cost model for units.{name}" if name else "the chip has no unit for it"


def _redundancy(run: _Estimate) -> list[str]:
    """What redundant layers add, and what was asked for in vain."""
    blocks = run.placement.blocks
    names = [one.layer for one in run.workload.select("static_matmul")] if blocks else []
    idle = [pattern for pattern in run.chip.redundancy if not any(fnmatchcase(name, pattern) for name in names)]
    said = [f"redundancy: {', '.join(idle)} names no layer in cells of this model"] if idle else []
    layers = [(one, block.repetitions) for block in blocks for one in block.layers if one.redundancy > 1]
    if layers:
        extra = sum(one.cells * (one.redundancy - 1) // one.redundancy * times for one, times in layers)
        most, number = max(one.redundancy for one, _ in layers), sum(times for _, times in layers)
        said.append(
            f"redundancy: {number} layers are programmed up to {most} times and their outputs averaged, "
            f"{format_count(extra)} cells more; every copy is read for every input"
        )
    return said


def _copies(run: _Estimate) -> str:
    most = max(run.placement.blocks, key=lambda one: one.copies)
    kind = run.chip.unit(run.placement.unit, CrossbarUnit).schedule.copies
    if kind == "one":
        return "every weight is stored once; spare arrays stay empty"
    balance = ", in perfect balance (an upper bound)" if kind == "ideal" else ""
    return f"spare arrays hold {kind} copies of the weights, up to {most.copies:.4g}{balance}"
