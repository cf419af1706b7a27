"""Tiles: the analog life of one weight matrix, from calibration to programmed, aged and read."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from cimphony.chip import Chip, CrossbarUnit, IdealDevice, Mode
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
from cimphony.mapping import mode_columns, weight_slices
from cimphony.random import NORMAL_BITS, Stream

_SAMPLE = 512  # tokens a layer keeps for calibration


@dataclass(frozen=True)
class ModePart:
    """Output columns of a layer in one cell mode."""

    mode: Mode
    columns: Tensor | None  # indices; None: all
    count: int
    cells: Cells | None  # None: fidelity effective, where only the effective weights are read


@dataclass(frozen=True)
class Programmed:
    """One manufactured chip's cells for a weight matrix, at one age."""

    seed: int
    seconds: float
    rewrites: int
    parts: tuple[ModePart, ...]
    scale: Tensor  # float64 [column], output units of one weight integer, drift compensation included
    compensation: float  # 1: none
    held: Tensor | None  # effective weights [row, column] in the layer's dtype; None: decoded from cells when asked
    variance: Tensor | None  # float32 [row, column], in integers, added by one effective read; None: quiet
    dtype: torch.dtype

    @cached_property
    def weights(self) -> Tensor:
        """Effective weights [row, column]: what an ideal converter would read."""
        if self.held is not None:
            return self.held
        columns = [part.cells.weights() for part in self.parts if part.cells is not None]
        weights = torch.cat(columns, dim=1) if len(columns) > 1 else columns[0]
        if len(columns) > 1:
            order = torch.cat([part.columns for part in self.parts if part.columns is not None])
            weights = weights[:, torch.argsort(order)]
        return (weights * self.scale).to(self.dtype)

    def to(self, device: Any) -> "Programmed":
        """The same on another torch device."""

        def move(value: Any) -> Any:
            return None if value is None else value.to(device)

        parts = tuple(replace(part, columns=move(part.columns), cells=move(part.cells)) for part in self.parts)
        return replace(self, parts=parts, scale=move(self.scale), held=move(self.held), variance=move(self.variance))


class Tiles:
    """The tiles behind one layer. Holds no parameter: the layer's own weight stays the digital master."""

    def __init__(self, chip: Chip, unit_name: str, layer: str) -> None:
        unit = chip.units[unit_name]
        assert isinstance(unit, CrossbarUnit)
        self.chip, self.unit_name, self.unit, self.layer = chip, unit_name, unit, layer
        self.input_range: float | None = None  # learned by calibration
        self.sum_range: dict[Mode, float] = {}  # learned by calibration, in levels
        self.columns: dict[Mode, Tensor] | None = None  # which output columns are in which mode; None: by size
        self.programmed: Programmed | None = None
        self.tokens_read = 0
        self._sample: list[Tensor] | None = None

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
        stride = max(1, inputs.shape[0] // 64)
        self._sample.append(inputs[::stride][:64].detach().to("cpu", torch.float32))
        peak = float(inputs.detach().abs().max()) if inputs.numel() else 0.0
        self.input_range = max(self.input_range or 0.0, peak)

    def start_calibration(self) -> None:
        """Forget what was learned and begin to watch."""
        self.input_range, self.sum_range, self.programmed, self._sample = None, {}, None, []

    def finish_calibration(self, weight: Tensor) -> None:
        """Turn the sample into ranges. `weight` is [row, column]."""
        sample, self._sample = self._sample, None
        if not sample:
            self.input_range = None
            return
        inputs = torch.cat(sample)[-_SAMPLE:]
        coding = self.unit.input
        if coding.quantile < 1:
            magnitudes = inputs.abs().flatten()
            self.input_range = float(magnitudes.kthvalue(max(1, round(coding.quantile * magnitudes.numel()))).values)
        if self.unit.adc is not None and self.unit.adc.range == "calibrated":
            self.sum_range = self._sum_ranges(inputs, weight, self.unit.adc.quantile)

    def abandon_calibration(self) -> None:
        """Forget a calibration that did not finish."""
        self.input_range, self.sum_range, self._sample = None, {}, None

    def _sum_ranges(self, inputs: Tensor, weight: Tensor, quantile: float) -> dict[Mode, float]:
        """Largest sums of noise-free cells over the sample, by mode."""
        ideal = IdealDevice(stuck=None)
        cell = self.unit.cell.model_copy(update={"device": dict.fromkeys(self.unit.cell.bits, ideal)})
        unit = self.unit.model_copy(update={"cell": cell, "adc": None})
        integers, _ = quantise_weights(weight, unit.encoding)
        quantised, _ = quantise_inputs(inputs, unit.input, self.input_range)
        ranges: dict[Mode, float] = {}
        for mode, columns in self._modes(integers).items():
            part = integers[:, columns]
            cells = write(unit, mode, part, seed=0, name=self.layer, seconds=0.0, largest_sum=None)
            ranges[mode] = largest_sum(quantised.to(torch.int64), cells, unit.input, quantile)
        return ranges

    # programming

    def program(self, weight: Tensor, *, seed: int, seconds: float = 0.0, rewrites: int = 0) -> None:
        """Write a weight [row, column] into cells and let it age. One seed is one manufactured chip."""
        self._need_ranges()
        if not bool(torch.isfinite(weight).all()):
            raise DataError(f"layer {self.layer}: its weights hold NaN or Inf; they cannot be programmed")
        integers, scale = quantise_weights(weight, self.unit.encoding)
        name = self.layer if rewrites == 0 else f"{self.layer}#{rewrites}"
        parts, held, variance = self._write(integers, seed, name, seconds)
        compensation = self._compensation(integers, seed, name, seconds, held)
        scale = scale * compensation
        effective = self.unit.fidelity == "effective"
        self.programmed = Programmed(
            seed,
            seconds,
            rewrites,
            tuple(parts),
            scale,
            compensation,
            (held * scale).to(weight.dtype) if effective else None,
            variance.float() if effective and bool(variance.any()) else None,
            weight.dtype,
        ).to(weight.device)
        self.tokens_read = 0

    def _write(self, integers: Tensor, seed: int, name: str, seconds: float) -> tuple[list[ModePart], Tensor, Tensor]:
        """Cells by mode, effective weight integers [row, column] and the variance one read adds to them."""
        unit, parts = self.unit, []
        weights, variance = torch.empty_like(integers), torch.zeros_like(integers)
        for mode, columns in self._modes(integers).items():
            cells, part = None, integers[:, columns]
            if unit.encoding.bits is None:
                held, added = continuous(unit, mode, part, seed=seed, name=name, seconds=seconds)
            else:
                largest = self.sum_range.get(mode)
                cells = write(unit, mode, part, seed=seed, name=name, seconds=seconds, largest_sum=largest)
                held, added = cells.weights(), cells.weight_variance()
            weights[:, columns] = held
            if added is not None:
                variance[:, columns] = added
            whole = columns.numel() == integers.shape[1]
            kept = None if unit.fidelity == "effective" else cells
            parts.append(ModePart(mode, None if whole else columns, columns.numel(), kept))
        return parts, weights, variance

    def _compensation(self, integers: Tensor, seed: int, name: str, seconds: float, held: Tensor) -> float:
        """What global drift compensation multiplies the outputs with: mean conductance when written, over now."""
        if self.unit.cell.drift_compensation is None or seconds == 0:
            return 1.0
        _, written, _ = self._write(integers, seed, name, 0.0)
        now = float(held.abs().sum())
        return float(written.abs().sum()) / now if now else 1.0

    def _modes(self, integers: Tensor) -> dict[Mode, Tensor]:
        """Output columns by cell mode; without an assignment the columns of largest norm get SLC cells."""
        if self.columns is not None:
            return self.columns
        counts = mode_columns(self.unit, integers.shape[1])
        if len(counts) == 1:
            return {next(iter(counts)): torch.arange(integers.shape[1])}
        order = torch.sort(integers.pow(2).sum(dim=0), descending=True, stable=True).indices
        slc, mlc = order[: counts["slc"]].sort().values, order[counts["slc"] :].sort().values
        both: dict[Mode, Tensor] = {"slc": slc, "mlc": mlc}
        return {mode: columns for mode, columns in both.items() if columns.numel()}

    def _need_ranges(self) -> None:
        missing = []
        if self.unit.input.bits is not None and self.unit.input.range == "static" and self.input_range is None:
            missing.append(f"units.{self.unit_name}.input.range is static")
        if self.unit.adc is not None and self.unit.adc.range == "calibrated" and not self.sum_range:
            missing.append(f"units.{self.unit_name}.adc.range is calibrated")
        if missing:
            raise StateError(
                f"layer {self.layer} has learned no ranges, and {' and '.join(missing)}. "
                "Run a few batches in 'with cim.calibrate(model):' before program_, with data that reaches this layer"
            )

    # reading

    def matmul(self, inputs: Tensor) -> Tensor:
        """Inputs [token, row] (float32 or float64) times the programmed weights, as the chip reads them."""
        programmed = self.programmed
        assert programmed is not None
        _check_finite(inputs, self.layer)
        first, self.tokens_read = self.tokens_read, self.tokens_read + inputs.shape[0]
        if self.unit.fidelity == "effective":
            return self._effective(inputs, programmed, first)
        integers, input_scale = quantise_inputs(inputs, self.unit.input, self.input_range)
        integers = integers.to(torch.int64)
        outputs = torch.empty(inputs.shape[0], programmed.scale.numel(), dtype=torch.float64, device=inputs.device)
        for part in programmed.parts:
            assert part.cells is not None
            product = read(integers, part.cells, self.unit.input, seed=programmed.seed, first_token=first)
            if part.columns is None:
                outputs = product
            else:
                outputs[:, part.columns] = product
        return (outputs * programmed.scale * input_scale.to(torch.float64)).to(inputs.dtype)

    def _effective(self, inputs: Tensor, programmed: Programmed, first: int) -> Tensor:
        """One product with the effective weights; read noise as one normal for each output."""
        if self.unit.input.bits is not None:
            integers, scale = quantise_inputs(inputs, self.unit.input, self.input_range)
            inputs = integers * scale
        outputs = inputs @ programmed.weights.to(inputs.dtype)
        if programmed.variance is None:
            return outputs
        variance = (inputs.to(torch.float64) ** 2) @ programmed.variance.to(torch.float64)
        tokens, columns = outputs.shape
        drawn = Stream(programmed.seed, self.layer, "read, effective").normal(first * columns, tokens * columns)
        normal = torch.from_numpy(drawn).to(outputs.device, torch.float64).view(tokens, columns) * 2.0**-NORMAL_BITS
        return outputs + (variance.sqrt() * normal * programmed.scale).to(outputs.dtype)

    def describe(self) -> dict[str, Any]:
        """What is really applied, for the summary and the records."""
        programmed = self.programmed
        row: dict[str, Any] = {"fidelity": self.unit.fidelity, "input_range": self.input_range}
        if programmed is None:
            return {**row, "state": "converted" if self.input_range is None else "calibrated"}
        row |= {"state": "programmed", "seed": programmed.seed, "age": programmed.seconds}
        row |= {"drift_compensation": programmed.compensation}
        row["parts"] = [self._describe_part(part) for part in programmed.parts]
        return row

    def _describe_part(self, part: ModePart) -> dict[str, Any]:
        cells, slices = part.cells, weight_slices(self.unit.encoding, self.unit.cell.bits[part.mode])
        row: dict[str, Any] = {
            "mode": part.mode,
            "columns": part.count,
            "slices": [[one.place * (one.polarity or 1), one.bits] for one in slices],
            "device": self.unit.cell.device[part.mode].model_dump(exclude_none=True),
            "adc_bits": None,
            "kernel": "effective product" if cells is None else kernel_name(cells),
        }
        if cells is None or cells.converter.high is None or self.unit.adc is None:
            return row
        step = cells.converter.step * 2.0**-cells.fraction_bits
        codes = [cells.converter.low, cells.converter.high]
        return row | {"adc_bits": self.unit.adc.bits[part.mode], "adc_step_levels": step, "adc_codes": codes}


def _check_finite(inputs: Tensor, layer: str) -> None:
    if not bool(torch.isfinite(inputs).all()):
        raise DataError(
            f"layer {layer}: its inputs hold NaN or Inf; a converter cannot read them. Look at the layer before"
        )
