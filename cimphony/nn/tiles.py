"""Tiles: the analog life of one weight matrix, from calibration to programmed, aged and read."""

from dataclasses import dataclass, replace
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
from cimphony.mapping import mode_columns
from cimphony.random import NORMAL_BITS, Stream

_SAMPLE = 512  # tokens a layer keeps for calibration


@dataclass(frozen=True)
class Programmed:
    """One manufactured chip's cells for a weight matrix, at one age."""

    seed: int
    seconds: float
    rewrites: int
    parts: tuple[tuple[Tensor | None, Cells], ...]  # output columns (None: all) and their cells
    scale: Tensor  # float64 [column], weight units of one integer
    weights: Tensor  # float64 [row, column], what an ideal converter would read
    variance: Tensor | None  # float64 [row, column], added by one read

    def to(self, device: Any) -> "Programmed":
        """The same on another torch device."""
        parts = tuple(
            (None if columns is None else columns.to(device), cells.to(device)) for columns, cells in self.parts
        )
        variance = None if self.variance is None else self.variance.to(device)
        return replace(
            self, parts=parts, scale=self.scale.to(device), weights=self.weights.to(device), variance=variance
        )


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
        unit, place = self.unit, weight.device
        integers, scale = quantise_weights(weight, unit.encoding)
        name = self.layer if rewrites == 0 else f"{self.layer}#{rewrites}"
        parts: list[tuple[Tensor | None, Cells]] = []
        weights, variance = torch.empty_like(integers), torch.zeros_like(integers)
        for mode, columns in self._modes(integers).items():
            part = integers[:, columns]
            if unit.encoding.bits is None:
                held, added = continuous(unit, mode, part, seed=seed, name=name, seconds=seconds)
            else:
                cells = write(
                    unit, mode, part, seed=seed, name=name, seconds=seconds, largest_sum=self.sum_range.get(mode)
                )
                held, added = cells.weights(), cells.weight_variance()
                parts.append((None if columns.numel() == integers.shape[1] else columns, cells))
            weights[:, columns] = held
            if added is not None:
                variance[:, columns] = added
        noisy = variance if bool(variance.any()) else None
        self.programmed = Programmed(seed, seconds, rewrites, tuple(parts), scale, weights * scale, noisy).to(place)
        self.tokens_read = 0

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
        for columns, cells in programmed.parts:
            product = read(integers, cells, self.unit.input, seed=programmed.seed, first_token=first)
            if columns is None:
                outputs = product
            else:
                outputs[:, columns] = product
        return (outputs * programmed.scale * input_scale.to(torch.float64)).to(inputs.dtype)

    def _effective(self, inputs: Tensor, programmed: Programmed, first: int) -> Tensor:
        """One product with the effective weights; read noise as one normal for each output."""
        if self.unit.input.bits is not None:
            integers, scale = quantise_inputs(inputs, self.unit.input, self.input_range)
            inputs = integers * scale
        outputs = inputs @ programmed.weights.to(inputs.dtype)
        if programmed.variance is None:
            return outputs
        variance = (inputs.to(torch.float64) ** 2) @ programmed.variance
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
        row["parts"] = [self._describe_part(columns, cells) for columns, cells in programmed.parts]
        return row

    def _describe_part(self, columns: Tensor | None, cells: Cells) -> dict[str, Any]:
        exact = self.unit.fidelity == "exact"
        high = cells.converter.high
        return {
            "mode": cells.mode,
            "columns": cells.conductance.shape[2],
            "slices": [[one.place * (one.polarity or 1), one.bits] for one in cells.slices],
            "device": self.unit.cell.device[cells.mode].model_dump(exclude_none=True),
            "adc_bits": self.unit.adc.bits[cells.mode] if exact and self.unit.adc else None,
            "adc_step_levels": cells.converter.step * 2.0**-cells.fraction_bits if exact and high is not None else None,
            "adc_codes": [cells.converter.low, high] if exact and high is not None else None,
            "read_noise": cells.read_variance is not None,
            "kernel": kernel_name(cells) if exact else "effective product",
        }


def _check_finite(inputs: Tensor, layer: str) -> None:
    if not bool(torch.isfinite(inputs).all()):
        raise DataError(
            f"layer {layer}: its inputs hold NaN or Inf; a converter cannot read them. Look at the layer before"
        )
