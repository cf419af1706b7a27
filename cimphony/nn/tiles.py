"""Tiles: the analog life of one weight matrix, from calibration to programmed, aged and read."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from cimphony.chip import Acam, Chip, CrossbarUnit, IdealDevice, Mode
from cimphony.circuits import (
    Cells,
    continuous,
    kernel_name,
    largest_sum,
    quantise_inputs,
    quantise_weights,
    read,
    write,
)
from cimphony.errors import DataError, StateError
from cimphony.mapping import weight_slices
from cimphony.nn.acam import Readout
from cimphony.nn.programmed import Assignment, Memory, Programmed, Recipe, merge, smallest_integer
from cimphony.random import NORMAL_BITS, Stream

_SAMPLE = 512  # tokens a layer keeps for calibration, about


class Tiles:
    """The tiles behind one layer. Holds no parameter: the layer's own weight stays the digital master."""

    def __init__(self, chip: Chip, unit_name: str, layer: str, stored: str | None = None) -> None:
        """`stored` is what a placement calls the layer: groups of a convolution share a name, as experts do."""
        self.unit_name, self.layer, self._stored = unit_name, layer, stored or layer
        self.use(chip)
        self.input_range: float | None = None  # learned by calibration
        self.sum_range: dict[Mode, float] = {}  # learned by calibration, in levels
        self.borrowed = False  # ranges are those of sibling experts: no token reached this one
        self.assignment: Assignment | None = None  # cell modes, where a method chose them; None: by column norm
        self.programmed: Programmed | None = None
        self.tokens_read = 0
        self._sample: list[Tensor] | None = None
        self.blocks: list[Readout] = []  # ACAMs of row blocks whose codes are added digitally; none: sums meet

    def use(self, chip: Chip) -> None:
        """Take the unit of this chip; cells are written anew by the next programming."""
        self.chip, self.unit = chip, chip.unit(self.unit_name, CrossbarUnit)
        self.redundancy = chip.redundancy_of(self._stored, self.unit_name)

    def assign(self, assignment: Assignment) -> None:
        """Choose cell modes; cells are written anew by the next programming."""
        self.assignment, self.programmed = assignment, None

    # calibration

    @property
    def calibrating(self) -> bool:
        """Whether the tiles watch their inputs."""
        return self._sample is not None

    def observe(self, inputs: Tensor) -> None:
        """Keep a sample of the inputs [token, row] while calibrating."""
        if self._sample is None:
            return
        _check_finite(inputs, self.layer)
        if inputs.shape[0]:
            self._keep_sample(inputs.detach())
        peak = float(inputs.detach().abs().max()) if inputs.numel() else 0.0
        self.input_range = max(self.input_range or 0.0, peak)

    def _keep_sample(self, inputs: Tensor) -> None:
        """Rows spread over the batch, and the largest one, which drives converters the furthest."""
        assert self._sample is not None
        largest = inputs.float().norm(dim=1).argmax()
        rows = torch.cat([inputs[:: -(-inputs.shape[0] // _SAMPLE)], inputs[largest : largest + 1]])
        self._sample.append(rows.to("cpu", torch.float32))
        if sum(len(rows) for rows in self._sample) > 2 * _SAMPLE:  # thin, but never drop a largest row
            self._sample = [torch.cat([rows[:-1:2], rows[-1:]]) for rows in self._sample]

    def start_calibration(self) -> None:
        """Forget what was learned and begin to watch."""
        self.input_range, self.sum_range, self.programmed, self._sample = None, {}, None, []
        self.blocks, self.borrowed = [], False

    def finish_calibration(self, weight: Tensor) -> None:
        """Turn the sample into ranges. `weight` is [row, column]."""
        sample, self._sample = self._sample, None
        if not sample:
            self.input_range = None
            return
        inputs = torch.cat(sample)
        coding = self.unit.input
        if coding.quantile < 1:
            magnitudes = inputs.abs().flatten()
            self.input_range = float(magnitudes.kthvalue(max(1, round(coding.quantile * magnitudes.numel()))).values)
        converter, acam = self.unit.converter, self.unit.acam
        if converter is not None and converter.range == "calibrated":
            self.sum_range = self._sum_ranges(inputs, weight, converter.quantile)
        self.blocks = []
        if acam is not None and acam.partial_sums == "digital" and weight.shape[0] > self.unit.rows:
            self.blocks = [
                self._block_readout(acam, inputs, weight, block) for block in range(-(-len(weight) // self.unit.rows))
            ]

    def borrow(self, siblings: Sequence["Tiles"]) -> None:
        """Take the widest ranges of calibrated tiles that are like these, which no token reached."""
        self.borrowed = True
        self.input_range = max(one.input_range for one in siblings if one.input_range is not None)
        for one in siblings:
            for mode, value in one.sum_range.items():
                self.sum_range[mode] = max(value, self.sum_range.get(mode, 0.0))
        acam = self.unit.acam
        self.blocks = [] if acam is None else [
            Readout(acam, self.block_name(block)).widen(one.blocks[block] for one in siblings)
            for block in range(len(siblings[0].blocks))
        ]  # fmt: skip

    def _block_readout(self, acam: Acam, inputs: Tensor, weight: Tensor, block: int) -> Readout:
        """The ACAM behind a block of rows whose sum has a code of its own."""
        rows = slice(block * self.unit.rows, (block + 1) * self.unit.rows)
        made = Readout(acam, self.block_name(block))
        made.observe(inputs[:, rows] @ weight[rows].detach().to("cpu", torch.float32))
        return made

    def block_name(self, block: int) -> str:
        """Of the ACAMs behind a block of rows."""
        return f"{self.layer}, block {block}"

    def abandon_calibration(self) -> None:
        """Forget a calibration that did not finish."""
        self.input_range, self.sum_range, self._sample = None, {}, None

    def _sum_ranges(self, inputs: Tensor, weight: Tensor, quantile: float) -> dict[Mode, float]:
        """Largest sums of noise-free cells over the sample, by mode."""
        ideal = IdealDevice(stuck=None)
        cell = self.unit.cell.model_copy(update={"device": dict.fromkeys(self.unit.cell.bits, ideal)})
        unit = self.unit.model_copy(update={"cell": cell, "adc": None, "wires": None})
        integers, _ = quantise_weights(weight, unit.encoding)
        quantised, _ = quantise_inputs(inputs, unit.input, self.input_range, self.layer)
        ranges: dict[Mode, float] = {}
        assignment = self._assignment(integers)
        for mode in assignment.modes:
            part = assignment.take(integers, mode)
            cells = write(unit, mode, part, seed=0, name=self.layer, seconds=0.0, largest_sum=None)
            seen = self._rows(quantised.to(torch.int64), assignment, mode)
            ranges[mode] = largest_sum(seen, cells, unit.input, quantile)
        return ranges

    # programming

    def program(
        self, weight: Tensor, *, seed: int, seconds: float = 0.0, rewrites: int = 0, memory: Memory = "stored"
    ) -> None:
        """Write a weight [row, column] into cells and let it age. One seed is one manufactured chip.

        The first copy of a redundant layer holds what the only one of another would.
        """
        self._need_ranges()
        if weight.is_meta:
            raise DataError(f"layer {self.layer}: its weights are on the meta device, without values; load them first")
        if not bool(torch.isfinite(weight).all()):
            raise DataError(f"layer {self.layer}: its weights hold NaN or Inf; they cannot be programmed")
        integers, scale = quantise_weights(weight, self.unit.encoding)
        name = self.layer if rewrites == 0 else f"{self.layer}#{rewrites}"
        assignment = self._assignment(integers)
        names = [name, *(f"{name}/copy {index}" for index in range(1, self.redundancy))]
        chip = {"seed": seed, "seconds": seconds, "memory": memory, "dtype": weight.dtype}
        first, *others = (self._hold(integers, scale, assignment, one, **chip) for one in names)
        held = replace(first, rewrites=rewrites, others=tuple(others))
        self.programmed = (merge(held) if self.unit.fidelity == "effective" else held).to(weight.device)
        for readout in self.blocks:
            readout.program(seed, rewrites, weight.shape[1])
        self.tokens_read = 0

    def _hold(
        self,
        integers: Tensor,
        scale: Tensor,
        assignment: Assignment,
        name: str,
        *,
        seed: int,
        seconds: float,
        memory: Memory,
        dtype: torch.dtype,
    ) -> Programmed:
        """One copy of the weights."""
        if self.unit.fidelity == "effective":
            held, variance = self._effective_integers(integers, assignment, seed, name, seconds)
            compensation = self._compensation(integers, assignment, seed, name, seconds, held)
            scale = scale * compensation
            variance = variance.float() if bool(variance.any()) else None
            return Programmed(
                seed, seconds, 0, assignment, {}, scale, compensation, (held * scale).to(dtype), variance, dtype
            )
        compensation = self._compensation(integers, assignment, seed, name, seconds)
        recipes = self._recipes(integers, assignment, seed, name, seconds)
        kept: dict[Mode, Cells | Recipe] = {mode: one.keep(memory) for mode, one in recipes.items()}
        return Programmed(seed, seconds, 0, assignment, kept, scale * compensation, compensation, None, None, dtype)

    def _recipes(
        self, integers: Tensor, assignment: Assignment, seed: int, name: str, seconds: float
    ) -> dict[Mode, Recipe]:
        """What the cells of each mode are written from."""
        kind = smallest_integer(integers)
        return {
            mode: Recipe(
                self.unit, mode, assignment.take(integers, mode).to(kind), seed, name, seconds, self.sum_range.get(mode)
            )
            for mode in assignment.modes
        }

    def _effective_integers(
        self, integers: Tensor, assignment: Assignment, seed: int, name: str, seconds: float
    ) -> tuple[Tensor, Tensor]:
        """Effective weight integers [row, column] and the variance one read adds to them."""
        weights, variance = torch.empty_like(integers), torch.zeros_like(integers)
        for mode in assignment.modes:
            part = assignment.take(integers, mode)
            if self.unit.encoding.bits is None:
                held, added = continuous(self.unit, mode, part, seed=seed, name=name, seconds=seconds)
            else:
                largest = self.sum_range.get(mode)
                cells = write(self.unit, mode, part, seed=seed, name=name, seconds=seconds, largest_sum=largest)
                held, added = cells.weights(), cells.weight_variance()
            assignment.put(weights, mode, held)
            if added is not None:
                assignment.put(variance, mode, added)
        return weights, variance

    def _compensation(
        self,
        integers: Tensor,
        assignment: Assignment,
        seed: int,
        name: str,
        seconds: float,
        held: Tensor | None = None,
    ) -> float:
        """What global drift compensation multiplies the outputs with: mean conductance when written, over now."""
        if self.unit.cell.drift_compensation is None or seconds == 0:
            return 1.0
        if held is None:
            held, _ = self._effective_integers(integers, assignment, seed, name, seconds)
        written, _ = self._effective_integers(integers, assignment, seed, name, 0.0)
        now = float(held.abs().sum())
        return float(written.abs().sum()) / now if now else 1.0

    def _assignment(self, integers: Tensor) -> Assignment:
        """Cell modes; where no method chose them the output columns of largest norm get SLC cells."""
        if self.assignment is not None:
            return self.assignment
        rate = self.unit.cell.slc_rate
        if rate is None:
            return Assignment("column", {next(iter(self.unit.cell.bits)): torch.arange(integers.shape[1])})
        order = torch.sort(integers.pow(2).sum(dim=0), descending=True, stable=True).indices
        return Assignment.first_in_slc("column", order, rate)

    def _need_ranges(self) -> None:
        missing = []
        if self.unit.input.bits is not None and self.unit.input.range == "static" and self.input_range is None:
            missing.append(f"units.{self.unit_name}.input.range is static")
        converter = self.unit.converter
        if converter is not None and converter.range == "calibrated" and not self.sum_range:
            missing.append(f"units.{self.unit_name}.adc.range is calibrated")
        if missing:
            raise StateError(
                f"layer {self.layer} has learned no ranges, and {' and '.join(missing)}. "
                "Run a few batches in 'with cim.calibrate(model):' before program_, with data that reaches this layer, "
                "or exclude it: some models take a layer's weights without calling it"
            )

    # reading

    def matmul(self, inputs: Tensor) -> Tensor:
        """Inputs [token, row] (float32 or float64) times the programmed weights, as the chip reads them."""
        programmed = self.programmed
        assert programmed is not None
        _check_finite(inputs, self.layer)
        first, self.tokens_read = self.tokens_read, self.tokens_read + inputs.shape[0]
        integers, scale = inputs, torch.ones((), dtype=inputs.dtype)
        if self.unit.input.bits is not None:
            integers, scale = quantise_inputs(inputs, self.unit.input, self.input_range, self.layer)
            if self.unit.fidelity == "effective":
                integers.mul_(scale)
        if not self.blocks:
            return self._product(integers, scale, programmed, first)
        total = torch.zeros((), dtype=inputs.dtype)
        for block, readout in enumerate(self.blocks):
            rows = slice(block * self.unit.rows, (block + 1) * self.unit.rows)
            part = torch.zeros_like(integers)
            part[:, rows] = integers[:, rows]
            total = total + readout(self._product(part, scale, programmed, first, f", block {block}"))
        return total

    def _product(self, integers: Tensor, scale: Tensor, programmed: Programmed, first: int, which: str = "") -> Tensor:
        """Inputs [token, row] in whole numbers of `scale` through the cells; `which` rows, for the noise of a read.

        Effective fidelity takes the inputs as they are.
        """
        if self.unit.fidelity == "effective":
            return self._effective(integers, programmed, first, which)
        whole = integers.to(torch.int64)
        outputs = self._read(whole, programmed, first) * programmed.scale
        for other in programmed.others:
            outputs += self._read(whole, other, first) * other.scale
        outputs = outputs / (1 + len(programmed.others)) if programmed.others else outputs
        return (outputs * scale.to(torch.float64)).to(integers.dtype)

    def _read(self, integers: Tensor, programmed: Programmed, first: int) -> Tensor:
        """Input integers [token, row] through one copy of the cells, float64 [token, column] in weight units."""
        assignment = programmed.assignment
        outputs = torch.zeros(integers.shape[0], programmed.scale.numel(), dtype=torch.float64, device=integers.device)
        for mode, kept in programmed.kept.items():
            cells = kept.write() if isinstance(kept, Recipe) else kept
            seen = self._rows(integers, assignment, mode)
            product = read(seen, cells, self.unit.input, seed=programmed.seed, first_token=first)
            if assignment.axis == "row" or len(programmed.kept) == 1:
                outputs += product
            else:
                outputs[:, assignment.modes[mode]] = product
        return outputs

    @staticmethod
    def _rows(inputs: Tensor, assignment: Assignment, mode: Mode) -> Tensor:
        """The inputs [token, row] that cells of one mode see."""
        split = assignment.axis == "row" and len(assignment.modes) > 1
        return inputs[:, assignment.modes[mode]] if split else inputs

    def _effective(self, inputs: Tensor, programmed: Programmed, first: int, which: str) -> Tensor:
        """One product with the effective weights; read noise as one normal for each output."""
        outputs = inputs @ programmed.weights.to(inputs.dtype)
        if programmed.variance is None:
            return outputs
        variance = (inputs.to(torch.float64) ** 2) @ programmed.variance.to(torch.float64)
        tokens, columns = outputs.shape
        drawn = Stream(programmed.seed, self.layer, f"read, effective{which}").normal(first * columns, tokens * columns)
        normal = torch.from_numpy(drawn).to(outputs.device, torch.float64).view(tokens, columns) * 2.0**-NORMAL_BITS
        return outputs + (variance.sqrt() * normal * programmed.scale).to(outputs.dtype)

    def describe(self) -> dict[str, Any]:
        """What is really applied, for the summary and the records."""
        programmed = self.programmed
        row: dict[str, Any] = {"fidelity": self.unit.fidelity, "input_range": self.input_range}
        row |= {"redundancy": self.redundancy, **({"borrowed": True} if self.borrowed else {})}
        if programmed is None:
            return {**row, "state": "converted" if self.input_range is None else "calibrated"}
        row |= {"state": "programmed", "seed": programmed.seed, "age": programmed.seconds}
        row |= {"drift_compensation": programmed.compensation}
        modes = programmed.assignment.modes
        row["parts"] = [self._describe_part(programmed, mode, indices.numel()) for mode, indices in modes.items()]
        return row

    def _describe_part(self, programmed: Programmed, mode: Mode, count: int) -> dict[str, Any]:
        kept, slices = programmed.kept.get(mode), weight_slices(self.unit.encoding, self.unit.cell.bits[mode])
        cells = kept.write() if isinstance(kept, Recipe) else kept
        row: dict[str, Any] = {
            "mode": mode,
            programmed.assignment.axis + "s": count,
            "slices": [[one.place * (one.polarity or 1), one.bits] for one in slices],
            "device": self.unit.cell.device[mode].model_dump(exclude_none=True),
            "adc_bits": None,
            "kernel": "effective product" if cells is None else kernel_name(cells, self.unit.input),
        }
        if cells is None or cells.converter.high is None or self.unit.converter is None:
            return row
        step = cells.converter.step * 2.0**-cells.fraction_bits
        codes = [cells.converter.low, cells.converter.high]
        return row | {"adc_bits": self.unit.converter.bits[mode], "adc_step_levels": step, "adc_codes": codes}


def _check_finite(inputs: Tensor, layer: str) -> None:
    if math.isfinite(float(inputs.detach().sum())):  # much cheaper than looking at each; overflows are looked at again
        return
    if not bool(torch.isfinite(inputs).all()):
        raise DataError(
            f"layer {layer}: its inputs hold NaN or Inf; a converter cannot read them. Look at the layer before"
        )
